"""What a user can choose as a device, and where a worker then runs.

A worker is given its GPU by a visibility variable and sees no other.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import torch

from .. import lines
from ..remote.places import choices as choices_elsewhere
from ..remote.places import others, place
from ..remote.places import short_name as name_elsewhere
from .candidates import obstacle, verdicts
from .gpus import CUDA, Gpu, gpu_of, gpus, own_title, unopened
from .place import Place

TITLED = re.compile(r"((?:cuda|xpu):\d+) \(.*\)")
OTHERS = "others"  # beside "auto": the GPUs of the machines that joined this one too

__all__ = ["Place", "choices", "gpu_of", "gpus", "own_title", "places", "short_name"]


def choices() -> list[str]:
    """What a user can choose: on this machine, and on those that joined it."""
    return ["auto", "same", "cpu", *(gpu.title for gpu in gpus()), *choices_elsewhere()]


def short_name(choice: str) -> str:
    """The device's name in a choice: "cuda:1" for "cuda:1 (RTX 3090, 24 GB)", of this machine or another."""
    titled = TITLED.fullmatch(choice)
    return titled[1] if titled else name_elsewhere(choice) or choice


def _now(choice: str) -> str:
    """The name that a titled GPU has here now, for numbers change with drivers and cards; else the one it had."""
    titled, here = TITLED.fullmatch(choice), {gpu.name: gpu.title for gpu in gpus()}
    if titled is None or here.get(titled[1]) == choice:
        return short_name(choice)
    alike = [name for name, title in here.items() if title.partition(" (")[2] == choice.partition(" (")[2]]
    return alike[0] if len(alike) == 1 else titled[1]


def places(wanted: Sequence[str], own: torch.device) -> tuple[list[Place], list[str]]:
    """Turn the user's device names into places for workers beside this process on `own`.

    "auto" is every other GPU that candidates.py finds fit, but those named too; "same" is this process's own device,
    "cpu" a process on the CPU; "others" is what other machines have of this one's kind. Returns the places, and lines:
    for each name that led nowhere, each GPU that auto leaves out, and each choice that loads a model twice where once
    would do.
    """
    names, own_gpu = [_now(name) for name in wanted], gpu_of(own)
    found: list[Place] = []
    said: list[str] = []

    def add(name: str, gpu: Gpu | None, device: str, visibility: dict[str, str], same: bool) -> None:
        ordinal = sum(place.key.startswith(f"{name}#") for place in found)
        title = gpu.title if gpu else name
        label = f"{title} (process {ordinal + 2})" if same or ordinal else title
        uuid = gpu.uuid if gpu and not gpu.divided else ""
        slot = gpu.slot if gpu and not gpu.divided and not gpu.integrated else ""  # one in the processor takes RAM too
        found.append(Place(f"{name}#{ordinal}", label, device, visibility, uuid, slot))

    def add_gpu(gpu: Gpu) -> None:
        add(gpu.name, gpu, f"{gpu.kind}:0", dict(gpu.visibility), gpu == own_gpu)

    for number, name in enumerate(names):
        if name == "auto" and "auto" in names[:number]:
            continue
        if name == "auto":
            taken, why = _by_auto(own, set(names))
            for gpu in taken:
                add_gpu(gpu)
            said += why
        elif name == OTHERS:
            taken, why = others(own, names)
            found += taken
            said += why
        elif name_elsewhere(name):
            there, why = place(name)
            found += [there] if there and there not in found else []
            said += [why] if why else []
        elif name == "cpu":
            add("cpu", None, "cpu", {CUDA: ""}, own.type == "cpu")
        elif name == "same" and own_gpu and own_gpu.index is None:
            add_gpu(own_gpu)
        elif name == "same":  # what this process was shown is inherited
            inherited = {CUDA: ""} if own.type == "cpu" else {}
            add(own_gpu.name if own_gpu else str(own), own_gpu, str(own), inherited, True)
        elif gpu := next((gpu for gpu in gpus() if gpu.name == name), None):
            add_gpu(gpu)
            if gpu == own_gpu:
                said.append(lines.OWN_GPU_CHOSEN(device=gpu.title))
        elif name in unopened():
            said.append(lines.GPU_CANNOT_BE_OPENED(name=name, error=unopened()[name]))
        else:
            here = ", ".join(map(short_name, choices()[1:]))
            said.append(lines.DEVICE_NOT_HERE(name=name, here=here))
    return found, [*said, *_repeated(names, own_gpu)]


def _by_auto(own: torch.device, named: set[str]) -> tuple[list[Gpu], list[str]]:
    """The GPUs that auto takes, but those `named` by the user, and its lines."""
    if reason := obstacle(own):
        return [], [reason]
    judged = verdicts(own)
    lost = unopened() if own.type == "cuda" else {}
    said = [
        lines.NOT_BY_AUTO(device=verdict.gpu.title, reason=verdict.against)
        for verdict in judged
        if verdict.against and verdict.gpu.name not in named
    ] + [lines.GPU_CANNOT_BE_OPENED(name=name, error=error) for name, error in lost.items() if name not in named]
    fit = [verdict.gpu for verdict in judged if not verdict.against and verdict.gpu.name not in named]
    return fit, said if judged or said else [lines.NO_SECOND_GPU()]


def _repeated(names: Sequence[str], own_gpu: Gpu | None) -> list[str]:
    """A line for each choice made more than once that costs something."""
    if own_gpu:
        names = [own_gpu.name if name == "same" else name for name in names]
    known = {gpu.name: gpu for gpu in gpus()}
    said = []
    for name, count in Counter(names).items():
        if count > 1 and name == "auto":
            said.append(lines.AUTO_TWICE(count=count))
        elif count > 1 and name in known:
            said.append(lines.CHOSEN_TWICE(device=known[name].title, count=count))
    return said
