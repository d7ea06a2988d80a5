"""paper: the parallelism stage as published (arXiv 2602.21760), for comparison."""

from __future__ import annotations

from ..call import Call, Eps
from ..report import StepRecord
from ..schedule import Work
from ..share import Unit
from .one_group import OneGroup
from .sandwich import Sandwich


class Paper(OneGroup):
    """The outer part runs with the cond text, the inner one with the uncond text, on features two steps old.

    One prediction comes out and is used for both branches, so guidance has no effect in the stage.
    Its error is not measured in the paper; that of alternating branches stands for it.
    """

    work = Work.PAPER

    def _sandwich(self) -> Sandwich:
        return Sandwich(self.state, self.times, takes_turns=True, delay=2, extrapolate=False)

    def _units(self, call: Call, record: StepRecord) -> tuple[list[Unit], Unit | None]:
        of_branch = {unit.branch: unit for unit in call.units}
        return [of_branch[0]], of_branch[1]

    def _complete(self, call: Call, eps: Eps, record: StepRecord) -> Eps:
        return {0: eps[0], 1: eps[0]}
