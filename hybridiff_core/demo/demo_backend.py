"""The demo's model in a worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch

from ..call import Rows
from ..network.split import Pass
from ..network.tokens import Look, Shard
from . import trained
from .model import ModelConfig, SmallModel
from .sd3 import SmallSD3
from .sizes import Sizes


class DemoBackend:
    """recipe: {"config": ModelConfig's fields}, {"sizes": those of Sizes}, or {"trained": True}.

    run: {"conds": for each branch what the network's `denoise` takes beside x and sigma, one tensor or several}.
    """

    kinds: ClassVar[dict] = {}
    remarks = ()
    doubt = shelf = None

    def __init__(self, start: dict):
        self.device = torch.device(start["device"])
        self._model: SmallModel | SmallSD3 | Sizes | None = None
        self._contexts: list[tuple[torch.Tensor, ...]] = []

    def load(self, recipe: dict) -> dict:
        if "sizes" in recipe:
            self._model = Sizes(**recipe["sizes"])
        elif "trained" in recipe:
            self._model = trained.network().to(self.device)
        else:
            self._model = SmallModel(ModelConfig(**recipe["config"])).to(self.device).eval()
        return {"read_anew": True}

    def begin(self, run: dict, fresh: bool) -> None:
        self._contexts = [cond if isinstance(cond, tuple) else (cond,) for cond in run["conds"]]

    def predict(
        self,
        x: torch.Tensor,
        sigma: torch.Tensor,
        units: Sequence[tuple[int, int]],
        through: Pass | Look | Shard | None = None,
        rows: Rows | None = None,
    ) -> list[torch.Tensor]:
        count, batch = len(units), x.shape[0]
        given = zip(*(_of_rows(self._contexts[branch], rows) for branch, _ in units))
        contexts = [torch.cat([part.expand(batch, *part.shape[1:]) for part in parts]) for parts in given]
        denoised = self._model.denoise(torch.cat([x] * count), torch.cat([sigma] * count), *contexts, through=through)
        return list(denoised.chunk(count))

    def end(self) -> None:
        self._contexts = []

    def make_room(self) -> None:
        pass  # one small model

    def unload(self) -> None:
        self._model = None


def _of_rows(parts: tuple[torch.Tensor, ...], rows: Rows | None) -> tuple[torch.Tensor, ...]:
    """Conditioning with an item for each of the batch's is another for each of them."""
    if rows is None:
        return parts
    first, end, of = rows
    return tuple(part[first:end] if len(part) == of else part for part in parts)
