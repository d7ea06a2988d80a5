"""The machine's GPUs, asked without waking them, and which of them is this process's own.

A ComfyUI process may be shown only some of them, and torch numbers them by another order than NVIDIA's tools do. So
NVIDIA's management library is asked first, torch where that is not to be had, and a GPU is known by its UUID.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import psutil
import torch

from . import nvml

log = logging.getLogger("hybridiff")

CUDA, HIP, LEVEL_ZERO = "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ZE_AFFINITY_MASK"
WHO = "HYBRIDIFF_GPU_CHOSEN_BY"  # host or user: for this process after a restart
WINDOWS = sys.platform == "win32"
# Intel's that are cards of their own, for versions of torch that do not say which are not
DISCRETE = re.compile(r"\bArc.* [AB]\d{2,3}M?\b|Data Center|\bFlex\b|\bMax\b")


@dataclass(frozen=True)
class Gpu:
    """`name` is what a user chooses ("cuda:1"), `model` the driver's words, `visibility` shows a process it alone.

    `uuid` is "" where it has none that is known, `index` torch's number for it in this process where torch listed it;
    `total` is in bytes, `architecture` AMD's ("gfx1100"), `slot` the PCI address where torch tells it.
    """

    name: str
    model: str
    visibility: Mapping[str, str] = field(hash=False)
    uuid: str = ""
    capability: tuple[int, int] | None = None
    total: int | None = None
    divided: bool = False
    integrated: bool = False
    architecture: str = ""
    index: int | None = None
    slot: str = ""

    @property
    def kind(self) -> str:
        """Its torch device's type."""
        return self.name.partition(":")[0]

    @property
    def title(self) -> str:
        """What users read and choose: "cuda:1 (RTX 3090, 24 GB)"."""
        size = "" if self.total is None else f", {gigabytes(self.total)} GB"
        return f"{self.name} ({short(self.model)}{size})"


def gigabytes(size: int) -> int:
    """Bytes as a card's box states them."""
    return round(size / 2**30)


def short(model: str) -> str:
    """A card's name without its maker's: "RTX 3090" for "NVIDIA GeForce RTX 3090"."""
    plain = "".join(filter(str.isprintable, re.sub(r"\((?:R|TM|C)\)", "", model)))
    plain = re.sub(r"^(?:NVIDIA |AMD |Intel )?(?:GeForce |Radeon (?=RX))?", "", " ".join(plain.split()))
    return re.sub(r"^(Arc .*\d\w*) Graphics$", r"\1", plain)[:70]


@functools.cache
def gpus() -> tuple[Gpu, ...]:
    """The GPUs that this torch could use, in a fixed order; NVIDIA's in that of their slots, hidden ones too."""
    _hidden_by_comfyui()  # while the parent still is there
    if torch.version.cuda and (listed := nvml.listing().gpus):
        return tuple(
            Gpu(f"cuda:{gpu.index}", gpu.title, {CUDA: gpu.uuid}, gpu.uuid, gpu.capability, gpu.total, gpu.mig)
            for gpu in listed
        )
    return tuple(_of_torch())


@functools.cache
def unopened() -> dict[str, str]:
    """GPUs that the driver lists but cannot open, by name, with its words."""
    return {f"cuda:{index}": error for index, error in nvml.listing().unopened} if torch.version.cuda else {}


def _of_torch() -> list[Gpu]:
    if torch.cuda.is_available():
        return _described(_cuda_gpu, torch.cuda.device_count())
    if hasattr(torch, "xpu") and torch.xpu.is_available():
        return _described(_xpu_gpu, torch.xpu.device_count())
    return []


def _described(describe: Callable[[int], Gpu], count: int) -> list[Gpu]:
    found = []
    for index in range(count):
        try:
            found.append(describe(index))
        except (RuntimeError, AssertionError) as error:  # the driver lists it, but cannot open it
            log.warning("GPU %d cannot be opened: %s", index, error)
    return found


def _cuda_gpu(index: int) -> Gpu:
    found = torch.cuda.get_device_properties(index)
    uuid, entry = _uuid(found), _entry(index)
    if torch.version.hip:
        visibility = {HIP: entry, CUDA: entry}  # HIP reads the second where the first is not set
    else:
        # a number counts in CUDA_DEVICE_ORDER, which the other process inherits
        visibility = {CUDA: f"GPU-{uuid}" if uuid and not entry.startswith("MIG-") else entry}
    return Gpu(
        f"cuda:{index}", found.name, visibility, uuid, (found.major, found.minor), found.total_memory,
        entry.startswith("MIG-"), bool(getattr(found, "is_integrated", False)),
        getattr(found, "gcnArchName", "").partition(":")[0] if torch.version.hip else "", index, _slot(found),
    )  # fmt: skip


