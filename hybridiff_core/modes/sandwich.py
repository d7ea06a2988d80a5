"""A network cut over the run's devices: where each group cuts it, and its exact and stage steps.

The lead of a group runs the outer part on inner results of earlier steps, while the group's other
devices compute the inner part for later ones.
"""

from __future__ import annotations

from collections.abc import Callable

from .. import lines
from ..call import Call, Parts, Piece
from ..network.lead import Lead
from ..network.split import Cut, Pass, balance
from ..report import StepRecord
from ..share import Unit, share
from ..team import label
from ..workers.chain import Chain
from ..workers.exchange import Exchange
from ..workers.watch import WorkerLost
from .block_times import BlockTimes
from .groups import Group, form_groups
from .mode import RunState

FETCHED = 1  # inner results that a lead fetches from the worker that computed its branch before


class Sandwich:
    """`takes_turns` makes one group of all devices, whose branches take turns; else each branch has its own.

    `delay` is how many steps old inner results are, as many as there are inner devices if not given;
    `extrapolate=False` takes them as they come.
    """

    def __init__(
        self,
        state: RunState,
        times: BlockTimes,
        takes_turns: bool = False,
        delay: int | None = None,
        extrapolate: bool = True,
    ):
        self.state, self.team, self.times = state, state.team, times
        self.takes_turns, self.delay, self.extrapolate = takes_turns, delay, extrapolate
        self.groups: list[Group] = []
        self.lead: Lead | None = None
        self.chain: Chain | None = None
        self.cut = False
        self._holders: dict[tuple[int, int], Exchange | None] = {}

    @property
    def ready(self) -> bool:
        """Whether the network is cut and z is known for every unit."""
        return self.state.uncut is None and self.cut and len(self._holders) == len(self.state.units)

    @property
    def longest_delay(self) -> int:
        """How many of a branch's steps after h was handed on its z is first used."""
        return self.delay or max((group.delay for group in self.groups), default=0)

    # -- exact steps

    def drain(self) -> None:
        """Receive what is still out, before the workers are asked for something else."""
        if self.lead:
            try:
                self.lead.drain()
            except WorkerLost as error:
                self.lose(error)

    def exact(self, call: Call, record: StepRecord) -> Parts:
        """In an exact step each lead computes its branch, z taken on the way; before the cut, blocks are timed."""
        if not self.cut:
            return self.times.exact(call, record)
        shares = self._shares(call, record)
        parts = self.team.exact(call, shares, record, self._taking(call), kind="take", time=call.time)
        self._remember_holders(shares)
        if self.lead and not self.takes_turns:
            error = self.lead.take_error()
            record.error = error if record.error is None else max(error or 0.0, record.error)
        return parts

    def _taking(self, call: Call) -> Callable[[list[Unit]], Parts]:
        """This process's part of an exact step, z taken on the way where it leads."""

        def own(units: list[Unit]) -> Parts:
            if self.lead is None:  # its group broke in this call
                return [Piece([unit], call.one(unit, Pass())) for unit in units]
            return [Piece([unit], self.lead.whole(unit, call.time, call.one)) for unit in units]

        return own

    def _shares(self, call: Call, record: StepRecord) -> list[list[Unit]]:
        """The units of each device: each lead has its branch, this process's own group shares its conds."""
        if self.takes_turns:
            return self.team.deal(call.units, record)
        shares: dict[Exchange | None, list[Unit]] = {}
        for group in self.groups:
            mine = [unit for unit in call.units if unit.branch in group.branches]
            members = group.members if group.lead is None else [group.lead]
            shares |= dict(zip(members, share(mine, len(members))))
        dealt = [shares.get(device, []) for device in self.team.devices]
        record.conds = [len(mine) for mine in dealt]
        return dealt

    def _remember_holders(self, shares: list[list[Unit]]) -> None:
        led = {branch for group in self.groups if group.lead is None for branch in group.branches}
        for device, mine in zip(self.team.devices, shares):
            for unit in mine:
                self._holders[unit.branch, unit.index] = device if unit.branch in led else None

    # -- cutting

    def choose_cuts(self, call: Call) -> None:
        """Divide the devices and say where each group cuts, from the block times measured."""
        try:
            times = self.times.of_devices()
        except WorkerLost as error:
            self.lose(error)
            return
        counts = {len(of_device["times"]) for of_device in times.values()}
        blocks = max(counts) if len(counts) == 1 else 0
        openings = self.state.setting.openings(blocks, 1) if blocks else lines.NO_BLOCKS()
        if isinstance(openings, str):
            self.state.leave_out(lines.CANNOT_BE_CUT(reason=openings))
            return
        groups = self._divided(call, times)
        for group in groups:
            # nobody takes the inner part of a group of one, wherever it lies
            cut = self._cut_of(group, times, blocks) if group.inner else Cut(openings[0])
            if cut is None:
                self.state.leave_out(lines.TOO_FEW_BLOCKS(blocks=blocks, devices=len(group.members)))
                return
            try:
                self._set_up(group, cut)
            except WorkerLost as error:
                self.lose(error)
                return
        self.groups, self.cut = groups, True

    def _divided(self, call: Call, times: dict) -> list[Group]:
        branches = sorted(call.branches)
        if self.takes_turns:
            return [Group(branches, None, list(self.team.exchanges))]
        seconds = dict.fromkeys(branches, 0.0)
        for of_device, mine in zip(times.values(), self.times.shares):
            for unit in mine:
                seconds[unit.branch] += sum(of_device["times"]) + of_device["rest"]
        return form_groups(self.team.exchanges, seconds)

    def _cut_of(self, group: Group, times: dict, blocks: int) -> Cut | None:
        """Where the group cuts: as this model was cut before, or by the times. None where it has no room."""
        of_members = [times[device]["times"] for device in group.members]
        openings = self.state.setting.openings(blocks, len(group.inner))
        balanced = balance(of_members, times[group.lead]["rest"], openings)
        if balanced is None:
            return None
        labels = tuple(map(label, group.members))
        cut = self.state.setting.cuts.setdefault((self.state.name, blocks, labels), balanced[0])
        self.team.report.cuts.append({
            "devices": list(labels),
            "branches": group.branches,
            "blocks": blocks,
            "bounds": list(cut.bounds),
            "seconds": balanced[1],  # expected for the outer part and each inner one
            "times": of_members,
            "rest": times[group.lead]["rest"],
        })  # fmt: skip
        return cut

    def _set_up(self, group: Group, cut: Cut) -> None:
        for here, there in zip(group.inner, group.inner[1:]):
            here.link(there, self.team.check)
        delay = group.delay if self.delay is None else self.delay
        extrapolate = self.extrapolate and self.state.setting.extrapolate
        if group.lead is None:
            self.chain = Chain(group.inner, cut, self.team.check)
            self.lead = Lead(cut, self.chain, delay, extrapolate)
            for exchange in group.inner:
                exchange.set_cut(cut)
        else:
            for exchange in {group.inner[0], group.inner[-1]} if group.inner else ():
                group.lead.link(exchange, self.team.check)
            group.lead.set_cut(cut, delay, list(zip(group.inner, cut.segments)), extrapolate)

    # -- steps of the stage

    def step(
        self, call: Call, record: StepRecord, units: list[Unit], hand_on: bool, inner: Unit | None = None
    ) -> Parts:
        """Outer parts of `units` on the leads, inner parts on the others.

        `hand_on=False` where no later step wants z; `inner` is another unit whose conditioning the
        inner part runs with. Raises WorkerLost, the group's results then lost.
        """
        mine: list[Unit] = []
        led: list[Group] = []
        for group in self.groups:
            of_group = [unit for unit in units if unit.branch in group.branches]
            if group.lead is None:
                mine = of_group
                self._fetch()
            else:
                kind = "outer" if group.inner else "take"
                group.lead.submit(call.x, call.sigma, of_group, kind=kind, time=call.time, hand_on=hand_on)
                led.append(group)
        record.conds = [len(mine), *(0 for _ in self.team.exchanges)]

        def own() -> Parts:
            if self.chain is None or not self.chain.inner:
                return self._taking(call)(mine)
            self.chain.at(call.x, call.sigma)
            return [Piece([unit], self.lead.outer(unit, call.time, call.one, hand_on, inner)) for unit in mine]

        parts = self.team.timed(call, record, own)
        if self.chain:
            self._note_chain(record)
        for group in led:
            parts += self.team.collected(group.lead, record, lambda group=group: self.team.look_after(group.inner))
        return parts

    def _note_chain(self, record: StepRecord) -> None:
        """Bytes and times of this process's own inner devices."""
        record.bytes_sent += self.chain.take_sent()
        for answer in self.chain.take_answers():
            record.compute_s.append(answer.compute_s)
            record.lanes.append(self.team.lanes[self.chain.inner[-1]])
            record.compute_s[0] -= answer.wait_s
            record.wait_s += answer.wait_s
            record.bytes_received += answer.bytes_received
        if self.chain.inner:
            record.helpers += len(self.chain.inner)
            if not self.takes_turns:
                record.error = self.lead.take_error()

    def _fetch(self) -> None:
        """Bring z's history here for units that a worker computed in the exact steps before."""
        for key, holder in self._holders.items():
            if holder is not None:
                unit = Unit(*key)
                for time, z in holder.history(unit, FETCHED, self.team.check):
                    self.lead.keep(unit, time, z)
                self._holders[key] = None

    # -- losses

    def break_up(self, reason: str) -> None:
        """No network is cut any more in this run."""
        self.state.uncut = reason
        self.lead = self.chain = None
        self.groups = []

    def lose(self, error: WorkerLost) -> None:
        self.break_up(str(error))
        self.team.lose(error)
