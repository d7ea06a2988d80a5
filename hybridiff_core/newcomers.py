"""Workers that get ready while a run goes on: each shows in a trial what it computes, and how fast.

A trial is a part of a call that this process computes all the same. So nobody waits for it, and
there is something to compare it with.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from . import lines
from .call import Call, Predictions
from .handshake import Handshake
from .modes.mode import RunState
from .report import StepRecord
from .share import Unit, Way
from .team import label
from .workers.exchange import Answer, Exchange
from .workers.watch import WorkerLost

TRIALS = 3  # the first may be slow for other reasons: a network that is loaded, kernels that are chosen


@dataclass
class Trial:
    """`units` of `call`, all those of a branch, and this process's own prediction once it is there."""

    call: Call
    units: list[Unit]
    own: torch.Tensor | None = None
    own_s: float | None = None  # this process's seconds for the whole call: 0 if it had no part, None if not known
    first: bool = False  # the run's first call, which is slow for other reasons
    apart: object = None  # what is shown where the worker makes of them alone what this process does of all (checking)

    @property
    def pace_s(self) -> float:
        """This process's seconds for a unit."""
        return (self.own_s or 0.0) / sum(unit.cost for unit in self.call.units)


class Newcomers:
    """Workers that are to join the run's team."""

    def __init__(self, state: RunState, handshake: Handshake):
        self.state, self.team, self.handshake = state, state.team, handshake
        self._trials: dict[Exchange, Trial | None] = {}
        self._took: dict[Exchange, list[float]] = {}  # seconds for a unit, in each trial
        self._calls = 0
        # those for whom there is no work, and for which model, units and latent
        self._idle: dict[Exchange, object] = {}

    @property
    def exchanges(self) -> list[Exchange]:
        return list(self._trials)

    @property
    def untried(self) -> list[Exchange]:
        """Those that have shown nothing yet."""
        return [exchange for exchange, took in self._took.items() if exchange in self._trials and not took]

    def add(self, exchange: Exchange) -> None:
        self._trials[exchange], self._took[exchange] = None, []

    def remove(self, exchange: Exchange) -> None:
        self._trials.pop(exchange, None)

    def close(self) -> None:
        """The run is over: let go of its calls, which hold the network."""
        self._trials.clear()

    def begin(self, call: Call) -> None:
        """A call that is computed exactly begins: give those who do nothing a part of it."""
        for exchange, trial in list(self._trials.items()):
            units = _branch(call.units)
            if trial or exchange.behind or not units or self._idle.get(exchange, self) == self.state.name:
                continue
            if (off := self.handshake.differs(exchange, call)) is not None:
                self.remove(exchange)
                self.team.report.note(lines.ANOTHER_PICTURE(device=exchange.place.label, off=off))
                continue
            try:
                exchange.submit(call.x, call.sigma, units)
                apart = self.state.sharing.checking.kind(Way.CONDS)
                self._trials[exchange] = Trial(call, units, first=self._calls == 0, apart=apart)
            except WorkerLost as error:
                self._lose(exchange, error)

    def end(self, call: Call, done: Predictions, record: StepRecord) -> None:
        """The call is computed: `done`, as `record` says."""
        self._calls += 1
        for exchange, trial in self._trials.items():
            if trial and trial.call is call:
                trial.own = done[trial.units[0].branch]
                if not self.team.compared:
                    trial.own_s = record.compute_s[0] / record.share if record.share else 0.0
                exchange.steps.own_s = max(exchange.steps.own_s, trial.own_s or 0.0)

    def ready(self, call: Call) -> list[Exchange]:
        """Those that join with this call. Does not wait."""
        joining = []
        for exchange, trial in list(self._trials.items()):
            try:
                if trial is None:
                    if self._is_known(exchange, call):
                        joining.append(exchange)
                    continue
                exchange.look()
                if exchange.answered():
                    self._trials[exchange] = None
                    if self._meet(exchange, trial, exchange.collect(self.team.check), call) and not exchange.behind:
                        joining.append(exchange)
            except WorkerLost as error:
                self._lose(exchange, error)
        for exchange in joining:
            self.remove(exchange)
        return joining

    def _meet(self, exchange: Exchange, trial: Trial, answer: Answer, call: Call) -> bool:
        """Whether the worker's answer is one to go on with. One that is off is compared once more, alone (Team)."""
        if trial.own is None:  # the call came to no end here
            return False
        of_branch = answer.parts[0].prediction
        if self.handshake.off(trial.call, of_branch, trial.own) <= self.handshake.allowed(exchange):
            self.handshake.passed(exchange, trial.call)
            self.handshake.passed_way(trial.apart, [exchange], trial.call)
        if self.team.known is None:  # devices count as equal
            return True
        near = [other for other in (*self.team.exchanges, *self._trials) if not other.place.machine]
        self.state.sharing.met(1 + len(near))  # devices that may divide a forward
        if trial.first or trial.own_s is None:
            return False
        took = self._took[exchange]
        took.append(answer.compute_s / sum(unit.cost for unit in trial.units))
        known = self.team.known
        own_s = trial.pace_s or known.seconds.get(self._key(None))
        if not own_s:  # this process does nothing: others are faster
            return True
        known.seconds |= {self._key(exchange): min(took), self._key(None): own_s}
        if len(self.team.devices) == 1 and trial.own_s:
            known.alone.setdefault(self.state.name, trial.own_s)
        if self._helps(exchange, call, own_s, min(took)):
            return True
        # a call that has nothing for one more device says nothing of this one
        if len(took) >= TRIALS:
            if self.state.sharing.helps(call, [own_s] * (len(self.team.devices) + 1)):
                self.remove(exchange)
                self.team.judging.leave_out_slow(exchange, min(took) / own_s)
            else:
                self._idle[exchange] = self.state.name
        return False

    def _is_known(self, exchange: Exchange, call: Call) -> bool:
        """Whether the worker computed this before, will at once, and was fast enough."""
        if exchange.behind or not (exchange.warm and self.handshake.trusts(exchange, call)):
            return False
        known = self.team.known
        if known is None:
            return True
        own_s, its_s = (known.seconds.get(self._key(device)) for device in (None, exchange))
        return not (own_s and its_s) or self._helps(exchange, call, own_s, its_s)

    def _helps(self, exchange: Exchange, call: Call, own_s: float, its_s: float) -> bool:
        """Whether the worker would be given something, by the seconds for a unit here and there."""
        paces = [*(self.team.paces or [own_s] * len(self.team.devices)), its_s]
        return self.state.sharing.helps(call, paces, bool(exchange.place.machine))

    def _key(self, device: Exchange | None) -> tuple[object, str]:
        return self.state.name, label(device)

    def _lose(self, exchange: Exchange, error: WorkerLost) -> None:
        self.remove(exchange)
        self.team.report.note(lines.TOOK_OVER(reason=error))


def _branch(units: list[Unit]) -> list[Unit]:
    """All units of the last branch of which none has to stay; empty where there is none."""
    for branch in sorted({unit.branch for unit in units}, reverse=True):
        mine = [unit for unit in units if unit.branch == branch]
        if not any(unit.local for unit in mine):
            return mine
    return []
