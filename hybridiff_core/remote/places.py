"""Other machines' devices, as a user chooses them: "pc-b: cuda:0 (RTX 3090, 24 GB)", or short "pc-b/cuda:0"."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from .. import lines
from ..workers.place import Place
from .machines import DEVICE, NAME, Device, Machine, pack_version, read

CHOSEN = re.compile(rf"({NAME.pattern})(?:: |/)({DEVICE.pattern})(?: \(.*\))?")


def choices() -> list[str]:
    """What can be chosen on the machines that are there now; a processor only where a machine has no GPU."""
    return [_title(machine, device) for machine in _alive() for device in _offered(machine)]


def short_name(choice: str) -> str | None:
    """ "pc-b/cuda:0" for a choice of another machine's device, else None."""
    found = CHOSEN.fullmatch(choice)
    return f"{found[1]}/{found[2]}" if found else None


def place(choice: str) -> tuple[Place | None, str | None]:
    """The place of a choice that `short_name` knows, or the line that says why there is none."""
    name, wanted = CHOSEN.fullmatch(choice).groups()
    cluster = read()
    if cluster is None:
        return None, lines.NOTHING_SHARED(device=choice)
    named = [machine for machine in cluster.machines if machine.name == name]
    alive = [machine for machine in named if machine.alive]
    if not alive:
        return None, (lines.MACHINE_OFF if named else lines.NO_SUCH_MACHINE)(machine=name)
    machine = alive[-1]
    device = next((one for one in machine.devices if one.name == wanted), None)
    if device is None:
        here = ", ".join(one.name for one in machine.devices)
        return None, lines.DEVICE_NOT_THERE(machine=name, name=wanted, here=here)
    if unfit := _unfit(machine):
        return None, unfit
    return _place(machine, device), None


def others(own: torch.device, named: Sequence[str]) -> tuple[list[Place], list[str]]:
    """The GPUs of `own`'s kind on all other machines, but those `named` (short names), and lines on the rest."""
    cluster = read()
    if cluster is None:
        return [], [lines.NO_OTHER_MACHINE()]
    found, said = [], []
    for machine in cluster.machines:
        fit = [d for d in _offered(machine) if d.name.partition(":")[0] == own.type]
        fit = [device for device in fit if f"{machine.name}/{device.name}" not in named]
        if not machine.alive:
            if not any(other.alive and other.name == machine.name for other in cluster.machines):
                said.append(lines.MACHINE_OFF(machine=machine.name))
        elif fit and (unfit := _unfit(machine)):
            said.append(unfit)
        else:
            found += [_place(machine, device) for device in fit]
    return found, said if found or said else [lines.NO_OTHER_MACHINE()]


def _alive() -> list[Machine]:
    cluster = read()
    return [machine for machine in cluster.machines if machine.alive] if cluster else []


def _offered(machine: Machine) -> list[Device]:
    gpus = [device for device in machine.devices if device.name != "cpu"]
    return gpus or list(machine.devices)


def _unfit(machine: Machine) -> str | None:
    if machine.pack != pack_version():
        return lines.OTHER_PACK(machine=machine.name, theirs=machine.pack, own=pack_version())
    return None


def _title(machine: Machine, device: Device) -> str:
    return f"{machine.name}: {device.title}"


def _place(machine: Machine, device: Device) -> Place:
    kind = device.name.partition(":")[0]
    alone = "cpu" if kind == "cpu" else f"{kind}:0"  # a worker sees no other
    key = f"{machine.name}/{device.name}#0"
    return Place(key, _title(machine, device), alone, machine=machine.name, there=device.name, node=machine.node)
