"""Who computes what in an exact step: conds, batch items and tokens are dealt to devices.

All ways are exact, and the fastest is taken (ways.py). Devices have places: 0 is this process. `paces` are their
seconds for a whole unit, in any scale; equal if not given.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from .network.tokens import SHARES, Form


@dataclass(frozen=True)
class Unit:
    """One cond of one branch: the smallest piece of work that a device can take.

    `branch` is the cond list's place among the lists the guider passed, `index` the cond's place
    in it, `cost` its size in whole-latent forwards (an area of a quarter costs 0.25), `local`
    whether it must stay on the first device, `controls` how many networks beside the model add to
    what its blocks compute (ControlNets): they need the whole input, so an inner part cannot have them.
    """

    branch: int
    index: int
    cost: float = 1.0
    local: bool = False
    controls: int = 0


def share(units: Sequence[Unit], devices: int, paces: Sequence[float] | None = None) -> list[list[Unit]]:
    """Deal `units` to `devices` so that the busiest has as little as possible.

    Longest first onto the device that is done soonest with it (Graham's LPT rule); device 0 is this
    process. `paces` are the devices' seconds for a unit, in any scale; equal if not given.
    Whole branches are kept together unless taking them apart shortens the busiest device's work
    by more than a hundredth: a branch computed in one place needs no merging.
    """
    if devices < 1:
        raise ValueError(f"devices is {devices}; at least one is needed")
    paces = paces or [1.0] * devices
    if len(paces) != devices:
        raise ValueError(f"{len(paces)} paces for {devices} devices; give one for each")
    branches: dict[tuple[int, bool], list[Unit]] = {}
    for unit in units:
        branches.setdefault((unit.branch, unit.local), []).append(unit)
    whole = _deal(list(branches.values()), paces)
    apart = _deal([[unit] for unit in units], paces)
    dealt = apart if busiest(apart, paces) < 0.99 * busiest(whole, paces) else whole
    return [sorted(part, key=lambda unit: (unit.branch, unit.index)) for part in dealt]


def _deal(parcels: list[list[Unit]], paces: Sequence[float]) -> list[list[Unit]]:
    dealt: list[list[Unit]] = [[] for _ in paces]
    load = [0.0] * len(paces)
    for parcel in sorted(parcels, key=lambda parcel: (not parcel[0].local, -sum(unit.cost for unit in parcel))):
        cost = sum(unit.cost for unit in parcel)
        done = [before + cost * pace for before, pace in zip(load, paces)]
        device = 0 if parcel[0].local else min(range(len(paces)), key=done.__getitem__)
        dealt[device] += parcel
        load[device] = done[device]
    return dealt


def busiest(dealt: Sequence[list[Unit]], paces: Sequence[float]) -> float:
    """The seconds of the device that is done last."""
    return max(sum(unit.cost for unit in part) * pace for part, pace in zip(dealt, paces))


# -- the three ways, and what they make of a call


class Way(Enum):
    """How an exact call is shared."""

    CONDS = "conds"  # whole units
    ROWS = "rows"  # a unit's batch items
    TOKENS = "tokens"  # a unit's forward, by the image's tokens
    ROWS_AND_TOKENS = "rows and tokens"  # as many batch items for each device, the rest by tokens


@dataclass(frozen=True)
class Parcel:
    """What one device is given, or what several divide by tokens, each by its part of `bounds` (network/tokens.py).

    `rows` are batch items [first, end), None for all.
    """

    units: tuple[Unit, ...]
    devices: tuple[int, ...]
    rows: tuple[int, int] | None = None
    bounds: tuple[int, ...] = ()


@dataclass(frozen=True)
class Deal:
    """A call of `batch` items, divided. `form` is the network's where some of it goes by tokens."""

    way: Way
    parcels: tuple[Parcel, ...]
    batch: int = 1
    form: Form | None = None

    def loads(self, devices: int) -> list[float]:
        """What each device computes, in forwards of a whole unit."""
        found = [0.0] * devices
        for parcel in self.parcels:
            cost = self._cost(parcel)
            if not parcel.bounds:
                found[parcel.devices[0]] += cost
                continue
            n, text = self.form.tokens, self.form.text
            for device, first, end in zip(parcel.devices, parcel.bounds, parcel.bounds[1:]):
                found[device] += cost * (n * (end - first) / SHARES + text) / (n + text)
        return found

    def seconds(self, paces: Sequence[float], link: Link | None = None) -> float:
        """When the last device is done; `link` tells what it takes to exchange tokens."""
        found = [load * pace for load, pace in zip(self.loads(len(paces)), paces)]
        for parcel in self.parcels if link else ():
            if parcel.bounds:
                items = parcel.rows[1] - parcel.rows[0] if parcel.rows else self.batch
                each = link.seconds(self.form, items, parcel.bounds) * len(parcel.units)
                for device in parcel.devices:
                    found[device] += each
        return max(found)

    def on(self, devices: Sequence[int]) -> Deal:
        """The same among `devices`, which were counted from 0 on."""
        moved = (replace(one, devices=tuple(devices[device] for device in one.devices)) for one in self.parcels)
        return replace(self, parcels=tuple(moved))

    @property
    def places(self) -> list[int]:
        """The devices that have a part."""
        return sorted({device for parcel in self.parcels for device in parcel.devices})

    def units_of(self, device: int) -> int:
        """How many units a device has a part of."""
        return len({unit for parcel in self.parcels if device in parcel.devices for unit in parcel.units})

    def _cost(self, parcel: Parcel) -> float:
        items = parcel.rows[1] - parcel.rows[0] if parcel.rows else self.batch
        return sum(unit.cost for unit in parcel.units) * items / self.batch


@dataclass(frozen=True)
class Link:
    """What keys and values take between two devices: for each exchange, and by their bytes."""

    exchange_s: float = 3e-4
    bytes_a_second: float = 6e9  # PCIe 3 x16 through host memory, or half of PCIe 4

    def seconds(self, form: Form, items: int, bounds: Sequence[int]) -> float:
        """For a forward of `items` batch items: all that one device receives, not counting what is hidden."""
        least = min(end - first for first, end in itertools.pairwise(bounds)) / SHARES
        came = form.bytes_a_token * form.tokens * items * (1.0 - least)
        return len(form.attends) * (len(bounds) - 2) * self.exchange_s + came / self.bytes_a_second


def by_conds(units: Sequence[Unit], batch: int, paces: Sequence[float]) -> Deal:
    dealt = share(units, len(paces), paces)
    parcels = tuple(Parcel(tuple(mine), (device,)) for device, mine in enumerate(dealt) if mine)
    return Deal(Way.CONDS, parcels, batch)


def by_rows(units: Sequence[Unit], batch: int, paces: Sequence[float], left_over: int = 0) -> Deal:
    """Batch items onto the devices that are done soonest with them; what has to stay is on this process.

    The last `left_over` items of all are left out.
    """
    stays = [unit for unit in units if unit.local]
    items = [(unit, row) for unit in units if not unit.local for row in range(batch)]
    items = items[: len(items) - left_over]
    load = [sum(unit.cost for unit in stays) * batch * paces[0], *[0.0] * (len(paces) - 1)]
    counts = [0] * len(paces)
    for unit, _ in items:
        done = [before + unit.cost * pace for before, pace in zip(load, paces)]
        device = min(range(len(paces)), key=done.__getitem__)
        load[device], counts[device] = done[device], counts[device] + 1
    parcels = [Parcel(tuple(stays), (0,))] if stays else []
    given = iter(items)
    for device, count in enumerate(counts):
        parcels += _joined(list(itertools.islice(given, count)), batch, device)
    return Deal(Way.ROWS, tuple(parcels), batch)


def _joined(items: list[tuple[Unit, int]], batch: int, device: int) -> list[Parcel]:
    """Neighbouring items in one piece; units with the same items together, so that they are one forward."""
    spans: dict[tuple[int, int], list[Unit]] = {}
    for unit, mine in itertools.groupby(items, key=lambda item: item[0]):
        rows = [row for _, row in mine]
        spans.setdefault((rows[0], rows[-1] + 1), []).append(unit)
    return [Parcel(tuple(units), (device,), None if span == (0, batch) else span) for span, units in spans.items()]


def by_tokens(
    units: Sequence[Unit], batch: int, paces: Sequence[float], form: Form, groups: int | None = None
) -> Deal | None:
    """Groups of devices, each with some of the units; None where no unit would be divided.

    Of as many groups as there are units, or fewer, at most `groups`, those that are done soonest. No unit may have to
    stay.
    """
    most = min(groups or len(units), len(units), len(paces) - 1)
    deals = [_in_groups(units, batch, paces, form, count) for count in range(1, most + 1)]
    # whole units and divided ones in one call would wait for each other
    deals = [deal for deal in deals if all(parcel.bounds for parcel in deal.parcels)]
    return min(deals, key=lambda deal: deal.seconds(paces, Link()), default=None)


def _in_groups(units: Sequence[Unit], batch: int, paces: Sequence[float], form: Form, count: int) -> Deal:
    groups: list[list[int]] = [[] for _ in range(count)]
    for device in sorted(range(len(paces)), key=lambda device: (device != 0, paces[device])):
        slowest = min(groups, key=lambda group: sum(1.0 / paces[member] for member in group))
        slowest.append(device)
    of_group = share(units, count, [1.0 / sum(1.0 / paces[member] for member in group) for group in groups])
    parcels = []
    for group, mine in zip(groups, of_group):
        members, bounds = _divided(sorted(group), paces, form)
        if mine:
            parcels.append(Parcel(tuple(mine), members, None, bounds if len(members) > 1 else ()))
    return Deal(Way.TOKENS, tuple(parcels), batch, form)


def _divided(group: list[int], paces: Sequence[float], form: Form) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The devices of a group that get tokens, and the bounds of their parts: all are done at one time.

    A device computes its part of the image's tokens and all of the text's.
    """
    members = list(group)
    while True:
        speed = sum(1.0 / paces[member] for member in members)
        whole = (form.tokens + len(members) * form.text) / speed
        parts = [whole / paces[member] - form.text for member in members]
        slowest = max(members, key=lambda member: paces[member])
        if min(parts) >= 1.0 or len(members) == 1:
            break
        members.remove(slowest)
    ends = itertools.accumulate(parts)
    return tuple(members), (0, *(round(SHARES * end / form.tokens) for end in list(ends)[:-1]), SHARES)


def by_rows_and_tokens(units: Sequence[Unit], batch: int, paces: Sequence[float], form: Form) -> Deal | None:
    """As many batch items for each device, those that are left over by tokens; None where none is."""
    left_over = len(units) * batch % len(paces)
    if not left_over or len(units) * batch < len(paces):
        return None
    rows = by_rows(units, batch, paces, left_over)
    unit, first = units[-1], batch - left_over  # fewer than devices, but perhaps more than one unit's
    if first < 0:
        return None
    members, bounds = _divided(list(range(len(paces))), paces, form)
    if len(members) < 2:
        return None
    rest = Parcel((unit,), members, (first, batch), bounds)
    return Deal(Way.ROWS_AND_TOKENS, (*rows.parcels, rest), batch, form)
