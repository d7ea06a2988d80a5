"""The sandwich: a network's blocks, cut into an outer part and inner segments, and where to cut.

A network that can be cut asks a Pass at each of its blocks what to do. The state between two
blocks is a tuple of tensors: all that later blocks read and earlier ones wrote. It is taken and
replaced where a block ends, for a network may do something of its own before the next one begins.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

State = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Cut:
    """Inner segments lie between neighbouring `bounds`; the blocks before and after are the outer part."""

    bounds: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.bounds) < 2 or self.first < 1 or list(self.bounds) != sorted(set(self.bounds)):
            raise ValueError(f"bounds {self.bounds} do not rise from 1; give each segment's first block and the end")

    @property
    def first(self) -> int:
        return self.bounds[0]

    @property
    def last(self) -> int:
        return self.bounds[-1]

    @property
    def segments(self) -> list[tuple[int, int]]:
        return list(zip(self.bounds, self.bounds[1:]))


class Reached(Exception):
    """An inner segment is done; the rest of the network is not wanted. `state` is its result."""

    def __init__(self, state: State):
        super().__init__("the segment's end")
        self.state = state


class Pass:
    """One forward pass through a network of blocks: what to do at each. This one runs them all."""

    first = 0  # where the inner part begins

    def enter(self, block: int) -> None:
        """A block begins."""

    def runs(self, block: int) -> bool:
        """Whether it is to be run."""
        return True

    def leave(self, block: int, state: State) -> State:
        """A block ends, with `state`; the network goes on with what this gives."""
        return state

    def at(self, block: int, state: State, run: Callable[[State], State]) -> State:
        """A block as a whole, for networks whose hook is the whole block."""
        self.enter(block)
        return self.leave(block, run(state) if self.runs(block) else state)


class Whole(Pass):
    """An exact pass. Takes z, the inner part's result, on its way (with a cut), or each block's seconds."""

    def __init__(self, cut: Cut | None = None, settle: Callable[[], None] | None = None):
        self.cut, self.settle = cut, settle
        self.first = cut.first if cut else 0
        self.z: State | None = None
        self.times: list[float] = []
        self._entered = 0.0

    def enter(self, block: int) -> None:
        if self.settle:
            self.settle()
            self._entered = time.perf_counter()

    def leave(self, block: int, state: State) -> State:
        if self.settle:
            self.settle()
            self.times.append(time.perf_counter() - self._entered)
        if self.cut and block == self.cut.last - 1:
            self.z = tuple(tensor.clone() for tensor in state)
        return state


class Outer(Pass):
    """The lead's pass: hands h on where the inner part begins, and goes on with `z()` where it ends."""

    def __init__(self, cut: Cut, z: Callable[[], State], hand_on: Callable[[State], None]):
        self.cut, self.z, self.hand_on = cut, z, hand_on
        self.first = cut.first

    def runs(self, block: int) -> bool:
        return not self.cut.first <= block < self.cut.last

    def leave(self, block: int, state: State) -> State:
        if block == self.cut.first - 1:
            self.hand_on(state)
        # a copy: networks add to what they are given in place, and z is still wanted
        return tuple(tensor.clone() for tensor in self.z()) if block == self.cut.last - 1 else state


class Inner(Pass):
    """An inner device's pass: from the state `h` that was handed to it, through one segment."""

    def __init__(self, first: int, segment: tuple[int, int], h: State):
        self.first, self.h = first, h
        self.start, self.stop = segment

    def runs(self, block: int) -> bool:
        return self.start <= block < self.stop

    def leave(self, block: int, state: State) -> State:
        if block == self.start - 1:
            return self.h
        if block == self.stop - 1:
            raise Reached(state)
        return state


def central_openings(blocks: int, segments: int = 1) -> list[tuple[int, int]]:
    """Where an inner part of so many segments can lie in a row of blocks: in the middle, at any length."""
    openings = []
    for length in range(segments, blocks - 1):
        first = (blocks - length) // 2
        openings.append((first, first + length))
    return openings


def balance(
    times: Sequence[Sequence[float]], rest: float, openings: Sequence[tuple[int, int]]
) -> tuple[Cut, list[float]] | None:
    """Where to cut so that all devices finish together, and the seconds each then takes.

    `times[0]` are the lead's seconds for each block, `times[1:]` the inner devices'; `rest` what
    the lead does besides blocks. None where no opening has room for that many segments.
    """
    best: tuple[float, Cut, list[float]] | None = None
    for first, last in openings:
        if last - first < len(times) - 1:
            continue
        outer = rest + sum(times[0][:first]) + sum(times[0][last:])
        bounds = _partition([device[first:last] for device in times[1:]])
        cut = Cut(tuple(first + bound for bound in bounds))
        seconds = [outer, *(sum(device[a:b]) for device, (a, b) in zip(times[1:], cut.segments))]
        if best is None or max(seconds) < best[0]:
            best = (max(seconds), cut, seconds)
    return best and (best[1], best[2])


def _partition(times: Sequence[Sequence[float]]) -> list[int]:
    """Cut a row of blocks into one run of at least one block a device, the longest run as short as can be."""
    devices, blocks = len(times), len(times[0])
    cost = [[0.0] * (blocks + 1) for _ in times]
    for device, of_device in enumerate(times):
        for block, seconds in enumerate(of_device):
            cost[device][block + 1] = cost[device][block] + seconds
    # least[d][b]: the longest run when devices 0..d share blocks 0..b-1; came[d][b]: where device d's run begins
    least = [[float("inf")] * (blocks + 1) for _ in times]
    came = [[0] * (blocks + 1) for _ in times]
    least[0][1:] = cost[0][1:]
    for device in range(1, devices):
        for end in range(device + 1, blocks + 1):
            for start in range(device, end):
                longest = max(least[device - 1][start], cost[device][end] - cost[device][start])
                if longest < least[device][end]:
                    least[device][end], came[device][end] = longest, start
    bounds = [blocks]
    for device in range(devices - 1, -1, -1):
        bounds.append(came[device][bounds[-1]])
    return bounds[::-1]
