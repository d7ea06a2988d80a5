"""paper: the parallelism stage as published (arXiv 2602.21760), for comparison."""

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


class Paper(CutMode):
    """The outer part runs with the cond text, the inner one with the uncond text, on features two steps old.

    One prediction comes out and is used for both branches, so guidance has no effect in the stage.
    Its error is not measured in the paper; that of alternating branches stands for it.
    """

    work = Work.PAPER
    turns = 2

    def __init__(self, state: RunState, before: Mode | None = None):
        super().__init__(state, before)
        self.alternator = Alternator(difference_gain(state.setting.steps))
        self._steps = 0

    def _sandwich(self) -> Sandwich:
        return Sandwich(self.state, self.times, takes_turns=True, delay=2, extrapolate=False)

    def choose(self, step: int) -> Work:
        work = super().choose(step)
        self._steps += work is self.work
        return work

    def _takes(self, place: int) -> bool:
        return not (self.state.schedule.used.tolerance and place % CHECK_EVERY == 0)

    def _units(self, call: Call, record: StepRecord) -> tuple[list[Unit], Unit | None]:
        of_branch = {unit.branch: unit for unit in call.units}
        return [of_branch[0]], of_branch[1]

    def _complete(self, call: Call, eps: Eps, record: StepRecord) -> Eps:
        return {0: eps[0], 1: eps[0]}

    def _learn(self, call: Call, eps: Eps, record: StepRecord) -> None:
        if eps.keys() != {0, 1}:
            return
        if len(self.state.team.devices) == 2:
            following = (self._steps + 1) % 2
            record.error = self.alternator.error(call.time, eps, following, self.state.setting.cfg)
        self.alternator.observe(call.time, eps)
