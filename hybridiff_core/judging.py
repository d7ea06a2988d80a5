"""What a call's times say of the devices: who is slower, who is left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from . import lines
from .paces import UNEQUAL
from .report import StepRecord
from .share import Deal
from .workers.exchange import Exchange

if TYPE_CHECKING:
    from .team import Team


class Judging:
    """Of a team's devices, by its exact calls."""

    def __init__(self, team: Team):
        self.team = team

    def learn(
        self, record: StepRecord, deal: Deal, wall_s: float, again: Callable[[Sequence[float] | None], Deal]
    ) -> None:
        """An exact call's times, by `deal`: who is slower. `again` deals the same call by other paces."""
        team = self.team
        if team.pacing is None:  # or a device was lost in this call
            return
        loads = deal.loads(len(team.devices))
        if not any(loads[1:]):
            team.known.took_alone(team.pacing.name, wall_s)
        if len(team.devices) == 1:
            return
        took = dict(zip(record.lanes, record.compute_s))
        lanes = [0, *(team.lanes[exchange] for exchange in team.exchanges)]
        busy = [lane for lane, load in zip(lanes, loads) if load]
        if team.compared or not took.keys() >= set(busy):
            return
        team.pacing.take(
            loads, [took.get(lane, 0.0) for lane in lanes], wall_s, lambda paces: again(paces).loads(len(loads))
        )

    def judge(self, deal: Deal) -> None:
        """Whether sharing is worth it: a device with which it takes longer than without is left out."""
        team = self.team
        if team.pacing is None or not any(deal.loads(len(team.devices))[1:]):
            return
        if team.pacing.loses:
            self._leave_out_slowest(team.pacing.wall_s, team.pacing.alone_s)
        elif team.pacing.settled and team.pacing.alone_s:
            for exchange, load in zip(team.exchanges, deal.loads(len(team.devices))[1:]):
                if load:
                    team.known.helped(team.model, label(exchange))

    def say_slow(self) -> None:
        """Say which devices are slower, and that prompts are dealt by that."""
        team = self.team
        if team.pacing.said:
            return
        team.pacing.said = True
        for device, pace in zip(team.devices, team.paces):
            times = pace / min(team.paces)
            if times >= UNEQUAL:
                name = team.report.devices[0] if device is None else label(device)
                team.report.note(lines.DEVICE_SLOWER(device=name, times=times))

    def _leave_out_slowest(self, shared_s: float, alone_s: float) -> None:
        team = self.team
        name, known = team.pacing.name, team.known.seconds  # a device that had no part has no time
        slowest = max(team.exchanges, key=lambda exchange: known.get((name, label(exchange)), 0.0))
        team.known.leave_out(team.model, slowest.place.label, shared_s / alone_s)
        team.remove(slowest)
        times = {"shared": shared_s * 1e3, "alone": alone_s * 1e3}
        team.report.note(lines.SHARING_LOST_TIME(device=slowest.place.label, **times))

    def leave_out_slow(self, exchange: Exchange, times: float) -> None:
        """A worker took `times` as long as this process for the same: it would only be waited for."""
        team = self.team
        if team.known is not None:
            team.known.leave_out(team.model, exchange.place.label, times)
        line = lines.LINK_TOO_SLOW if exchange.place.machine else lines.TOO_SLOW
        team.report.note(line(device=exchange.place.label, times=times))


def label(device: Exchange | None) -> str:
    return "here" if device is None else device.place.label
