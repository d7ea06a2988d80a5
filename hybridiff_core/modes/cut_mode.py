"""What the modes that cut the network have in common."""

from __future__ import annotations

from ..call import Call, Eps, Predictions
from ..report import StepRecord
from ..schedule import Stage, Work
from ..share import Unit
from ..team import label
from ..workers.exchange import Exchange
from .block_times import MEASURED_CALLS, BlockTimes
from .mode import Mode, RunState
from .predicting import Predicting
from .sandwich import Sandwich

KNOWN_CALLS = 2  # exact calls after the timed ones that z is taken from
EARLIEST = MEASURED_CALLS + KNOWN_CALLS  # the first step that may be in the stage


class CutMode(Mode):
    """Exact steps until the network is cut, then `work` in the stage, with predicted steps between by predict_stride.

    What differs between its kinds is `_sandwich`, `_takes`, `_units`, `_complete` and `_learn`.
    """

    work: Work
    turns = 1  # steps from one of a branch's steps to its next

    def __init__(self, state: RunState, before: Mode | None = None):
        super().__init__(state, before)
        known = before if isinstance(before, CutMode) else None
        self.predicting = known.predicting if known else Predicting(state)
        self.times = known.times if known else BlockTimes(state.team)
        self.sandwich = self._sandwich()

    def _sandwich(self) -> Sandwich:
        return Sandwich(self.state, self.times)

    # -- what to do in a step

    @property
    def _stride(self) -> int:
        return self.state.setting.plan.predict_stride or 1

    def choose(self, step: int) -> Work:
        place = step - self.state.schedule.tau1  # 1 is the stage's first step
        if self.predicting.ready and place % self._stride > 0:
            return Work.PREDICTED
        return self.work if self.sandwich.ready and self._takes(place) else Work.EXACT

    def _takes(self, place: int) -> bool:
        """Whether the stage's step `place` is run on old features, all that it needs being there."""
        return True

    # -- a call

    def run(self, work: Work, call: Call, record: StepRecord) -> Predictions:
        if work is Work.EXACT:
            return self._exact_or_cut(call, record)
        if work is Work.PREDICTED:
            return self.predicting.predict(call, record)
        reach = self._stride * max(self.turns, self.sandwich.longest_delay)
        hand_on = record.step + reach <= self.state.schedule.tau2
        units, inner = self._units(call, record)
        done = call.merged(self.sandwich.step(call, record, units, hand_on, inner))
        eps = self._complete(call, call.eps(done), record)
        return call.denoised(self.predicting.take(call, eps, record))

    def _exact_or_cut(self, call: Call, record: StepRecord) -> Predictions:
        self.sandwich.drain()
        if self.state.uncut is not None or (self.sandwich.cut and not self._wants_inner(record.step)):
            return self.exact(call, record)
        parts = self.sandwich.exact(call, record)
        if self.state.uncut is None and not (self.sandwich.cut or self.outdated) and self.times.settled:
            self.sandwich.choose_cuts(call)
        return call.merged(parts)

    def _wants_inner(self, step: int) -> bool:
        """Whether inner results are to be taken in an exact step: some in a row before the stage, and all in it.

        Others are shared in whatever way is fastest, so that no device is idle in them.
        """
        schedule = self.state.schedule
        if schedule.stage(step) is Stage.FULLY_CONNECTING:
            return False
        start = schedule.used.start if schedule.tau1 is None else schedule.tau1 + 1
        return start is None or step >= start - KNOWN_CALLS * self.turns

    def _units(self, call: Call, record: StepRecord) -> tuple[list[Unit], Unit | None]:
        """The units of a stage step, and another one whose conditioning the inner part runs with."""
        return call.units, None

    def _complete(self, call: Call, eps: Eps, record: StepRecord) -> Eps:
        """Every branch's eps in a stage step, from those computed."""
        return eps

    def observe(self, call: Call, done: Predictions, record: StepRecord) -> Predictions:
        eps = call.eps(done)
        if self._stride > 1:
            record.error = self.predicting.error(call, eps, record.step)
        self._learn(call, eps, record)
        given = self.predicting.take(call, eps, record)
        return done if given is eps else call.denoised(given)

    def _learn(self, call: Call, eps: Eps, record: StepRecord) -> None:
        """Take what an exact call shows, and how far off this mode's own step would have been."""

    # -- losses

    def go_without(self, exchange: Exchange) -> None:
        if self.sandwich.groups:
            self.break_up(f"{label(exchange)} is out")
        elif self.state.uncut is None:
            self.outdated = True  # fewer devices may still do for a group

    def break_up(self, reason: str) -> None:
        self.sandwich.break_up(reason)

    def leave(self) -> None:
        if self.sandwich.lead and self.state.uncut is None:
            self.state.team.drain()
