"""pipeline with two devices and two branches: they share one branch's network a step, and the branches take turns."""

from __future__ import annotations

from ..call import Call, Eps
from ..report import StepRecord
from ..rules import CHECK_EVERY
from ..schedule import Work
from ..share import Unit
from .cut_mode import CutMode
from .estimates import Alternator, difference_gain
from .mode import Mode, RunState
from .sandwich import Sandwich


class Alternating(CutMode):
    """The branch whose turn it is not is told by the guidance difference."""

    work = Work.ALTERNATING
    turns = 2

    def __init__(self, state: RunState, before: Mode | None = None):
        super().__init__(state, before)
        self.alternator = Alternator(difference_gain(state.setting.steps))
        self._turn = 0
        self._turns: dict[int, int] = {}  # the branch of each step

    def _sandwich(self) -> Sandwich:
        return Sandwich(self.state, self.times, takes_turns=True)

    def choose(self, step: int) -> Work:
        work = super().choose(step)
        if work is self.work:
            self._turn += 1
            self._turns[step] = self._turn % 2
        return work

    def _takes(self, place: int) -> bool:
        checked = self.state.schedule.used.tolerance and place % CHECK_EVERY == 0
        return not checked and self.alternator.ready

    def _units(self, call: Call, record: StepRecord) -> tuple[list[Unit], Unit | None]:
        return [unit for unit in call.units if unit.branch == self._turns[record.step]], None

    def _complete(self, call: Call, eps: Eps, record: StepRecord) -> Eps:
        turn = self._turns[record.step]
        return self.alternator.complete(call.time, turn, eps[turn])

    def _learn(self, call: Call, eps: Eps, record: StepRecord) -> None:
        if self._stride == 1 and len(self.state.team.devices) == 2:
            following = (self._turn + 1) % 2
            record.error = self.alternator.error(call.time, eps, following, self.state.setting.cfg)
        self.alternator.observe(call.time, eps)
