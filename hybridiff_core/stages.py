"""The engine with the three stages: warm-up and fully-connecting steps exact, the middle by a mode.

Devices are divided into branch groups. In the parallelism stage the lead of a group runs the outer
part of the network on inner results of earlier steps, while the group's other devices compute the
inner part for later ones (METHOD sections 5 and 6).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch

from .discrepancy import rel_mae
from .engine import Call, Engine, Here, Parts, Predictions, merge, settle
from .modes import Alternator, Eps, Predictor, difference_gain, to_denoised, to_eps
from .network.lead import Lead, measure
from .network.split import Cut, Pass, balance
from .plan import LEAST_STEPS, HybridPlan
from .report import RunReport, StepRecord
from .schedule import Schedule, Stage, Work
from .share import Unit, share
from .workers.chain import Chain
from .workers.exchange import Exchange
from .workers.watch import GroupLost, WorkerLost

MEASURED_CALLS = 3  # calls that time each block; the least time counts, for the first is slow and others disturb
KNOWN_CALLS = 2  # exact calls after them that a pipeline takes z from
FETCHED = 1  # inner results that a lead fetches from the worker that computed its branch before
MOST_FORESEEN = 2  # steps in a row, where a plan has a tolerance and no stride
REACH = 1.5  # times the distance of the last two computed values is how far beyond them the line is then followed
CHECK_EVERY = 5  # in modes whose error only exact steps show: every how many steps one is, with a tolerance
HIGHER_ORDER = 3.5  # how much more than Euler a sampler of higher order makes of what a step is off
STEPS_PER_CFG = 6  # with fewer steps for each unit of CFG, every sampler makes more of it, in proportion
PACED_CALLS = 3  # exact calls that show which device is slower
ANOTHER = 0.5  # two inputs at one sigma that are further apart, as a share of them, are not of one latent
UNEQUAL, UNEQUAL_S = 1.25, 0.005  # devices whose times for a call differ by less count as equal

Cuts = dict[object, Cut]
# where a network of so many blocks can be cut for so many inner segments, or why nowhere
Openings = Callable[[int, int], "list[tuple[int, int]] | str"]
Paces = dict[object, "list[float] | None"]


@dataclass
class Setting:
    """What the stages must know of a run, beside the workers.

    `sigmas` are the sampler's; `time` gives the model's time for a sigma; `openings` says where
    the network can be cut. `cuts` and `paces` remember, by `name`, where networks were cut and
    which devices were slower: what is measured differs from run to run, and the picture must not.
    `noise` has what sigma is at each of `sigmas`, where these only number levels. `flow` says that
    the model is a flow, and sigma its time; `first_order` that each of the
    sampler's steps is eps times the change of sigma, as Euler's. `extrapolate=False` takes inner
    results as they come, for comparison.
    """

    plan: HybridPlan
    sigmas: Sequence[float]
    cfg: float = 1.0
    time: Callable[[float], float] = float
    openings: Openings = lambda blocks, segments: "this network has no blocks to cut"
    cuts: Cuts = field(default_factory=dict)
    paces: Paces = field(default_factory=dict)
    name: object = None
    noise: Sequence[float] | None = None
    flow: bool = False
    first_order: bool = False
    extrapolate: bool = True

    @property
    def steps(self) -> int:
        return len(self.sigmas) - 1

    @property
    def weight(self) -> float:
        """How much of what a step is off the sampler makes of it, against Euler's with many steps."""
        of_order = 1.0 if self.first_order else HIGHER_ORDER
        return of_order * (max(1.0, STEPS_PER_CFG * self.cfg / self.steps) if self.cfg > 1.0 else 1.0)


def mode_for(plan: HybridPlan, steps: int) -> str:
    """What auto means for a run of so many steps; another mode is what it is.

    The same for any number of devices: at equal time predict is nearer to the exact picture than a
    pipeline (docs/BENCHMARKS.md), and a picture does not change when a device is added or lost.
    """
    mode = plan.effective.mode
    if mode != "auto":
        return mode
    return "exact" if steps < LEAST_STEPS else "predict"


