"""One denoiser call: from (x, sigma) to every branch's prediction, with whatever devices there are."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

from .exchange import Exchange, WorkerLost
from .report import RunReport
from .share import Unit, share

Predictions = dict[int, torch.Tensor]


class Engine:
    """A run's engine. `exchanges` are the workers beside this process; `check` may raise to interrupt.

    A worker that fails is left out for the rest of the run and its part is computed here, so
    the picture is finished whatever happens to it; the report says so.
    """

    def __init__(self, exchanges: Sequence[Exchange], report: RunReport, check: Callable[[], None] = lambda: None):
        self.exchanges = list(exchanges)
        self.report, self.check = report, check

    def step(
        self,
        x: torch.Tensor,
        sigma: torch.Tensor,
        units: Sequence[Unit],
        here: Callable[[list[Unit]], Predictions],
        weight: Callable[[list[Unit]], torch.Tensor],
    ) -> Predictions:
        """Exact stage: every unit is computed at this very (x, sigma), each on one device.

        x [batch, channels, ...], sigma [batch]. `here` computes units in this process; `weight`
        gives the sum of some units' masks, [batch, channels, ...], and is asked only for a branch
        that was taken apart. Returns a prediction of x's shape per branch in `units`.
        """
        shares = share(units, 1 + len(self.exchanges))
        record = self.report.open_step(float(sigma[0]), shares)
        given: list[tuple[Exchange, list[Unit]]] = []
        fallen: list[Unit] = []
        for exchange, mine in zip(list(self.exchanges), shares[1:]):
            if mine:
                try:
                    exchange.submit(x, sigma, mine)
                    given.append((exchange, mine))
                except WorkerLost as error:
                    fallen += self._drop(exchange, mine, error)

        started = time.perf_counter()
        parts = [(shares[0], here(shares[0]))]
        if x.device.type != "cpu":  # kernels run on after their launch; what follows needs their results anyway
            torch.get_device_module(x.device).current_stream(x.device).synchronize()
        record.compute_s.append(time.perf_counter() - started)

        for exchange, mine in given:
            try:
                answer = exchange.collect(self.check)
            except WorkerLost as error:
                fallen += self._drop(exchange, mine, error)
                continue
            parts.append((mine, answer.predictions))
            record.compute_s.append(answer.compute_s)
            record.wait_s += answer.wait_s
            record.bytes_sent += answer.bytes_sent
            record.bytes_received += answer.bytes_received
        if fallen:
            parts.append((fallen, here(fallen)))
        return merge(parts, weight)

    def _drop(self, exchange: Exchange, units: list[Unit], error: WorkerLost) -> list[Unit]:
        self.exchanges.remove(exchange)
        self.report.note(f"{error}; this process took over and finished the picture")
        return units


def merge(parts: Sequence[tuple[list[Unit], Predictions]], weight: Callable[[list[Unit]], torch.Tensor]) -> Predictions:
    """Put the devices' predictions together.

    A branch from one device is taken as it is. A branch from several is the mean of theirs
    weighted by their conds' masks, as the host means conds within a batch.
    """
    sources: dict[int, list[tuple[list[Unit], torch.Tensor]]] = {}
    for units, predictions in parts:
        for branch, prediction in predictions.items():
            mine = [unit for unit in units if unit.branch == branch]
            sources.setdefault(branch, []).append((mine, prediction))
    merged: Predictions = {}
    for branch, found in sources.items():
        if len(found) == 1:
            merged[branch] = found[0][1]
            continue
        weights = [weight(units) for units, _ in found]
        total = torch.stack(weights).sum(0)
        merged[branch] = sum(prediction * w for (_, prediction), w in zip(found, weights)) / total
    return merged
