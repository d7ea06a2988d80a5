"""A diffusers network in a worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch

from ..call import Rows, to_denoised
from ..network.split import Pass
from ..workers.torch_settings import lay as lay_torch_settings
from .diffusers_cuts import splitter_for
from .network import SAMPLE, network_of, of_rows


class DiffusersBackend:
    """recipe: network.recipe_of's.

    run: {"conds": the arguments of each branch's forward; "dtype": x's in the network; "timestep":
    the timestep's dtype; "torch": torch_settings.read's}. sigma is the timestep plus one, in
    float64, so that no timestep is rounded and none divides by zero.
    """

    kinds: ClassVar[dict] = {}
    remarks = ()
    doubt = shelf = None

    def __init__(self, start: dict):
        self.device = torch.device(start["device"])
        self._network = self._splitter = self._run = None

    def load(self, recipe: dict) -> dict:
        self._network = None
        self._network = network_of(recipe, self.device)
        self._splitter = splitter_for(self._network)
        return {"read_anew": True}

    def begin(self, run: dict, fresh: bool) -> None:
        self._run = run
        lay_torch_settings(run["torch"])

    def predict(
        self,
        x: torch.Tensor,
        sigma: torch.Tensor,
        units: Sequence[tuple[int, int]],
        through: Pass | None = None,
        rows: Rows | None = None,
    ) -> list[torch.Tensor]:
        timestep = (sigma - 1).to(self._run["timestep"])
        arguments = {SAMPLE[type(self._network)]: x.to(self._run["dtype"]), "timestep": timestep, "return_dict": False}
        predictions = []
        for branch, _ in units:
            with self._splitter.asking(through):
                (out,) = self._network(**arguments, **of_rows(self._run["conds"][branch], rows))
            predictions.append(to_denoised(out.to(x.dtype), x, sigma))
        return predictions

    def end(self) -> None:
        self._run = None

    def make_room(self) -> None:
        if self.device.type != "cpu" and hasattr(module := torch.get_device_module(self.device), "empty_cache"):
            module.empty_cache()

    def unload(self) -> None:
        self._network = self._splitter = None
