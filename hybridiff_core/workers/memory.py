"""Whether a model fits where a worker is to hold it, asked before the worker starts or is given the model.

What cannot be told is not guessed: nothing is said of a GPU that neither NVML nor the kernel tells of (usage.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from .. import lines
from . import usage
from .devices import Place
from .watch import WorkerLost

GROUPS = Path("/sys/fs/cgroup")
# the files of a control group's limit and use, and what of its memory.stat can be taken from it at any time
GROUP_FILES = (
    ("memory.max", "memory.current", ("inactive_file", "active_file")),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
)
PROCESS = 1 << 29  # RAM of a process that has imported torch, at the least
CONTEXT = 1 << 29  # device memory without which nothing can be computed there


@dataclass(frozen=True)
class Need:
    """What a model takes in a worker, in bytes. `key` tells the model from others.

    `mapped`: on a GPU its weights stay in their file until they are copied to the device, and take no RAM.
    `whole`: it cannot be loaded in part.
    """

    key: object
    weights: int
    forward: int = 0
    mapped: bool = False
    whole: bool = False

    def ram(self, place: Place) -> int:
        """Bytes of this machine's RAM in a worker at `place`."""
        if place.machine:
            return 0
        if place.device == "cpu":
            return self.weights + self.forward
        return 0 if self.mapped else self.weights


def require_room(place: Place, need: Need, held: Iterable[Need] | None, promised: int = 0) -> str | None:
    """A line where the device's free memory takes the model only in part, else None. Raises WorkerLost where none does.

    `held` are the models in the worker, which it can let go of; None where there is no worker yet.
    `promised` is the RAM that other workers are about to take. Another machine is not asked.
    """
    if place.machine:
        return None
    in_ram = need.ram(place) + (PROCESS if held is None else 0)
    held = list(held or ())
    free = free_ram() - promised + sum(one.ram(place) for one in held)
    if in_ram > free:
        raise WorkerLost(lines.TOO_LITTLE_RAM(device=place.label, free=_gb(free), needs=_gb(in_ram)))
    found = usage.memory(place)
    if found is None:
        return None
    free, on_device = found[0] + sum(one.weights for one in held), need.weights + need.forward
    if free < (on_device if need.whole else CONTEXT):
        raise WorkerLost(lines.TOO_LITTLE_ON_DEVICE(device=place.label, free=_gb(free), needs=_gb(on_device)))
    if on_device > free:
        return lines.LOADED_IN_PART(device=place.label, free=_gb(free), needs=_gb(on_device))
    return None


def free_ram(groups: Path = GROUPS) -> int:
    """Bytes that this machine's processes, or this container's, can still have, in RAM and swap."""
    free = psutil.virtual_memory().available
    with contextlib.suppress(RuntimeError, OSError):  # Windows with its performance counters off
        free += psutil.swap_memory().free
    for limit, used, cached in GROUP_FILES:
        try:
            most, now = (int((groups / name).read_text()) for name in (limit, used))
            stat = dict(line.split() for line in (groups / limit).with_name("memory.stat").read_text().splitlines())
            free = min(free, most - now + sum(int(stat[name]) for name in cached))
        except (OSError, ValueError, KeyError):  # not this kind of control group, or one without a limit
            continue
    return max(free, 0)


def _gb(size: int) -> str:
    return f"{max(size, 0) / 2**30:.1f}"
