"""Branch groups: which devices share a branch's network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..workers.exchange import Exchange


@dataclass
class Group:
    """Devices that share a branch, or branches that take turns: a lead (None: this process) and inner devices."""

    branches: list[int]
    lead: Exchange | None
    inner: list[Exchange]

    @property
    def delay(self) -> int:
        return len(self.inner)

    @property
    def members(self) -> list[Exchange | None]:
        return [self.lead, *self.inner]


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
