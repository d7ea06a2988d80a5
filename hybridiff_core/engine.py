"""A run's engine: from each denoiser call to every branch's prediction, on whatever devices there are.

Warm-up and fully-connecting steps are exact; in the parallelism stage between them a mode
(modes/) says which steps may cost less (arXiv 2602.21760).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from . import lines
from .call import Call, Here, Predictions
from .discrepancy import rel_mae
from .handshake import Handshake
from .modes import CUTTING, make_mode, mode_for, obstacle
from .modes.cut_mode import EARLIEST
from .modes.mode import Mode, RunState
from .modes.outcome import outcome
from .newcomers import Newcomers
from .plan import HybridPlan
from .report import RunReport, StepRecord
from .schedule import Schedule, Stage, Work
from .setting import Setting
from .share import Unit
from .sharing import Sharing
from .team import Team
from .workers.exchange import Exchange
from .workers.watch import WorkerLost

ANOTHER = 0.5  # two inputs at one sigma that are further apart, as a share of them, are not of one latent


class Engine:
    """`exchanges` are the workers beside this process; `check` may raise to interrupt."""

    def __init__(
        self,
        exchanges: Sequence[Exchange],
        report: RunReport,
        setting: Setting,
        check: Callable[[], None] = lambda: None,
    ):
        self.report = report
        handshake = Handshake(setting)
        self.team = Team(exchanges, report, handshake, check, self._go_without, setting.paces, setting.name)
        self.sharing = Sharing(setting, self.team, handshake)
        self.state = RunState(setting, self.team, self.sharing)
        self.newcomers = Newcomers(self.state, handshake)
        self.mode: Mode | None = None
        self.mode_name: str | None = None
        self._works: dict[int, Work] = {}  # what was chosen for each step, at its first call
        self._given: tuple = ()
        self._conds: object = None
        self._last: tuple[float, torch.Tensor] | None = None

    @property
    def exchanges(self) -> list[Exchange]:
        return self.team.exchanges

    @property
    def everyone(self) -> list[Exchange]:
        """The workers, and those that are to join them."""
        return self.exchanges + self.newcomers.exchanges

    def welcome(self, exchange: Exchange) -> None:
        """A worker got ready while the run goes on: it joins as soon as it showed what it can do.

        Not in a mode that cuts the network: that is done for the devices there are.
        """
        self.newcomers.add(exchange)

    def admit(self, exchange: Exchange) -> None:
        """A worker has a part from the next call on."""
        self.team.join(exchange)
        self.report.devices.append(exchange.place.label)

    @property
    def schedule(self) -> Schedule | None:
        return self.state.schedule

    # -- a call

    def step(
        self,
        x: torch.Tensor,
        sigma: torch.Tensor,
        units: Sequence[Unit],
        here: Here,
        weight: Callable[[list[Unit]], torch.Tensor],
        conds: object = None,
        again: bool = False,
        undividable: str | None = None,
        kinds: object = None,
    ) -> Predictions:
        """A prediction of x's shape for each branch in `units`, at (x, sigma).

        x [batch, channels, ...]; sigma [batch]; `here` and `weight` as in Call. `conds` tells the
        units' conds from others, `kinds` what is in them; `undividable` is as in Call. `again` says that
        the sampler asked once for what this call and the one before are parts of.
        """
        value = float(sigma[0])
        call = Call(x, sigma, list(units), here, weight, self.state.setting.time(value), value, undividable)
        self._follow(call, conds, again, kinds)
        step = self.schedule.locate(value)
        self._take_in(call, step)
        work = self._work(step)
        record = self.report.open_step(value, [])
        record.step, record.stage = step, self.schedule.stage(step).value
        try:
            done = self._compute(work, call, record)
        except WorkerLost as error:
            self.mode.break_up(str(error))
            self.team.lose(error)
            self._reconsider()
            work = Work.EXACT
            record.helpers, record.compute_s, record.lanes = 0, [], []
            done = self._compute(work, call, record)
        if done.keys() != call.branches:
            raise RuntimeError(lines.BRANCHES_MISSING(found=sorted(done)))
        record.work = work.value
        self.schedule.note(step, work, record.rel_mae, record.error)
        self.report.schedule = str(self.schedule)
        return done

    def _work(self, step: int) -> Work:
        """What to do in `step`, decided at its first call: the mode says, within the stage and what is affordable."""
        if step not in self._works:
            self.schedule.expect(step, self.mode.expected(step))
            in_stage = self.schedule.stage(step) is Stage.PARALLELISM and self.schedule.affords(step)
            self._works[step] = self.mode.choose(step) if in_stage else Work.EXACT
        return self._works[step]

    def _compute(self, work: Work, call: Call, record: StepRecord) -> Predictions:
        if work is not Work.EXACT:
            return self.mode.run(work, call, record)
        self.newcomers.begin(call)
        done = self.mode.run(work, call, record)
        self.newcomers.end(call, done, record)
        if {0, 1} <= done.keys():
            record.rel_mae = rel_mae(done[0], done[1], call.x)
        return self.mode.observe(call, done, record)

    def _take_in(self, call: Call, step: int) -> None:
        """Workers that are ready join from this call on."""
        for exchange in self.newcomers.ready(call):
            self.admit(exchange)
            if step:
                self.report.note(
                    lines.JOINED(device=exchange.place.label, step=step + 1, steps=self.state.setting.steps)
                )

    # -- whether what earlier calls found holds for this one

    def _follow(self, call: Call, conds: object, again: bool, kinds: object) -> None:
        """Take note of a call's units and latent.

        What earlier calls found is of use only where they were of the same conds and latent: a run
        where they take turns stays exact.
        """
        given = (tuple((unit.branch, unit.index, unit.controls) for unit in call.units), tuple(call.x.shape), kinds)
        same = given == self._given and conds == self._conds
        if self._last and self.mode_name != "exact" and (reason := self._turns(call, same, again)):
            self.stay_exact(reason)
            same = False
        if not same:
            self._start_over(call, given)
        elif self.mode.outdated:
            self._refit(self.mode)
        self._conds, self._last = conds, (call.value, call.x)

    def _turns(self, call: Call, same: bool, again: bool) -> str | None:
        """Why this call does not follow from the one before it as a sampler's calls do; None where it does."""
        value = call.value
        before, x = self._last
        if again or (value == before and (not same or _far(x, call.x))):
            return lines.CALLS_IN_TURN()
        if value > self.schedule.before * (1 + 1e-5):
            return lines.SIGMAS_DO_NOT_FALL()
        return None

    def _start_over(self, call: Call, given: tuple) -> None:
        """The first call, or one with other units or another latent than before: nothing known holds for it."""
        state, setting = self.state, self.state.setting
        if self.mode:
            self.mode.leave()
        self.mode_name = self.report.mode = mode_for(setting.plan, setting.steps)
        self._works = {step: work for step, work in self._works.items() if work is Work.EXACT}
        self._given = given
        state.units, state.name = call.units, (setting.name, given)
        tolerance = 0.0 if self.mode_name == "exact" else setting.plan.tolerated
        self.sharing.call_for(state.name, tolerance)
        self._refit(None)
        if state.schedule is None:
            self._make_schedule()
        state.schedule.weight = setting.weight
        state.schedule.error = None  # nothing more is predicted before it is measured for these conds

    def _refit(self, before: Mode | None) -> None:
        """The mode for the devices and units there are; `before` is the one in whose place it comes."""
        reason = obstacle(self.mode_name, self.state.units, len(self.team.devices))
        if reason and self.exchanges and before is None:
            self.state.leave_out(reason)
        elif reason:
            self.state.uncut = reason  # why nobody helps is said already
        self.mode = make_mode(self.mode_name, self.state, before)

    def _make_schedule(self) -> None:
        setting = self.state.setting
        earliest = {"earliest": EARLIEST} if self.mode_name in CUTTING else {}
        schedule = Schedule(
            setting.plan, setting.sigmas, noise=setting.noise, flow=setting.flow, scale=setting.scale, **earliest
        )
        self.state.schedule = schedule
        if self.mode_name == "exact":
            return
        if len(self.state.branches) < 2 and schedule.used.start is None:
            self.report.note(lines.NO_SLOPE())

    # -- what happens on the way

    def stay_exact(self, reason: str | None = None) -> None:
        """Nothing more is predicted or cut in this run."""
        if reason:
            self.report.note(reason)
        self.state.setting = replace(self.state.setting, plan=HybridPlan(mode="exact"))
        self.forget()

    def guided(self, cfg: float) -> None:
        """The next call's guidance. Where it is stronger than before, what was predicted well may be no more."""
        if cfg > self.state.setting.cfg:
            self.state.setting = replace(self.state.setting, cfg=cfg)
            if self.mode_name == "predict":
                self.forget()

    def conclude(self) -> None:
        """Say what came of the plan, and of sharing, at the run's end."""
        self.sharing.conclude()
        for line in outcome(self.schedule, self.mode_name) if self.schedule else ():
            self.report.note(line)

    def close(self) -> None:
        """The run is over, or interrupted: nothing is asked of the workers any more."""
        self.sharing.close()
        self.newcomers.close()

    def forget(self) -> None:
        """What was found so far holds for no call to come."""
        self._given = ()

    def dismiss(self) -> None:
        """Go on without the workers: from now on they would miss something that this process has."""
        self.team.drain()
        for exchange in self.everyone:
            self.remove(exchange)
        self.forget()

    def remove(self, exchange: Exchange) -> None:
        """Ask a worker for nothing more in this run, between two calls."""
        self.newcomers.remove(exchange)
        self.team.remove(exchange)
        self.team.drain()  # its group's results are for nobody now

    def _go_without(self, exchange: Exchange) -> None:
        if self.mode:
            self.mode.go_without(exchange)
            self._reconsider()

    def _reconsider(self) -> None:
        """What was chosen for devices that are no longer there is chosen anew, for a step's further calls too."""
        self._works = {step: work for step, work in self._works.items() if work in (Work.EXACT, Work.PREDICTED)}


def _far(last: torch.Tensor, x: torch.Tensor) -> bool:
    """Whether two inputs at one sigma are of different latents; samplers change theirs only in part (heun)."""
    return x is not last and bool((x - last).norm() > ANOTHER * last.norm())
