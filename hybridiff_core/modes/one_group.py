"""What alternating branches and the paper's stage have in common: two devices that share one network a step."""

from __future__ import annotations

from ..call import Call, Eps
from ..report import StepRecord
from ..rules import CHECK_EVERY
from ..schedule import Work
from .cut_mode import CutMode
from .estimates import Alternator, difference_gain
from .mode import Mode, RunState


class OneGroup(CutMode):
    """Both branches come out of one branch's step. Only exact steps show the error, so with a tolerance some are."""

    def __init__(self, state: RunState, before: Mode | None = None):
        super().__init__(state, before)
        self.alternator = Alternator(difference_gain(state.setting.steps))
        self._turn = 0  # stage steps so far

    def choose(self, step: int) -> Work:
        work = super().choose(step)
        self._turn += work is self.work
        return work

    def _takes(self, place: int) -> bool:
        return not (self.state.schedule.used.tolerance and place % CHECK_EVERY == 0)

    def _learn(self, call: Call, eps: Eps, record: StepRecord) -> None:
        if eps.keys() != {0, 1}:
            return
        if self._stride == 1 and len(self.state.team.devices) == 2:
            following = (self._turn + 1) % 2
            record.error = self.alternator.error(call.time, eps, following, self.state.setting.cfg)
        self.alternator.observe(call.time, eps)
