"""What came of a run's plan, in lines for users: how many steps were predicted, or why none was."""

from __future__ import annotations

import math

from .. import lines
from ..schedule import Schedule, Work


def outcome(schedule: Schedule, mode: str) -> list[str]:
    """The lines at the run's end; `mode` is the last one, "exact" where another line says why it became that."""
    works = [line.work for line in schedule.lines()]
    predicted, others = works.count(Work.PREDICTED), len(works) - works.count(Work.EXACT) - works.count(Work.PREDICTED)
    found = []
    if others:
        found.append(lines.STEPS_ON_OLD_RESULTS(count=others, steps=len(works), mode=mode))
    if predicted:
        found.append(lines.STEPS_PREDICTED(count=predicted, steps=len(works)))
    elif mode == "predict" and len(works) == schedule.steps:
        found.append(lines.NONE_PREDICTED(steps=len(works), reason=_why_none(schedule)))
    return found


def _why_none(schedule: Schedule) -> str:
    times = schedule.nearest_miss
    if times is None:
        return lines.ERRORS_NOT_MEASURED()
    if math.isinf(times):
        return lines.ERRORS_NOT_NEAR()
    return lines.ERRORS_TOO_LARGE(times=f"{times:.1f}", tolerance=f"{schedule.used.tolerance:.4g}")
