"""predict: some steps are not computed, but told from the computed ones before. auto is this with a tolerance."""

from __future__ import annotations

from .. import lines
from ..call import Call, Predictions
from ..report import StepRecord
from ..rules import MOST_PREDICTED, REACH
from ..schedule import Work
from .mode import Mode, RunState
from .predicting import Predicting


class Predict(Mode):
    """Steps of the stage are predicted as the tolerance allows, or all but every m-th (predict_stride).

    It takes no second device, cuts no network and knows no architecture.
    """

    def __init__(self, state: RunState, before: Mode | None = None):
        super().__init__(state, before)
        self.predicting = Predicting(state)
        self._predicted: set[int] = set()
        self._open: list[int] = []  # those that no measured error has followed yet

    def expected(self, step: int) -> float | None:
        return self.predicting.expected(step)

    def choose(self, step: int) -> Work:
        if not self.predicting.ready or not self._predicts(step):
            return Work.EXACT
        self._predicted.add(step)
        self._open.append(step)
        return Work.PREDICTED

    def _predicts(self, step: int) -> bool:
        schedule, plan = self.state.schedule, self.state.setting.plan
        stride = 0 if plan.mode == plan.preset == "auto" else plan.predict_stride  # auto has its own rule
        if stride or not schedule.used.tolerance:
            return (step - schedule.tau1) % (stride or 2) > 0
        if self._predicted.issuperset(range(step - MOST_PREDICTED, step)):
            return False
        return self.predicting.reach(step) <= REACH

    def run(self, work: Work, call: Call, record: StepRecord) -> Predictions:
        if work is Work.PREDICTED:
            return self.predicting.predict(call, record)
        return self.exact(call, record)

    def _look_back(self, now: int) -> None:
        """What was predicted since the last exact call is rated by the error that this one measured."""
        schedule = self.state.schedule
        for step in self._open:
            schedule.revise(step, self.expected(step))
        if self._open and 0.0 < schedule.used.tolerance < (off := self.predicting.left_of(schedule.off)):
            shown = {"off": f"{off:.4f}", "tolerance": f"{schedule.used.tolerance:.4g}"}
            self.state.team.report.note(lines.FURTHER_OFF(**shown, step=now))
        self._open.clear()

    def observe(self, call: Call, done: Predictions, record: StepRecord) -> Predictions:
        eps = call.eps(done)
        record.error = self.predicting.error(call, eps, record.step)
        self._look_back(record.step)
        given = self.predicting.take(call, eps, record)
        return done if given is eps else call.denoised(given)
