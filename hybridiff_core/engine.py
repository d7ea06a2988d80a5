"""One denoiser call: from (x, sigma) to every branch's prediction, with whatever devices there are."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from .network.split import Pass
from .report import RunReport, StepRecord
from .share import Unit, share
from .workers.exchange import Exchange
from .workers.watch import WorkerLost

Predictions = dict[int, torch.Tensor]
Parts = list[tuple[list[Unit], torch.Tensor]]  # predictions, each with the units it is of


class Here(Protocol):
    """This process's network."""

    def __call__(self, units: list[Unit], through: Pass | None = None) -> Predictions:
        """The prediction for each branch in `units`; `through` is asked at each block (split.py)."""


@dataclass(frozen=True)
class Call:
    """A denoiser call. x [batch, channels, ...]; sigma [batch]; `time` is the model's for that sigma."""

    x: torch.Tensor
    sigma: torch.Tensor
    units: list[Unit]
    here: Here
    time: float = 0.0

    def one(self, unit: Unit, through: Pass) -> torch.Tensor:
        """A single unit's prediction, computed in this process."""
        return self.here([unit], through)[unit.branch]


class Engine:
    """A run's engine. `exchanges` are the workers beside this process; `check` may raise to interrupt.

    A worker that fails is left out for the rest of the run and its part is computed here, so
    the picture is finished whatever happens to it; the report says so.
    """

    def __init__(self, exchanges: Sequence[Exchange], report: RunReport, check: Callable[[], None] = lambda: None):
        self.exchanges = list(exchanges)
        self.lanes = {exchange: lane for lane, exchange in enumerate(exchanges, 1)}
        self.report, self.check = report, check

    def step(
        self,
        x: torch.Tensor,
        sigma: torch.Tensor,
        units: Sequence[Unit],
        here: Here,
        weight: Callable[[list[Unit]], torch.Tensor],
    ) -> Predictions:
        """Exact stage: every unit is computed at this very (x, sigma), each on one device.

        `here` computes units in this process; `weight` gives the sum of some units' masks, of x's
        shape, and is asked only for a branch that was taken apart. Returns a prediction of x's
        shape per branch in `units`.
        """
        call = Call(x, sigma, list(units), here)
        shares = share(units, 1 + len(self.exchanges))
        record = self.report.open_step(float(sigma[0]), shares)
        return merge(self.exact(call, shares, record), weight)

    def exact(
        self,
        call: Call,
        shares: Sequence[list[Unit]],
        record: StepRecord,
        own: Callable[[list[Unit]], Parts] | None = None,
        **how: object,
    ) -> Parts:
        """Compute `shares[0]` here, by `own`, and the others on the workers, as `how` says (Exchange.submit)."""

        def plain(units: list[Unit]) -> Parts:
            if not units:
                return []
            return [([unit for unit in units if unit.branch == b], d) for b, d in call.here(units).items()]

        given: list[tuple[Exchange, list[Unit]]] = []
        fallen: list[Unit] = []
        for exchange, mine in zip(list(self.exchanges), shares[1:]):
            if mine:
                try:
                    exchange.submit(call.x, call.sigma, mine, **how)
                    given.append((exchange, mine))
                except WorkerLost as error:
                    fallen += self.drop(exchange, mine, error)

        parts = self.timed(call, record, lambda: (own or plain)(shares[0]))
        for exchange, mine in given:
            try:
                parts += self.collected(exchange, record)
            except WorkerLost as error:
                fallen += self.drop(exchange, mine, error)
        if fallen:
            parts += plain(fallen)
        return parts

    def timed(self, call: Call, record: StepRecord, work: Callable[[], Parts]) -> Parts:
        """Do this process's part, and take down how long it took."""
        started = time.perf_counter()
        parts = work()
        settle(call.x.device)  # kernels run on after their launch; what follows needs their results anyway
        record.compute_s.append(time.perf_counter() - started)
        record.lanes.append(0)
        return parts

    def collected(self, exchange: Exchange, record: StepRecord, check: Callable[[], None] | None = None) -> Parts:
        """A worker's part of the call. Raises WorkerLost."""
        answer = exchange.collect(check or self.check)
        record.compute_s.append(answer.compute_s)
        record.lanes.append(self.lanes[exchange])
        record.wait_s += answer.wait_s
        record.bytes_sent += answer.bytes_sent
        record.bytes_received += answer.bytes_received
        record.helpers += 1
        if answer.error is not None:
            record.error = max(answer.error, record.error or 0.0)
        return answer.parts

    def drop(self, exchange: Exchange, units: list[Unit], error: WorkerLost) -> list[Unit]:
        """Leave a worker out for the rest of the run; gives back the units that somebody else has to compute."""
        self.remove(exchange)
        self.report.note(f"{error}; this process took over and finished the picture")
        return units

    def remove(self, exchange: Exchange) -> None:
        """Ask a worker for nothing more in this run."""
        if exchange in self.exchanges:
            self.exchanges.remove(exchange)


def settle(device: torch.device) -> None:
    """Wait until `device` has done what it was given."""
    if device.type != "cpu":
        torch.get_device_module(device).current_stream(device).synchronize()


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
