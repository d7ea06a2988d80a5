"""Which devices this machine has, asked without waking them, and where a worker is to run.

A ComfyUI process may be shown only one GPU, so torch's count there is not the machine's: NVIDIA's
management library is asked first, torch only where it is not to be had. A worker is given its GPU
by a visibility variable and sees no other.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from .. import lines
from . import nvml

log = logging.getLogger("hybridiff")

VISIBILITY_VARIABLES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")


@dataclass(frozen=True)
class Gpu:
    """`name` is what a user chooses ("cuda:1"), `visible_as` what its visibility variable takes."""

    name: str
    title: str
    variable: str
    visible_as: str

    @property
    def kind(self) -> str:
        return self.name.partition(":")[0]


@dataclass(frozen=True)
class Place:
    """Where a worker runs: `device` is its torch device as the worker itself sees it.

    `key` tells workers apart (two may share a device); `label` is what users read.
    """

    key: str
    label: str
    device: str
    visibility: dict[str, str] = field(default_factory=dict, hash=False)


@functools.cache
def gpus() -> tuple[Gpu, ...]:
    """The machine's GPUs in a fixed order (NVIDIA: by PCI bus), also those hidden from this process."""
    return _nvidia_gpus() or _torch_gpus()


def _nvidia_gpus() -> tuple[Gpu, ...]:
    listing = nvml.listing()
    for index, error in listing.unopened:
        log.warning("%s", lines.GPU_CANNOT_BE_OPENED(name=f"cuda:{index}", error=error))
    return tuple(Gpu(f"cuda:{gpu.index}", gpu.title, "CUDA_VISIBLE_DEVICES", gpu.uuid) for gpu in listing.gpus)


def _torch_gpus() -> tuple[Gpu, ...]:
    if torch.cuda.is_available():
        variable = "HIP_VISIBLE_DEVICES" if torch.version.hip else "CUDA_VISIBLE_DEVICES"
        return tuple(
            Gpu(f"cuda:{index}", torch.cuda.get_device_name(index), variable, _visible_entry(variable, index))
            for index in range(torch.cuda.device_count())
        )
    if hasattr(torch, "xpu") and torch.xpu.is_available():
        return tuple(
            Gpu(f"xpu:{index}", torch.xpu.get_device_name(index), "ZE_AFFINITY_MASK", str(index))
            for index in range(torch.xpu.device_count())
        )
    return ()


def _visible_entry(variable: str, index: int) -> str:
    """The name under which a child sees what this process sees as device `index`."""
    entries = [entry for entry in os.environ.get(variable, "").split(",") if entry]
    return entries[index] if index < len(entries) else str(index)


def gpu_of(device: torch.device) -> Gpu | None:
    """The machine's GPU behind this process's torch device; None for the CPU and for unknown ones."""
    if device.type not in ("cuda", "xpu"):
        return None
    index = device.index or 0
    if device.type == "cuda":
        uuid = str(getattr(torch.cuda.get_device_properties(index), "uuid", ""))
        for gpu in gpus():
            if uuid and gpu.visible_as == f"GPU-{uuid}":
                return gpu
    return next((gpu for gpu in gpus() if gpu.name == f"{device.type}:{index}"), None)


def choices() -> list[str]:
    """What a user can choose on this machine."""
    return ["auto", "same", "cpu", *(gpu.name for gpu in gpus())]


def places(wanted: Sequence[str], own: torch.device) -> tuple[list[Place], list[str]]:
    """Turn the user's device names into places for workers beside this process on `own`.

    "auto" is every GPU but this process's, "same" its own device, "cpu" a process on the CPU.
    Returns the places and a line for each name that led nowhere.
    """
    own_gpu = gpu_of(own)
    found: list[Place] = []
    missing: list[str] = []

    def add(name: str, gpu: Gpu | None, device: str, same: bool) -> None:
        ordinal = sum(place.key.startswith(f"{name}#") for place in found)
        title = f"{name} ({gpu.title})" if gpu else name
        visibility = {gpu.variable: gpu.visible_as, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if gpu else {}
        if device == "cpu":
            visibility = dict.fromkeys(VISIBILITY_VARIABLES[:1], "")
        label = f"{title} (process {ordinal + 2})" if same or ordinal else title
        found.append(Place(f"{name}#{ordinal}", label, device, visibility))

    for name in wanted:
        if name == "auto":
            others = [gpu for gpu in gpus() if gpu != own_gpu]
            for gpu in others:
                add(gpu.name, gpu, f"{gpu.kind}:0", False)
            if not others:
                missing.append(lines.NO_SECOND_GPU())
        elif name == "cpu":
            add("cpu", None, "cpu", own.type == "cpu")
        elif name == "same":
            device = f"{own.type}:0" if own_gpu else str(own)
            add(own_gpu.name if own_gpu else str(own), own_gpu, device, True)
        else:
            gpu = next((gpu for gpu in gpus() if gpu.name == name), None)
            if gpu is None:
                missing.append(lines.DEVICE_NOT_HERE(name=name, here=", ".join(choices()[1:])))
            else:
                add(gpu.name, gpu, f"{gpu.kind}:0", gpu == own_gpu)
    return found, missing
