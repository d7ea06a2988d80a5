"""The ways to run the parallelism stage, one class each, and which one a run is given."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from .. import lines
from ..plan import HybridPlan
from ..rules import LEAST_STEPS
from ..share import Unit
from .alternating import Alternating
from .exact import Exact
from .mode import Mode, RunState
from .paper import Paper
from .pipeline import Pipeline
from .predict import Predict

CUTTING = ("pipeline", "paper")  # modes that cut the network


def mode_for(plan: HybridPlan, steps: int) -> str:
    """What auto means for a run of so many steps; another mode is what it is.

    The same for any number of devices: at equal time predict is nearer to the exact picture than a
    pipeline (docs/benchmarks), and a picture does not change when a device is added or lost.
    """
    mode = plan.effective.mode
    if mode != "auto":
        return mode
    return "exact" if steps < LEAST_STEPS else "predict"


def make_mode(name: str, state: RunState, before: Mode | None = None) -> Mode:
    """The mode called `name` for the run's devices and units; `before` is the one in whose place it comes."""
    if name == "pipeline":
        alternates = len(state.team.devices) == 2 and state.branches == {0, 1}
        return (Alternating if alternates else Pipeline)(state, before)
    return {"exact": Exact, "predict": Predict, "paper": Paper}[name](state, before)


def obstacle(name: str, units: Sequence[Unit], devices: int) -> str | None:
    """Why the mode `name` cannot cut a network for `units` on so many devices, in words for users."""
    if name not in CUTTING:
        return None
    branches: Collection[int] = {unit.branch for unit in units}
    if any(unit.local for unit in units):
        return lines.PART_STAYS_HERE()
    if any(unit.controls for unit in units):
        return lines.CONTROLNET_NEEDS_ALL()
    if name == "paper":
        if devices != 2 or branches != {0, 1} or len(units) != 2:
            return lines.PAPER_NEEDS_TWO(devices=devices, conds=len(units))
    elif devices < 2 or devices < len(branches) or (devices == len(branches) and branches != {0, 1}):
        return lines.NO_INNER_DEVICE(devices=devices, branches=len(branches))
    return None
