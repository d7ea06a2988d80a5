"""A call's forwards that devices divide by tokens: who forms a group, and what happens when one breaks off."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from . import lines
from .call import Call, Parts
from .network.tokens import Form
from .report import StepRecord
from .share import Parcel
from .team import Team
from .token_group import TokenGroup
from .workers.exchange import Exchange
from .workers.loop import are_finite
from .workers.watch import WorkerLost


class Dividing:
    """A run's groups. `broke_off` is told why a forward was not finished where no worker was lost by it."""

    def __init__(self, team: Team, broke_off: Callable[[WorkerLost], None]):
        self.team, self.broke_off = team, broke_off
        self._groups: dict[tuple[Exchange | None, ...], TokenGroup] = {}

    def compute(
        self,
        parcels: Sequence[Parcel],
        form: Form,
        devices: Sequence[Exchange | None],
        call: Call,
        record: StepRecord,
    ) -> Parts:
        """The parcels' forwards, by those of `devices` that they name; those of a group that broke off, here."""
        begun: list[tuple[TokenGroup, Parcel]] = []
        done: list[tuple[TokenGroup, Parcel, Parts]] = []
        fallen: list[Parcel] = []
        doubted: list[Exchange] = []
        for parcel in parcels:
            members = [devices[place] for place in parcel.devices]
            if any(member not in self.team.devices for member in members):  # lost in this call already
                fallen.append(parcel)
                continue
            try:
                group = self._group(members)
                group.submit(call, parcel.units, form, parcel.bounds, _halves(members), call.rows(parcel.rows))
                begun.append((group, parcel))
            except WorkerLost as error:
                fallen.append(parcel)
                self._lose(error)
        started = time.perf_counter()
        for group, parcel in begun:
            try:
                done.append((group, parcel, group.own(call)))
            except WorkerLost as error:
                fallen.append(parcel)
                self._lose(error)
        own_s, waited_s = time.perf_counter() - started, sum(group.waited_s for group, _, _ in done)
        if any(None in group.devices for group, _ in begun):
            record.took(0, own_s - waited_s)
        parts: Parts = []
        for group, parcel, of_group in done:
            try:
                for exchange, answer in group.collect():
                    self.team.take_down(exchange, answer, record)
                    of_group = of_group + answer.parts
                if not are_finite([piece.prediction for piece in of_group]):
                    fallen.append(parcel)
                    doubted += group.workers
                    continue
                parts += of_group
                record.bytes_sent += group.moved[0]
                record.bytes_received += group.moved[1]
            except WorkerLost as error:
                fallen.append(parcel)
                self._lose(error)
        record.wait_s += time.perf_counter() - started - own_s + waited_s
        for parcel in fallen:
            whole = self.team.plain(call, parcel.units, parcel.rows)
            if not are_finite([piece.prediction for piece in whole]):
                doubted = []  # then it is the network's own
            parts += whole
        for exchange in doubted:  # not numbers spread to all who attend to them: whose they were does not show
            self.team.compared = True
            self.team.remove(exchange)
            self.team.report.note(lines.TOKENS_NOT_NUMBERS(device=exchange.place.label))
        return parts

    def _group(self, members: list[Exchange | None]) -> TokenGroup:
        key = tuple(members)
        if key not in self._groups:
            for other in [found for found in self._groups if set(found) & set(key)]:
                self._groups.pop(other).abandon()
            own = next(exchange.own for exchange in members if exchange)
            self._groups[key] = TokenGroup(members, own, self.team.check)
        return self._groups[key]

    def _lose(self, error: WorkerLost) -> None:
        """A forward broke off: a worker at fault is out; where none is, the caller hears of it."""
        self.team.compared = True  # this call's times say nothing
        broken = [exchange for exchange in self.team.exchanges if exchange.broken]
        for exchange in broken:
            self.team.drop(exchange, error)
        if not broken:
            self.broke_off(error)

    def close(self) -> None:
        """The run is over, or interrupted."""
        for group in self._groups.values():
            group.abandon()
        self._groups.clear()


def _halves(members: Sequence[Exchange | None]) -> int:
    """Into how many parts the heads go: a GPU copies one part while it computes another."""
    workers = [exchange for exchange in members if exchange]
    all_gpus = all(exchange.place.device.startswith("cuda") for exchange in workers)
    return 2 if all_gpus and workers[0].own.type == "cuda" else 1
