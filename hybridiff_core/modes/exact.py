"""exact: every step whole."""

from __future__ import annotations

from ..call import Call, Predictions
from ..report import StepRecord
from ..schedule import Work
from .mode import Mode


class Exact(Mode):
    """Every unit of every call is computed at that very (x, sigma), each on one device."""

    def choose(self, step: int) -> Work:
        return Work.EXACT

    def run(self, work: Work, call: Call, record: StepRecord) -> Predictions:
        return self.exact(call, record)
