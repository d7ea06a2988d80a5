"""A denoiser call, and the predictions that answer it.

Branches are numbered as the guider gives them: 0 is cond, 1 uncond. eps stands for what a network
predicts, (x - denoised) / sigma: noise, or the velocity of a flow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from .network.split import Pass
from .share import Unit

Predictions = dict[int, torch.Tensor]  # of each branch, in denoised space
Eps = dict[int, torch.Tensor]
Parts = list[tuple[list[Unit], torch.Tensor]]  # predictions, each with the units it is of


class Here(Protocol):
    """This process's network."""

    def __call__(self, units: list[Unit], through: Pass | None = None) -> Predictions:
        """The prediction for each branch in `units`; `through` is asked at each block (network/split.py)."""


@dataclass(frozen=True)
class Call:
    """A denoiser call. x [batch, channels, ...]; sigma [batch]; `time` is the model's for that sigma, `value`
    the sigma as a number: asking a GPU for it waits for all that it has to do, so it is asked once.

    `here` computes units in this process; `weight` gives the sum of some units' masks, of x's shape,
    and is asked only for a branch that was taken apart.
    """

    x: torch.Tensor
    sigma: torch.Tensor
    units: list[Unit]
    here: Here
    weight: Callable[[list[Unit]], torch.Tensor]
    time: float = 0.0
    value: float = 0.0

    @property
    def branches(self) -> set[int]:
        return {unit.branch for unit in self.units}

    def one(self, unit: Unit, through: Pass) -> torch.Tensor:
        """A single unit's prediction, computed in this process."""
        return self.here([unit], through)[unit.branch]

    def eps(self, predictions: Predictions) -> Eps:
        return {branch: to_eps(denoised, self.x, self.sigma) for branch, denoised in predictions.items()}

    def denoised(self, eps: Eps) -> Predictions:
        return {branch: to_denoised(value, self.x, self.sigma) for branch, value in eps.items()}

    def merged(self, parts: Parts) -> Predictions:
        """The devices' predictions put together."""
        return merge(parts, self.weight)


def merge(parts: Parts, weight: Callable[[list[Unit]], torch.Tensor]) -> Predictions:
    """Put the devices' predictions together.

    A branch from one device is taken as it is. A branch from several is the mean of theirs
    weighted by their conds' masks, as the host means conds within a batch.
    """
    sources: dict[int, Parts] = {}
    for units, prediction in parts:
        sources.setdefault(units[0].branch, []).append((units, prediction))
    merged: Predictions = {}
    for branch, found in sources.items():
        if len(found) == 1:
            merged[branch] = found[0][1]
            continue
        weights = [weight(units) for units, _ in found]
        total = torch.stack(weights).sum(0)
        merged[branch] = sum(prediction * w for (_, prediction), w in zip(found, weights)) / total
    return merged


def to_eps(denoised: torch.Tensor, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """From denoised space; x and denoised [batch, channels, ...], sigma [batch]."""
    return (x - denoised) / _broadcast(sigma, x)


def to_denoised(eps: torch.Tensor, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    return x - _broadcast(sigma, x) * eps


def _broadcast(sigma: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return sigma.to(x).clamp_min(1e-8).view(-1, *[1] * (x.ndim - 1))
