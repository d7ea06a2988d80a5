"""A call that is known before it is asked for: a worker computes it while this process computes the one before it.

A guider of two models asks one of them and then the other, at the same x and sigma. A worker that holds the other model
is given those when the first is asked.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from . import lines
from .call import Call, Predictions
from .handshake import Handshake
from .newcomers import TRIALS
from .paces import Paces
from .report import RunReport, StepRecord
from .share import Unit
from .waiting import wait_for
from .workers.exchange import Answer, Exchange
from .workers.watch import WorkerLost


@dataclass(frozen=True)
class Given:
    """What the worker was given. `x` is a copy: a sampler may go on in the same memory."""

    x: torch.Tensor
    sigma: torch.Tensor
    units: list[Unit]

    def is_for(self, call: Call) -> bool:
        pairs = ((self.x, call.x), (self.sigma, call.sigma))
        same = all(a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)
        return same and self.units == call.units


class Ahead:
    """One worker's part in a run whose second model it holds.

    What it computed is used only for a call with the x, sigma and units that it was given, and only once its results
    were found right (`handshake`). `known` remembers, by `model`, who is too slow; without it a device is waited for.
    `check` may raise to interrupt.
    """

    def __init__(
        self, report: RunReport, handshake: Handshake, known: Paces | None, model: object, check: Callable[[], None]
    ):
        self.report, self.handshake, self.known, self.model, self.check = report, handshake, known, model, check
        self.exchange: Exchange | None = None
        self._next: list[Unit] | None = None  # the units of the call that is expected
        self._given: Given | None = None
        self._lane: int | None = None  # the worker's in the report, once its results are used
        self._calls = self._slow = 0
        self._trial: tuple[Call, Predictions] | None = None  # what the worker is not done with, and this process's own
        self._since = self._own_s = 0.0
        self._pair_s = math.inf  # this process's least seconds for both calls
        self.left = False  # the worker is asked for nothing more in this run

    def meet(self, exchange: Exchange) -> None:
        """The worker is ready."""
        self.exchange = exchange

    def expect(self, units: Sequence[Unit]) -> None:
        """A call like the last one comes again, of these units; the worker knows its conds."""
        self._next = list(units)

    def forget(self) -> None:
        """The call that comes is of other conds than the worker was told: what it was given is for nothing."""
        self._given = self._given and replace(self._given, units=[])

    def begin(self, x: torch.Tensor, sigma: torch.Tensor) -> None:
        """The call before the expected one comes: give the worker that one. Does not wait."""
        self._since = time.perf_counter()
        if self.exchange is None:
            return
        try:
            self.exchange.look()
            if self._given is not None:  # it was not asked for, or not waited for
                if not self.exchange.answered():
                    return
                answer, trial = self._collect(), self._trial
                self._trial = None
                if trial is None or self._is_right(answer, *trial, True):
                    self._judge(answer)
            if self._next and self.exchange:
                self.exchange.submit(x, sigma, self._next)
                self._given, self._next = Given(x.clone(), sigma.clone(), self._next), None
        except WorkerLost as error:
            self._lose(error)

    def predict(self, call: Call, record: StepRecord) -> Predictions:
        """The call's predictions. What they took is added to `record`, which is that of the call before it."""
        first_s = time.perf_counter() - self._since
        self._calls += 1
        asked = self._given is not None and self._given.is_for(call)
        answer = self._answer(call) if asked else None
        due = answer is not None and self.handshake.due(self.exchange, call, self._calls - 1)
        if answer is not None and self._lane is not None and not due:
            self._note(answer, record, first_s)
            self._judge(answer)
            return {piece.units[0].branch: piece.prediction for piece in answer.parts}
        started = time.perf_counter()
        own = call.here(call.units)
        wait_for(call.x.device)
        self._own_s = time.perf_counter() - started
        self._pair_s = min(self._pair_s, first_s + self._own_s)
        if answer is None:
            if asked and self.exchange:  # compared when it is here; others may go on in the same memory
                mine = {branch: of.clone() for branch, of in own.items()}
                self._trial = replace(call, x=self._given.x), mine
            return own
        if self._is_right(answer, call, own, due):
            if self._lane is None and self.known is None:
                self._join()
            if self._lane is not None:
                self._note(answer, record, first_s, self._own_s)
            self._judge(answer)
        return own

    def _is_right(self, answer: Answer, call: Call, own: Predictions, due: bool) -> bool:
        """Whether the worker's answer is this process's own; else it is asked for nothing more."""
        pairs = [(piece.prediction, own[piece.units[0].branch]) for piece in answer.parts]
        off = max(self.handshake.off(call, *pair) for pair in pairs)
        if off > self.handshake.allowed(self.exchange):
            self.handshake.failed(self.exchange, call, off)
            self._leave(lines.ANOTHER_PICTURE(device=self.exchange.place.label, off=off))
            return False
        if due:
            self.handshake.passed(self.exchange, call)
        return True

    def _answer(self, call: Call) -> Answer | None:
        """What the worker made of this call, which it was given; None where it is not done and nobody waits for it."""
        if (off := self.handshake.differs(self.exchange, call)) is not None:
            self._leave(lines.ANOTHER_PICTURE(device=self.exchange.place.label, off=off))
            return None
        if self._lane is None and self.handshake.trusts(self.exchange, call) and not self._slow:
            self._join()
        waits = self._lane is not None or self.known is None
        try:
            return self._collect() if waits or self.exchange.answered() else None
        except WorkerLost as error:
            self._lose(error)
            return None

    def _collect(self) -> Answer:
        self._given = None
        return self.exchange.collect(self.check)

    def conclude(self) -> None:
        """The run came to its end."""
        self._trial = None  # it holds the network
        if self.exchange and self._lane is None:
            self.report.note(lines.NOT_READY(device=self.exchange.place.label))
        elif self.exchange and self.known:
            self.known.helped(self.model, self.exchange.place.label)

    # -- the worker

    def _join(self) -> None:
        self._lane = len(self.report.devices)
        self.report.devices.append(self.exchange.place.label)
        steps = self.handshake.steps
        if self.known and self._calls > 2:  # the first call shows what comes, with the second it can begin
            step = min(self._calls, steps)
            self.report.note(lines.JOINED(device=self.exchange.place.label, step=step, steps=steps))

    def _judge(self, answer: Answer) -> None:
        """Whether the worker is fast enough to be waited for: done before this process would be with both calls."""
        device = self.exchange.place.label
        self._slow = self._slow + 1 if self.known and answer.compute_s >= self._pair_s else 0
        if self._slow == TRIALS:
            times = answer.compute_s / self._own_s
            self.known.leave_out(self.model, device, times)
            self._leave(lines.TOO_SLOW(device=device, times=times))

    def _note(self, answer: Answer, record: StepRecord, first_s: float, own_s: float = 0.0) -> None:
        """Take down an answer; this process took `first_s` for the first call, and `own_s` where it compared."""
        if 0 not in record.lanes:
            record.took(0, first_s + own_s)
        record.took(self._lane, answer.compute_s)
        record.conds += [0] * (self._lane + 1 - len(record.conds))
        record.conds[self._lane] += sum(len(piece.units) for piece in answer.parts)
        record.share = (record.share or 1.0) / (1 if own_s else 2)
        record.helpers += 1
        record.wait_s += answer.wait_s
        record.bytes_sent += answer.bytes_sent
        record.bytes_received += answer.bytes_received

    def _lose(self, error: WorkerLost) -> None:
        self._leave(lines.TOOK_OVER(reason=error))

    def _leave(self, line: str) -> None:
        """Ask the worker for nothing more in this run."""
        self.report.note(line)
        self.exchange = self._given = self._trial = None
        self.left = True
