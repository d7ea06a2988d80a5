"""What every mode is given, and what it is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field

from .. import lines
from ..call import Call, Predictions
from ..report import StepRecord
from ..schedule import Schedule, Work
from ..setting import Setting
from ..share import Unit
from ..sharing import Sharing
from ..team import Team
from ..workers.exchange import Exchange


@dataclass
class RunState:
    """A run as its modes see it. What one mode alone knows of it lies in that mode.

    `name` tells the model, the units and the latent's shape: under it, cuts and paces are
    remembered. `units` are those of the calls that follow; `uncut` says why no network is cut
    (any more) in this run.
    """

    setting: Setting
    team: Team
    sharing: Sharing
    schedule: Schedule | None = None
    name: object = None
    units: list[Unit] = field(default_factory=list)
    uncut: str | None = None

    @property
    def branches(self) -> set[int]:
        return {unit.branch for unit in self.units}

    def leave_out(self, reason: str) -> None:
        """No network is cut in this run, and the user hears why."""
        self.uncut = reason
        self.team.report.note(lines.PIPELINE_LEFT_OUT(reason=reason))


class Mode:
    """One way to run the parallelism stage. It knows nothing of ComfyUI, of processes or of another mode.

    A mode is for calls of one kind of units and one latent; where these change, the engine makes a new one.
    """

    outdated = False  # another mode fits the devices that are left

    def __init__(self, state: RunState, before: Mode | None = None):
        """`before` is the mode in whose place this one comes since a device was lost; it may know something."""
        self.state = state

    def expected(self, step: int) -> float | None:
        """How far `step` would be off if it were not computed exactly; None where that is not known."""
        return None

    def choose(self, step: int) -> Work:
        """What to do in `step`, which is in the stage; asked once a step."""
        raise NotImplementedError

    def run(self, work: Work, call: Call, record: StepRecord) -> Predictions:
        """Every branch's prediction. Raises WorkerLost; the call is then made again, exactly."""
        raise NotImplementedError

    def observe(self, call: Call, done: Predictions, record: StepRecord) -> Predictions:
        """Learn from an exact call's predictions; gives what to hand to the sampler in their place."""
        return done

    def exact(self, call: Call, record: StepRecord) -> Predictions:
        """Every unit, on the devices that there are."""
        return call.merged(self.state.sharing.exact(call, record))

    def go_without(self, exchange: Exchange) -> None:
        """A worker is asked for nothing more."""

    def break_up(self, reason: str) -> None:
        """A worker is lost with something that this mode needed: go on with exact steps."""

    def leave(self) -> None:
        """The mode is over: receive what workers still have to send for it."""
