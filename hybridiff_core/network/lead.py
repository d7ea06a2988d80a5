"""The lead of a branch group: the outer part of its units, fresh, on inner results of steps before."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from ..discrepancy import relative_error
from ..extrapolation import History
from ..share import Unit
from .split import Cut, Outer, Pass, State, Whole

Key = tuple[int, int]  # a unit's branch and index
# one unit's prediction, the forward done with a Pass
Forward = Callable[[Unit, Pass], torch.Tensor]


class Link(Protocol):
    """The way from a lead to its inner devices and back. Results come in the order in which h was handed on."""

    def send(self, unit: Unit, h: State, z: State) -> None:
        """Hand h on; `z` shows the shapes of what will come back."""

    def receive(self) -> State:
        """The oldest result that is still out."""


@dataclass
class _Out:
    """An inner result on its way: of which unit, its which turn, the model's time, and what was used in its place."""

    key: Key
    turn: int
    time: float
    used: State | None = None


class Lead:
    """What a lead knows of its units: z's history, and which results are still out.

    `delay` is how many of a unit's steps its z is behind: the number of inner segments, for each
    takes the time of a step. `extrapolate=False` takes z as it came.
    """

    def __init__(self, cut: Cut, link: Link | None = None, delay: int = 1, extrapolate: bool = True):
        self.cut, self.link, self.delay, self.extrapolate = cut, link, delay, extrapolate
        self.histories: dict[Key, History] = {}
        self.errors: list[float] = []
        self._turns: Counter[Key] = Counter()
        self._out: deque[_Out] = deque()

    def whole(self, unit: Unit, now: float, forward: Forward) -> torch.Tensor:
        """The unit computed exactly; takes its z on the way."""
        self.drain()  # what is out is older
        through = Whole(self.cut)
        prediction = forward(unit, through)
        if through.z is not None:
            self.keep(unit, now, through.z)
        return prediction

    def keep(self, unit: Unit, now: float, z: State) -> None:
        """Take the true z of an exact step, and compare it with what would have been used."""
        history = self.histories.setdefault((unit.branch, unit.index), History())
        if len(history) == 2:
            self.errors.append(relative_error(history.at(now, float(self.extrapolate)), z))
        history.add(now, z)

    def outer(self, unit: Unit, now: float, forward: Forward, hand_on: bool = True, inner: Unit | None = None):
        """The unit's prediction with z expected at `now`; `hand_on=False` where no later step wants z.

        `inner` is another unit whose conditioning the inner part runs with (paper mode).
        """
        key = (unit.branch, unit.index)
        history = self.histories[key]
        self._turns[key] += 1
        mine = _Out(key, self._turns[key], now)

        def hand(h: State) -> None:
            if hand_on:
                self.link.send(inner or unit, h, history.newest[1])
                self._out.append(mine)

        def expected() -> State:
            while any(out.key == key and out.turn <= mine.turn - self.delay for out in self._out):
                self._receive()
            mine.used = history.at(now, float(self.extrapolate))
            return mine.used

        return forward(unit, Outer(self.cut, expected, hand))

    def recall(self, key: Sequence[int], count: int) -> list[tuple[float, State]]:
        """The last `count` inner results of a unit, and their times, the newest last."""
        return list(self.histories.get(tuple(key), ()))[-count:]

    def drain(self) -> None:
        """Receive what is still out."""
        while self._out:
            self._receive()

    def take_error(self) -> float | None:
        """The largest error of z since the last time this was asked."""
        error = max(self.errors, default=None)
        self.errors.clear()
        return error

    def _receive(self) -> None:
        out = self._out.popleft()
        z = self.link.receive()
        if out.used is not None:
            self.errors.append(relative_error(out.used, z))
        self.histories[out.key].add(out.time, z)


def measure(forward: Forward, unit: Unit, settle: Callable[[], None], before: dict | None = None):
    """The unit's exact prediction, and what took how long: {"times": seconds of each block, "rest": the others}.

    Of several measurements the least counts, block by block; `before` has those before this one.
    """
    through = Whole(settle=settle)
    started = time.perf_counter()
    prediction = forward(unit, through)
    settle()
    seconds = time.perf_counter() - started
    measured = {"times": through.times, "rest": max(seconds - sum(through.times), 0.0)}
    if before and len(before["times"]) == len(through.times):
        measured["times"] = [min(pair) for pair in zip(before["times"], through.times)]
        measured["rest"] = min(before["rest"], measured["rest"])
    return prediction, measured
