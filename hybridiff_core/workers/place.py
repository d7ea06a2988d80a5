"""Where a worker runs."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Place:
    """Where a worker runs: `device` is its torch device as the worker itself sees it.

    `key` tells workers apart (two may share a device); `label` is what users read; `uuid` is its GPU's, where known,
    and `slot` its PCI address, where the memory there is all that the GPU can take. `machine` is the name of another
    machine, "" for this one, `there` the device's name in that machine's own list, and `node` what tells that machine's
    joining from an earlier one.
    """

    key: str
    label: str
    device: str
    visibility: dict[str, str] = field(default_factory=dict, hash=False)
    uuid: str = ""
    slot: str = ""
    machine: str = ""
    there: str = ""
    node: str = ""