def _xpu_gpu(index: int) -> Gpu:
    found = torch.xpu.get_device_properties(index)
    integrated = getattr(found, "is_integrated_gpu", not DISCRETE.search(found.name.replace("(TM)", "")))
    return Gpu(
        f"xpu:{index}", found.name, {LEVEL_ZERO: _entry(index)}, _uuid(found), None,
        getattr(found, "total_memory", None), False, bool(integrated), "", index,
    )  # fmt: skip


def _uuid(properties: object) -> str:
    """A device's UUID without NVML's prefix; "" where this torch does not know it."""
    return str(getattr(properties, "uuid", "") or "").lower().removeprefix("gpu-")


def _slot(properties: object) -> str:
    parts = [getattr(properties, f"pci_{part}_id", None) for part in ("domain", "bus", "device")]
    return "" if None in parts else "{:04x}:{:02x}:{:02x}.0".format(*parts)


def _entry(index: int) -> str:
    """The entry of a visibility variable that shows another process what this one sees as device `index`."""
    if torch.version.hip:
        listed = os.environ.get(HIP, "").strip() or os.environ.get(CUDA, "")
    elif torch.cuda.is_available():
        listed = os.environ.get(CUDA, "")
    else:
        listed = os.environ.get(LEVEL_ZERO, "")
    entries = [entry.strip() for entry in listed.split(",") if entry.strip()]
    if not torch.cuda.is_available() and all(map(str.isdecimal, entries)):
        entries.sort(key=int)  # Level Zero keeps its own order, whatever the mask's
    return entries[index] if index < len(entries) else str(index)


def gpu_of(device: torch.device) -> Gpu | None:
    """The GPU behind this process's torch device; None for the CPU, and where it cannot be told.

    It cannot with an old torch, which knows no UUIDs, nor for a part of a divided GPU (MIG).
    """
    if device.type not in ("cuda", "xpu"):
        return None
    of_kind, index = [gpu for gpu in gpus() if gpu.kind == device.type], device.index or 0
    if all(gpu.index is not None for gpu in of_kind):
        found = next((gpu for gpu in of_kind if gpu.index == index), None)
        # without NVML and UUID only the order of CUDA would tell two NVIDIA cards apart
        known = found and (found.uuid or device.type == "xpu" or torch.version.hip or len(of_kind) == 1)
        return found if known and not _numbers_are_others() else None
    whole = [gpu for gpu in of_kind if not gpu.divided]
    if uuid := uuid_of(device):
        return next((gpu for gpu in whole if is_same(gpu.uuid, uuid)), None)
    return whole[0] if len(whole) == len(of_kind) == 1 and not unopened() else None


def _numbers_are_others() -> bool:
    """Whether another variable numbers Intel's devices anew, so that ours would count among fewer or parts."""
    return not torch.cuda.is_available() and (
        "." in os.environ.get(LEVEL_ZERO, "") or any(map(str.isdecimal, os.environ.get("ONEAPI_DEVICE_SELECTOR", "")))
    )


def _bare(uuid: str) -> str:
    return uuid.lower().removeprefix("gpu-")


def uuid_of(device: torch.device) -> str:
    """The UUID of this process's device; "" for the CPU, and where this torch does not know it."""
    if device.type not in ("cuda", "xpu"):
        return ""
    return _uuid(torch.get_device_module(device).get_device_properties(device.index or 0))


def is_same(uuid: str, other: str) -> bool:
    """Whether both are one GPU's, written as NVML does or as torch."""
    return _bare(uuid) == _bare(other)


def own_title(device: torch.device) -> str:
    """How this process's device is called in lists, logs and reports."""
    gpu = gpu_of(device)
    return gpu.title if gpu else str(device)


def is_shown(gpu: Gpu) -> bool:
    """Whether this process was started with `gpu` among its devices; ComfyUI's own hiding does not count."""
    if gpu.index is not None or _hidden_by_comfyui():
        return True
    return _bare(gpu.uuid) in {
        _uuid(torch.cuda.get_device_properties(index)) for index in range(torch.cuda.device_count())
    }


def _hidden_by_comfyui() -> bool:
    """Whether the host chose GPU 0 by itself: from 0.33 on ComfyUI does on Windows, unless it was told which to use.

    Then it sets one variable that its parent does not have; --cuda-device sets HIP's as well. A restart inherits the
    variable from a process that is gone: what was found before then stands in WHO, and without it the host's own
    choice is by far the likelier.
    """
    if not WINDOWS or os.environ.get(CUDA) != "0" or HIP in os.environ:
        return False
    if WHO not in os.environ:
        parent_has_it = False
        with contextlib.suppress(psutil.Error, OSError):
            if parent := psutil.Process().parent():
                parent_has_it = CUDA in parent.environ()
        os.environ[WHO] = "user" if parent_has_it else "host"
    return os.environ[WHO] == "host"
