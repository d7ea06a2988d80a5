"""pipeline with two devices and two branches: they share one branch's network a step, and the branches take turns."""

from __future__ import annotations

from ..call import Call, Eps
from ..report import StepRecord
from ..schedule import Work
from ..share import Unit
from .mode import Mode, RunState
from .one_group import OneGroup
from .sandwich import Sandwich


class Alternating(OneGroup):
    """The branch whose turn it is not is told by the guidance difference."""

    work = Work.ALTERNATING
    turns = 2

    def __init__(self, state: RunState, before: Mode | None = None):
        super().__init__(state, before)
        self._branches: dict[int, int] = {}  # the one whose turn it is, by step

    def _sandwich(self) -> Sandwich:
        return Sandwich(self.state, self.times, takes_turns=True)

    def choose(self, step: int) -> Work:
        work = super().choose(step)
        self._branches[step] = self._turn % 2
        return work

    def _takes(self, place: int) -> bool:
        return super()._takes(place) and self.alternator.ready

    def _units(self, call: Call, record: StepRecord) -> tuple[list[Unit], Unit | None]:
        return [unit for unit in call.units if unit.branch == self._branches[record.step]], None

    def _complete(self, call: Call, eps: Eps, record: StepRecord) -> Eps:
        branch = self._branches[record.step]
        return self.alternator.complete(call.time, branch, eps[branch])
