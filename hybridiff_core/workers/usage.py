"""What is free on a GPU and who uses it now: NVIDIA's by NVML, AMD's on Linux by the kernel's files.

Torch is not asked: that would make a context on the device, which takes memory there.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Protocol

from . import nvml
from .nvml import Use

SLOTS = Path("/sys/bus/pci/devices")


class Card(Protocol):
    """By what a GPU is found: its UUID, NVIDIA's with "GPU-" before it, and its PCI address; "" where not known."""

    @property
    def uuid(self) -> str: ...

    @property
    def slot(self) -> str: ...


def memory(gpu: Card) -> tuple[int, int] | None:
    """(free, total) bytes; None where that cannot be told. Raises nothing."""
    if gpu.uuid.startswith("GPU-"):
        return nvml.memory(gpu.uuid)
    used, total = (_number(gpu, f"mem_info_vram_{which}") for which in ("used", "total"))
    return None if used is None or not total else (total - used, total)


def use(gpu: Card) -> Use | None:
    """Who computes there, as far as that can be told; None where nothing can. Raises nothing."""
    if gpu.uuid.startswith("GPU-"):
        return nvml.use(gpu.uuid)
    percent = _number(gpu, "gpu_busy_percent")
    return None if percent is None and memory(gpu) is None else Use({}, percent)


def _number(gpu: Card, name: str) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int((SLOTS / gpu.slot / name).read_text()) if gpu.slot else None
    return None
