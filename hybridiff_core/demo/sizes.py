"""A network of true sizes that computes nothing: what would cross between devices, for counting bytes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..network.split import Pass
from ..workers.wire import DTYPES


class Sizes(nn.Module):
    """Three blocks, the middle one the inner part; `h` and `z` are the shapes of the tensors around it."""

    def __init__(self, h: Sequence[Sequence[int]], z: Sequence[Sequence[int]], dtype: str):
        super().__init__()
        self.h, self.z = ([torch.zeros(*shape, dtype=DTYPES[dtype]) for shape in shapes] for shapes in (h, z))

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, context: torch.Tensor, through: Pass | None = None):
        """0.9 x, whatever the context."""
        through = through or Pass()
        state = through.at(0, (x,), lambda _: tuple(self.h))
        state = through.at(1, state, lambda _: tuple(self.z))
        (done,) = through.at(2, state, lambda _: (0.9 * x,))
        return done
