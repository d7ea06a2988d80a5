"""Extrapolation in the model's time: of eps, of inner results z, of the guidance difference D."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch

from .rules import FURTHEST

Tensors = tuple[torch.Tensor, ...]


def factor(older: float, newer: float, now: float) -> float:
    """f in `newer + f (newer - older)`, for a line over three times; 0 where the first two are one."""
    distance = newer - older
    if abs(distance) < 1e-9 * max(abs(newer), abs(older), 1e-9):
        return 0.0
    return min(max((now - newer) / distance, -1.0), FURTHEST)


class History:
    """The last two values of something, each a tuple of tensors, and the model's times they belong to."""

    def __init__(self) -> None:
        self._values: deque[tuple[float, Tensors]] = deque(maxlen=2)

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self):
        return iter(self._values)

    @property
    def newest(self) -> tuple[float, Tensors]:
        return self._values[-1]

    def add(self, time: float, value: Sequence[torch.Tensor]) -> None:
        """Take the value at `time`; one at the same time replaces what was there."""
        if self._values and self._values[-1][0] == time:
            self._values.pop()
        self._values.append((time, tuple(value)))

    def at(self, time: float, gain: float = 1.0) -> Tensors:
        """The value expected at `time`, on the line through the last two; `gain` damps its slope (0: as it came)."""
        now, newer = self._values[-1]
        if len(self._values) < 2 or gain == 0.0:
            return newer
        then, older = self._values[0]
        f = gain * factor(then, now, time)
        return tuple(torch.lerp(a, b, 1.0 + f) for a, b in zip(older, newer))


def between(before: float, a: torch.Tensor, after: float, b: torch.Tensor, time: float) -> torch.Tensor:
    """The value at `time` on the line through (before, a) and (after, b); b where they are one time."""
    return b if before == after else torch.lerp(a, b, (time - before) / (after - before))
