"""The demo's model in a worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch

from ..split import Pass
from .model import ModelConfig, SmallModel
from .sizes import Sizes


class DemoBackend:
    """recipe: {"config": ModelConfig's fields} or {"sizes": those of Sizes}.

    run: {"conds": a context tensor per branch}.
    """

    kinds: ClassVar[dict] = {}

    def __init__(self, start: dict):
        self.device = torch.device(start["device"])
        self._model: SmallModel | Sizes | None = None
        self._contexts: list[torch.Tensor] = []

    def load(self, recipe: dict) -> dict:
        if "sizes" in recipe:
            self._model = Sizes(**recipe["sizes"])
        else:
            self._model = SmallModel(ModelConfig(**recipe["config"])).to(self.device).eval()
        return {"read_anew": True}

    def begin(self, run: dict, fresh: bool) -> None:
        self._contexts = run["conds"]

    def predict(
        self,
        x: torch.Tensor,
        sigma: torch.Tensor,
        units: Sequence[tuple[int, int]],
        through: Pass | None = None,
    ) -> list[torch.Tensor]:
        contexts = torch.cat([self._contexts[branch].expand(x.shape[0], -1, -1) for branch, _ in units])
        count = len(units)
        denoised = self._model.denoise(torch.cat([x] * count), torch.cat([sigma] * count), contexts, through)
        return list(denoised.chunk(count))

    def end(self) -> None:
        self._contexts = []

    def unload(self) -> None:
        self._model = None
