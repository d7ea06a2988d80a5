"""A denoiser call, and the predictions that answer it.

Branches are numbered as the guider gives them: 0 is cond, 1 uncond. eps stands for what a network
predicts, (x - denoised) / sigma: noise, or the velocity of a flow.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch

from . import lines
from .network.split import Pass
from .share import Unit

Predictions = dict[int, torch.Tensor]  # of each branch, in denoised space
Eps = dict[int, torch.Tensor]
Rows = tuple[int, int, int]  # some of a call's batch items: the first, the one after the last, of how many


class Piece(NamedTuple):
    """The prediction of some units, all of one branch: of x's shape, or with batch items `rows` alone, [first, end)."""

    units: list[Unit]
    prediction: torch.Tensor
    rows: tuple[int, int] | None = None


Parts = list[Piece]


class Here(Protocol):
    """This process's network."""

    def __call__(self, units: list[Unit], through: Pass | None = None, rows: Rows | None = None) -> Predictions:
        """The prediction for each branch in `units`; `through` is asked at each block (network/split.py).

        With `rows` only those batch items are computed, and the predictions have no others.
        """


@dataclass(frozen=True)
class Call:
    """A denoiser call. x [batch, channels, ...]; sigma [batch]; `time` is the model's for that sigma, `value`
    the sigma as a number: asking a GPU for it waits for all that it has to do, so it is asked once.

    `here` computes units in this process; `weight` gives the sum of some units' masks, of x's shape,
    and is asked only for a branch that was taken apart. `undividable` is why the batch items cannot be computed apart,
    in words for users; None where they can.
    """

    x: torch.Tensor
    sigma: torch.Tensor
    units: list[Unit]
    here: Here
    weight: Callable[[list[Unit]], torch.Tensor]
    time: float = 0.0
    value: float = 0.0
    undividable: str | None = None

    @property
    def branches(self) -> set[int]:
        return {unit.branch for unit in self.units}

    def rows(self, span: tuple[int, int] | None) -> Rows | None:
        """Batch items [first, end), as a network is asked for them."""
        return None if span is None else (*span, len(self.x))

    def one(self, unit: Unit, through: object) -> torch.Tensor:
        """A single unit's prediction, computed in this process."""
        return self.here([unit], through)[unit.branch]

    def eps(self, predictions: Predictions) -> Eps:
        return {branch: to_eps(denoised, self.x, self.sigma) for branch, denoised in predictions.items()}

    def denoised(self, eps: Eps) -> Predictions:
        return {branch: to_denoised(value, self.x, self.sigma) for branch, value in eps.items()}

    def merged(self, parts: Parts) -> Predictions:
        """The devices' predictions put together."""
        return merge(parts, self.weight, len(self.x))


def merge(parts: Parts, weight: Callable[[list[Unit]], torch.Tensor], batch: int) -> Predictions:
    """Put the devices' predictions together, each of a `batch` of items.

    A branch from one device is taken as it is. Where several computed some of its conds, it is the
    mean of theirs weighted by their conds' masks, as the host means conds within a batch; batch
    items that were computed apart are joined. Raises RuntimeError where a batch item lacks a cond
    that others have, or has it twice.
    """
    branches: dict[int, Parts] = {}
    for piece in parts:
        branches.setdefault(piece.units[0].branch, []).append(piece)
    return {branch: _of_branch(pieces, weight, batch) for branch, pieces in branches.items()}


def _of_branch(pieces: Parts, weight: Callable[[list[Unit]], torch.Tensor], batch: int) -> torch.Tensor:
    spans = [piece.rows or (0, batch) for piece in pieces]
    if spans == [(0, batch)]:
        return pieces[0].prediction
    borders = sorted({0, batch, *(border for span in spans for border in span)})
    shared = len({tuple(piece.units) for piece in pieces}) > 1  # else its conds were not taken apart
    weights = [weight(piece.units) if shared else None for piece in pieces]
    everything = set(_keys(pieces))
    joined = []
    for first, end in itertools.pairwise(borders):
        inside = [i for i, span in enumerate(spans) if span[0] <= first and end <= span[1]]
        keys = _keys(pieces[i] for i in inside)
        if len(keys) != len(set(keys)) or set(keys) != everything:
            branch = pieces[0].units[0].branch
            raise RuntimeError(lines.ITEMS_MISSING(first=first + 1, end=end, batch=batch, branch=branch))
        found = [pieces[i].prediction[first - spans[i][0] : end - spans[i][0]] for i in inside]
        if len(found) == 1:
            joined += found
            continue
        of_each = [weights[i][first:end] for i in inside]
        joined.append(sum(map(torch.mul, found, of_each)) / torch.stack(of_each).sum(0))
    return torch.cat(joined) if len(joined) > 1 else joined[0]


def _keys(pieces: Iterable[Piece]) -> list[tuple[int, int]]:
    return [(unit.branch, unit.index) for piece in pieces for unit in piece.units]


def to_eps(denoised: torch.Tensor, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """From denoised space; x and denoised [batch, channels, ...], sigma [batch]."""
    return (x - denoised) / _broadcast(sigma, x)


def to_denoised(eps: torch.Tensor, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    return x - _broadcast(sigma, x) * eps


def _broadcast(sigma: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return sigma.to(x).clamp_min(1e-8).view(-1, *[1] * (x.ndim - 1))