@dataclass
class Group:
    """Devices that share a branch, or alternating branches: a lead (None: this process) and inner devices."""

    branches: list[int]
    lead: Exchange | None
    inner: list[Exchange]

    @property
    def delay(self) -> int:
        return len(self.inner)


def form_groups(exchanges: Sequence[Exchange], seconds: dict[int, float]) -> list[Group]:
    """Divide this process and `exchanges` among the branches, whose exact `seconds` are given.

    Every branch gets a lead, and as many inner devices as all can have; each that is left goes to
    the branch whose devices have most to do.
    """
    devices = [None, *exchanges]
    groups = [Group([branch], device, []) for branch, device in zip(sorted(seconds), devices)]
    even = len(devices) // len(groups) * len(groups)
    for place, device in enumerate(devices[len(groups) : even]):
        groups[place % len(groups)].inner.append(device)
    for device in devices[even:]:
        busiest = max(groups, key=lambda group: seconds[group.branches[0]] / (1 + len(group.inner)))
        busiest.inner.append(device)
    return groups


class StagedEngine(Engine):
    """An Engine (engine.py) that follows a plan through the three stages."""

    def __init__(
        self,
        exchanges: Sequence[Exchange],
        report: RunReport,
        setting: Setting,
        check: Callable[[], None] = lambda: None,
    ):
        super().__init__(exchanges, report, check)
        self.setting = setting
        self.mode: str | None = None
        self.schedule: Schedule | None = None
        self.predictor, self.alternator = Predictor(), Alternator(difference_gain(setting.steps))
        self.groups: list[Group] = []
        self.lead: Lead | None = None
        self.paces: list[float] | None = None
        self._paces: list[list[float]] = []
        self._chain: Chain | None = None
        self._given: tuple = ()
        self._conds: object = None
        self._last: tuple[float, torch.Tensor] | None = None
        self._units: list[Unit] = []
        self._works: dict[int, tuple[Work, int]] = {}
        self._turn = 0
        self._exact_calls = 0
        self._cut = False
        self._off: str | None = None
        self._holders: dict[tuple[int, int], Exchange | None] = {}

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
    ) -> Predictions:
        """As Engine.step, with what the stage of this step allows.

        `conds` tells the units' conds from others, `again` says that the sampler asked once for
        what this call and the one before are parts of. What earlier calls found is of use only
        where they were of the same conds and latent: a run where they take turns stays exact.
        """
        value = float(sigma[0])
        call = Call(x, sigma, list(units), here, self.setting.time(value))
        given = (tuple((unit.branch, unit.index, unit.controls) for unit in units), tuple(x.shape))
        if self._last and self.mode != "exact" and (obstacle := self._turns(call, given, conds, again)):
            self.stay_exact(obstacle)
        if given != self._given or conds != self._conds:
            self._start_over(call, given)
        self._conds, self._last = conds, (value, x)
        step = self.schedule.locate(value)
        work, turn = self._work(step)
        record = self.report.open_step(value, [])
        record.step, record.stage = step, self.schedule.stage(step).value
        try:
            done = self._do(work, turn, step, call, record, weight)
        except WorkerLost as error:
            self._lose(error)
            work = Work.EXACT
            record.helpers, record.compute_s, record.lanes = 0, [], []
            done = self._do(work, turn, step, call, record, weight)
        if done.keys() != {unit.branch for unit in units}:
            raise RuntimeError(f"branches {sorted(done)} were computed, not all that were asked for; this is a bug")
        record.work = work.value
        self.schedule.note(step, work, record.rel_mae, record.error)
        self.report.schedule = str(self.schedule)
        return done

    def _do(self, work: Work, turn: int, step: int, call: Call, record: StepRecord, weight) -> Predictions:
        if work is Work.EXACT:
            return self._exact(call, step, record, weight)
        if work is Work.PREDICTED:
            eps = self.predictor.foresee(call.time, self._move(step))
            return {branch: to_denoised(value, call.x, call.sigma) for branch, value in eps.items()}
        done = merge(self._sandwich(work, turn, step, call, record), weight)
        eps = {branch: to_eps(d, call.x, call.sigma) for branch, d in done.items()}
        if work is Work.ALTERNATING:
            eps = self.alternator.complete(call.time, turn, eps[turn])
        if work is Work.PAPER:
            eps = {0: eps[0], 1: eps[0]}
        made_up = self._made_up(call, step, eps)
        self.predictor.observe(call.time, eps)
        return {branch: to_denoised(value, call.x, call.sigma) for branch, value in made_up.items()}

    def _turns(self, call: Call, given: tuple, conds: object, again: bool) -> str | None:
        """Why this call does not follow from the one before it as a sampler's calls do; None where it does."""
        value = float(call.sigma[0])
        before, x = self._last
        if again or (value == before and (given != self._given or conds != self._conds or _far(x, call.x))):
            return "a node calls the network for parts of the latent or of the conds in turn, so every step is exact"
        if value > self.schedule.before * (1 + 1e-5):
            return "the sigmas do not fall from step to step, so every step is exact"
        return None

    def stay_exact(self, reason: str | None = None) -> None:
        """Nothing more is foreseen or cut in this run."""
        if reason:
            self.report.note(reason)
        self.setting = replace(self.setting, plan=HybridPlan(mode="exact"))
        self.forget()

    def guided(self, cfg: float) -> None:
        """The next call's guidance. Where it is stronger than before, what was foreseen well may be no more."""
        if cfg > self.setting.cfg:
            self.setting = replace(self.setting, cfg=cfg)
            if self.mode == "predict":
                self.forget()

    def dismiss(self) -> None:
        """Go on without the workers: from now on they would miss something that this process has."""
        self._drain()
        for exchange in list(self.exchanges):
            self.remove(exchange)
        self.forget()

    def forget(self) -> None:
        """What was found so far holds for no call to come."""
        self._given = ()

    def _move(self, step: int) -> float:
        return self.schedule.noise[step + 1] - self.schedule.noise[step]

    def _made_up(self, call: Call, step: int, eps: Eps) -> Eps:
        """The computed `eps`, or with what foreseen steps before it were off by."""
        return self.predictor.make_up(call.time, self._move(step), eps) if self.setting.first_order else eps

    def _start_over(self, call: Call, given: tuple) -> None:
        """The first call, or one with other units or another latent than before: nothing known holds for it."""
        branches = {unit.branch for unit in call.units}
        self.mode = mode_for(self.setting.plan, self.setting.steps)
        self.report.mode = self.mode
        self.predictor, self.alternator = Predictor(), Alternator(difference_gain(self.setting.steps))
        if self.lead and self._off is None:
            self._drain()
        self.lead, self._chain, self.groups, self._cut = None, None, [], False
        self._exact_calls = 0
        self._own_times: dict = {}
        self._works = {step: done for step, done in self._works.items() if done[0] is Work.EXACT}
        self._holders.clear()
        pipeline = self.mode in ("pipeline", "paper")
        obstacle = self._pipeline_obstacle(call.units) if pipeline else None
        if obstacle and self.exchanges:
            self._leave_out(obstacle)
        elif obstacle:
            self._off = obstacle  # why nobody helps is said already
        if self.schedule is None:
            self.schedule = Schedule(
                self.setting.plan,
                self.setting.sigmas,
                MEASURED_CALLS + KNOWN_CALLS if pipeline else KNOWN_CALLS,
                self.setting.noise,
                self.setting.flow,
            )
            if self.mode != "exact":
                self.report.note(f"{self.mode}, for this run's {self.setting.steps} steps: {self.schedule.used}")
            if len(branches) < 2 and self.schedule.used.start is None and self.mode != "exact":
                self.report.note("one branch has no discrepancy, so the stage begins at warmup_cap")
        self.schedule.weight = self.setting.weight
        self.schedule.error = None  # nothing more is foreseen before it is measured for these conds
        self._given, self._units = given, call.units

    def _pipeline_obstacle(self, units: Sequence[Unit]) -> str | None:
        branches = {unit.branch for unit in units}
        devices = 1 + len(self.exchanges)
        if any(unit.local for unit in units):
            return "a cond cannot cross to another device"
        if any(unit.controls for unit in units):
            return "a ControlNet needs the whole input, which an inner part has not"
        if self.mode == "paper":
            if devices != 2 or branches != {0, 1} or len(units) != 2:
                return f"paper is for two devices and two branches of one cond, not {devices} and {len(units)} conds"
        elif devices < 2 or (devices < len(branches)) or (devices == len(branches) and branches != {0, 1}):
            return f"{devices} devices for {len(branches)} branches leave none for an inner part"
        return None

    # -- what to do in a step

    def _work(self, step: int) -> tuple[Work, int]:
        """What to do in `step`, and whose turn it is; decided at the step's first call."""
        if step not in self._works:
            work = self._choose(step)
            if work in (Work.ALTERNATING, Work.PAPER):
                self._turn += 1
            self._works[step] = (work, self._turn % 2)
        return self._works[step]

    def _choose(self, step: int) -> Work:
        schedule = self.schedule
        if self.mode == "predict":
            schedule.expect(step, self.predictor.expected(self.setting.time(schedule.sigmas[step])))
        if self.mode == "exact" or schedule.stage(step) is not Stage.PARALLELISM or not schedule.affords(step):
            return Work.EXACT
        place = step - schedule.tau1  # 1 is the stage's first step
        if self._foresees(step, place):
            return Work.PREDICTED
        if self.mode == "predict" or not self._can_pipeline():
            return Work.EXACT
        if self.mode == "pipeline" and not self._alternating:
            return Work.PIPELINE
        if schedule.used.tolerance and place % CHECK_EVERY == 0:
            return Work.EXACT
        if self.mode == "paper":
            return Work.PAPER
        return Work.ALTERNATING if self.alternator.ready else Work.EXACT

    def _foresees(self, step: int, place: int) -> bool:
        if not self.predictor.ready({branch for branch, *_ in self._given[0]}):
            return False
        stride = self.setting.plan.predict_stride
        if self.mode == "predict" and not stride and self.schedule.used.tolerance:
            row = range(step - MOST_FORESEEN, step)
            if all(self._works.get(before, (Work.EXACT, 0))[0] is Work.PREDICTED for before in row):
                return False
            return self.predictor.reach(self.setting.time(self.schedule.sigmas[step])) <= REACH
        return place % (stride or (2 if self.mode == "predict" else 1)) > 0

    def _can_pipeline(self) -> bool:
        return self._off is None and self._cut and len(self._holders) == len(self._given[0])

    @property
    def _alternating(self) -> bool:
        return len({branch for branch, *_ in self._given[0]}) == 2 == 1 + len(self.exchanges)

    @property
    def _reach(self) -> int:
        """How many steps after h was handed on its z is first used."""
        stride = self.setting.plan.predict_stride or 1
        return stride * max([2 if self._alternating else 1, *(group.delay for group in self.groups)])

    # -- exact steps

    def _exact(self, call: Call, step: int, record: StepRecord, weight) -> Predictions:
        wants_cut = self.mode in ("pipeline", "paper") and self._off is None
        if self.lead:
            try:
                self.lead.drain()  # before the workers are asked for something else
            except WorkerLost as error:
                self._lose(error)
                wants_cut = False
        if wants_cut and not self._cut:
            parts = self._measured_step(call, record)
        elif wants_cut:
            shares = self._group_shares(call)
            record.conds = [len(mine) for mine in shares]
            parts = self.exact(call, shares, record, self._taking(call), kind="take", time=call.time)
            self._remember_holders(shares)
            if self.lead and not self._alternating:
                error = self.lead.take_error()
                record.error = error if record.error is None else max(error or 0.0, record.error)
        else:
            shares = share(call.units, 1 + len(self.exchanges), self.paces)
            record.conds = [len(mine) for mine in shares]
            parts = self.exact(call, shares, record)
            self._learn_paces(record, shares)
        self._exact_calls += 1
        if wants_cut and not self._cut and self._exact_calls >= MEASURED_CALLS:
            self._choose_cuts(call)
        done = merge(parts, weight)
        eps = self._observe(call, done, record)
        made_up = self._made_up(call, step, eps)
        self.predictor.observe(call.time, eps)
        if made_up is eps:
            return done
        return {branch: to_denoised(value, call.x, call.sigma) for branch, value in made_up.items()}

    def _observe(self, call: Call, done: Predictions, record: StepRecord) -> Eps:
        """What an exact call shows: its eps, the discrepancy, and how far a cheaper step would have been off."""
        eps = {branch: to_eps(d, call.x, call.sigma) for branch, d in done.items()}
        if {0, 1} <= done.keys():
            record.rel_mae = rel_mae(done[0], done[1], call.x)
        if self.mode == "predict" or self.setting.plan.predict_stride > 1:
            record.error = self.predictor.error(call.time, eps, self.setting.cfg)
        elif self.mode != "exact" and self._alternating:
            record.error = self.alternator.error(call.time, eps, (self._turn + 1) % 2, self.setting.cfg)
        if eps.keys() == {0, 1}:
            self.alternator.observe(call.time, eps)
        return eps

    def _learn_paces(self, record: StepRecord, shares: Sequence[list[Unit]]) -> None:
        """After some exact calls: who is slower, where that is beyond noise. Decided once, and kept between runs."""
        busy = [mine for mine in shares if mine]
        if self._exact_calls == 0 or not len(busy) == len(shares) == len(record.compute_s):
            return  # the first call is slow for other reasons
        self._paces.append([s / sum(unit.cost for unit in mine) for s, mine in zip(record.compute_s, busy)])
        if len(self._paces) != PACED_CALLS:
            return
        paces = [min(of_device) for of_device in zip(*self._paces)]
        equal = max(paces) <= UNEQUAL * min(paces) or max(paces) - min(paces) < UNEQUAL_S
        name = (self.setting.name, self._given, tuple(_label(device) for device in [None, *self.exchanges]))
        self.paces = self.setting.paces.setdefault(name, None if equal else paces)

    def _measured_step(self, call: Call, record: StepRecord) -> Parts:
        """Exact, every block timed; a device that has no unit of its own computes one for the times alone."""
        shares = share(call.units, 1 + len(self.exchanges))
        record.conds = [len(mine) for mine in shares]
        self._timed_shares = shares

        def own(units: list[Unit]) -> Parts:
            parts = []
            for unit in units:
                prediction, self._own_times = measure(call.one, unit, lambda: settle(call.x.device), self._own_times)
                parts.append(([unit], prediction))
            return parts

        idle = [exchange for exchange, mine in zip(self.exchanges, shares[1:]) if not mine]
        for exchange in list(idle):
            try:
                exchange.submit(call.x, call.sigma, call.units[:1], kind="measure")
            except WorkerLost as error:
                idle.remove(exchange)
                self.drop(exchange, [], error)
        parts = self.exact(call, shares, record, own, kind="measure")
        for exchange in idle:
            try:
                self.collected(exchange, record)
            except WorkerLost as error:
                self.drop(exchange, [], error)
        return parts

    def _taking(self, call: Call) -> Callable[[list[Unit]], Parts]:
        """This process's part of an exact step, z taken on the way where it leads."""

        def own(units: list[Unit]) -> Parts:
            if self.lead is None:  # its group broke in this call
                return [([unit], call.one(unit, Pass())) for unit in units]
            return [([unit], self.lead.whole(unit, call.time, call.one)) for unit in units]

        return own

    def _group_shares(self, call: Call) -> list[list[Unit]]:
        """In an exact step each lead computes its branch, this process's own group sharing its conds."""
        if self._alternating:
            return share(call.units, 1 + len(self.exchanges), self.paces)
        shares: dict[Exchange | None, list[Unit]] = {}
        for group in self.groups:
            mine = [unit for unit in call.units if unit.branch in group.branches]
            members = [group.lead, *group.inner] if group.lead is None else [group.lead]
            shares |= dict(zip(members, share(mine, len(members))))
        return [shares.get(device, []) for device in [None, *self.exchanges]]

    def _remember_holders(self, shares: Sequence[list[Unit]]) -> None:
        led = {branch for group in self.groups if group.lead is None for branch in group.branches}
        for device, mine in zip([None, *self.exchanges], shares):
            for unit in mine:
                self._holders[unit.branch, unit.index] = device if unit.branch in led else None

    # -- cutting

    def _choose_cuts(self, call: Call) -> None:
        """Divide the devices and say where each group cuts, from the block times measured."""
        try:
            times = {None: self._own_times} | {e: e.measured(self.check) for e in self.exchanges}
        except WorkerLost as error:
            self._lose(error)
            return
        counts = {len(of_device["times"]) for of_device in times.values()}
        openings = self.setting.openings(max(counts), 1) if len(counts) == 1 and max(counts) else "it shows no blocks"
        if isinstance(openings, str):
            self._leave_out(f"the network cannot be cut: {openings}")
            return
        branches = sorted({unit.branch for unit in call.units})
        if self._alternating:
            groups = [Group(branches, None, list(self.exchanges))]
        else:
            seconds = dict.fromkeys(branches, 0.0)
            for device, mine in zip(times, self._timed_shares):
                for unit in mine:
                    seconds[unit.branch] += sum(times[device]["times"]) + times[device]["rest"]
            groups = form_groups(self.exchanges, seconds)
        for group in groups:
            members = [group.lead, *group.inner]
            if not group.inner:
                cut = Cut(openings[0])  # nobody takes the inner part, wherever it lies
                try:
                    self._set_up(group, cut)
                except WorkerLost as error:
                    self._lose(error)
                    return
                continue
            name = (self.setting.name, self._given, max(counts), tuple(_label(device) for device in members))
            openings = self.setting.openings(max(counts), len(group.inner))
            balanced = balance([times[d]["times"] for d in members], times[group.lead]["rest"], openings)
            if balanced is None:
                self._leave_out(f"the network's {max(counts)} blocks are too few for {len(members)} devices")
                return
            cut, seconds = balanced
            if name in self.setting.cuts:
                cut = self.setting.cuts[name]
            self.setting.cuts[name] = cut
            self.report.cuts.append({
                "devices": [_label(device) for device in members],
                "branches": group.branches,
                "blocks": max(counts),
                "bounds": list(cut.bounds),
                "seconds": seconds,  # expected for the outer part and each inner one
                "times": [times[device]["times"] for device in members],
                "rest": times[group.lead]["rest"],
            })  # fmt: skip
            try:
                self._set_up(group, cut)
            except WorkerLost as error:
                self._lose(error)
                return
        self.groups, self._cut = groups, True

    def _set_up(self, group: Group, cut: Cut) -> None:
        for here, there in zip(group.inner, group.inner[1:]):
            here.link(there, self.check)
        if group.lead is None:
            paper = self.mode == "paper"
            self._chain = Chain(group.inner, cut, self.check)
            self.lead = Lead(
                cut, self._chain, 2 if paper else group.delay, extrapolate=self.setting.extrapolate and not paper
            )
            for exchange in group.inner:
                exchange.set_cut(cut)
        else:
            for exchange in {group.inner[0], group.inner[-1]} if group.inner else ():
                group.lead.link(exchange, self.check)
            route = list(zip(group.inner, cut.segments))
            group.lead.set_cut(cut, group.delay, route, self.setting.extrapolate)

    # -- steps of the stage

    def _sandwich(self, work: Work, turn: int, step: int, call: Call, record: StepRecord) -> Parts:
        """Outer parts on the leads, inner parts on the others. Raises WorkerLost, the group's results then lost."""
        hand_on = step + self._reach <= self.schedule.tau2
        mine, inner_unit = [], None
        given: list[tuple[Group, Exchange]] = []
        for group in self.groups:
            units = [unit for unit in call.units if unit.branch in group.branches]
            if work is Work.ALTERNATING:
                units = [unit for unit in units if unit.branch == turn]
            if work is Work.PAPER:
                inner_unit = next(unit for unit in units if unit.branch == 1)
                units = [unit for unit in units if unit.branch == 0]
            if group.lead is None:
                mine = units
                self._fetch()
            else:
                kind = "outer" if group.inner else "take"
                group.lead.submit(call.x, call.sigma, units, kind=kind, time=call.time, hand_on=hand_on)
                given.append((group, group.lead))
        record.conds = [len(mine), *(0 for _ in self.exchanges)]

        def own() -> Parts:
            if self._chain is None or not self._chain.inner:
                return self._taking(call)(mine)
            self._chain.at(call.x, call.sigma)
            return [([unit], self.lead.outer(unit, call.time, call.one, hand_on, inner_unit)) for unit in mine]

        parts = self.timed(call, record, own)
        if self._chain:
            record.bytes_sent += self._chain.take_sent()
            for answer in self._chain.take_answers():
                record.compute_s.append(answer.compute_s)
                record.lanes.append(self.lanes[self._chain.inner[-1]])
                record.compute_s[0] -= answer.wait_s
                record.wait_s += answer.wait_s
                record.bytes_received += answer.bytes_received
        if self._chain and self._chain.inner:
            record.helpers += len(self._chain.inner)
            if not self._alternating:
                record.error = self.lead.take_error()
        for group, exchange in given:
            parts += self.collected(exchange, record, lambda group=group: self._look_after(group))
        return parts

    def _look_after(self, group: Group) -> None:
        """While a lead worker computes: a lost inner device is closed, so that the lead hears of it at once."""
        self.check()
        for exchange in group.inner:
            with contextlib.suppress(WorkerLost):
                exchange.look()
            if exchange.broken and exchange.process.alive():
                exchange.process.stop(0.0)

    def _fetch(self) -> None:
        """Bring z's history here for units that a worker computed in the exact steps before."""
        for key, holder in self._holders.items():
            if holder is not None:
                unit = Unit(*key)
                for time, z in holder.history(unit, FETCHED, self.check):
                    self.lead.keep(unit, time, z)
                self._holders[key] = None

    # -- losses

    def remove(self, exchange: Exchange) -> None:
        """As Engine.remove; and no group goes on without one of its devices."""
        super().remove(exchange)
        self.paces = None  # it was for the devices there were
        self._paces = []
        if self.groups:
            self._break_up(f"{exchange.place.label} is out")
        elif self._off is None and self.mode in ("pipeline", "paper"):
            self._off = self._pipeline_obstacle(self._units)  # fewer devices may still do for a group

    def _break_up(self, reason: str) -> None:
        """No more pipelines in this run."""
        self._off = reason
        self.lead = self._chain = None
        self.groups = []

    def _leave_out(self, reason: str) -> None:
        self._off = reason
        self.report.note(f"{reason}; the parallelism stage was left out")

    def _lose(self, error: WorkerLost) -> None:
        """A group broke: what remains of the workers computes whole steps."""
        self._break_up(str(error))
        for exchange in list(self.exchanges):
            if exchange.broken:
                self.drop(exchange, [], error)
        if isinstance(error, GroupLost):
            self.report.note(f"{error}; the rest was computed in whole steps")
        self._drain()

    def _drain(self) -> None:
        """Receive what is still under way from workers that remain, so that nothing comes in between later."""
        for exchange in list(self.exchanges):
            try:
                exchange.drain(self.check)
            except WorkerLost as error:
                if exchange.broken:
                    self.drop(exchange, [], error)


def _far(last: torch.Tensor, x: torch.Tensor) -> bool:
    """Whether two inputs at one sigma are of different latents; samplers change theirs only in part (heun)."""
    return x is not last and bool((x - last).norm() > ANOTHER * last.norm())


def _label(device: Exchange | None) -> str:
    return "here" if device is None else device.place.label
