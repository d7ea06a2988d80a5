"""Who computes what in an exact step: conds are dealt to devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


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
