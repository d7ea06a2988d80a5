"""What NVIDIA's management library knows of the GPUs; asking it wakes none of them.

It lists all GPUs of the machine in PCI order, whatever CUDA_VISIBLE_DEVICES says. The only file that imports
pynvml: where that is missing or broken, or there is no driver, every answer is empty or None.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

log = logging.getLogger("hybridiff")


@dataclass(frozen=True)
class NvmlGpu:
    """A GPU: its number in PCI order, the driver's name for it, "GPU-..." and what it can do; None where not said."""

    index: int
    title: str
    uuid: str
    capability: tuple[int, int] | None = None
    total: int | None = None  # bytes
    mig: bool = False  # divided into instances, each of which is a device to CUDA


@dataclass(frozen=True)
class Listing:
    """The machine's GPUs; `unopened` are those that the driver lists but cannot open, with its words."""

    gpus: tuple[NvmlGpu, ...] = ()
    unopened: tuple[tuple[int, str], ...] = ()
    driver: str | None = None


@dataclass(frozen=True)
class Use:
    """Who computes on a GPU: the bytes that each process holds (None where the driver does not tell), and percent."""

    held: Mapping[int, int | None] = field(default_factory=dict)
    utilisation: int | None = None

    def of_others(self, ours: Collection[int]) -> int | None:
        """The bytes held by processes other than `ours`; None where the driver does not tell."""
        others = [held for pid, held in self.held.items() if pid not in ours]
        return None if None in others else sum(others)


@contextlib.contextmanager
def library() -> Iterator[ModuleType | None]:
    """The library, started; None where there is none that works. Started within another it costs nothing."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception as error:  # noqa: BLE001 - not installed, no driver, or a driver that is too old
        log.debug("NVML does not start: %s", error)
        yield None
        return
    try:
        yield pynvml
    finally:
        with contextlib.suppress(Exception):
            pynvml.nvmlShutdown()


def _asked(call: Callable[..., Any], *arguments: object) -> Any:
    """The answer, or None: an old driver or library lacks calls, and cards and containers lack values."""
    try:
        return call(*arguments)
    except Exception as error:  # noqa: BLE001 - as above
        log.debug("NVML does not tell: %s", error)
        return None


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def listing() -> Listing:
    """All NVIDIA GPUs of this machine, also those hidden from this process. Raises nothing."""
    with library() as nvml:
        if nvml is None:
            return Listing()
        found, unopened = [], []
        for index in range(_asked(lambda: nvml.nvmlDeviceGetCount()) or 0):
            try:
                found.append(_described(nvml, index))
            except Exception as error:  # noqa: BLE001 - lost, or not for this user: the others are as they were
                unopened.append((index, str(error)))
        driver = _asked(lambda: nvml.nvmlSystemGetDriverVersion())
        return Listing(tuple(found), tuple(unopened), _text(driver) if driver else None)


def _described(nvml: ModuleType, index: int) -> NvmlGpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    title, uuid = _text(nvml.nvmlDeviceGetName(handle)), _text(nvml.nvmlDeviceGetUUID(handle))
    capability = _asked(lambda: nvml.nvmlDeviceGetCudaComputeCapability(handle))
    memory = _asked(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
    mig = _asked(lambda: nvml.nvmlDeviceGetMigMode(handle))
    capability, total = tuple(capability) if capability else None, int(memory.total) if memory else None
    return NvmlGpu(index, title, uuid, capability, total, bool(mig and mig[0]))


def _handle(nvml: ModuleType | None, uuid: str) -> Any:
    if nvml is None:
        return None
    # older versions of the library take bytes alone
    return _asked(lambda: nvml.nvmlDeviceGetHandleByUUID(uuid)) or _asked(
        lambda: nvml.nvmlDeviceGetHandleByUUID(uuid.encode())
    )


def memory(uuid: str) -> tuple[int, int] | None:
    """(free, total) bytes of the GPU "GPU-..." now; None where that cannot be told. Raises nothing."""
    with library() as nvml:
        handle = _handle(nvml, uuid)
        found = handle and _asked(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
        return (int(found.free), int(found.total)) if found else None


def use(uuid: str) -> Use | None:
    """Who computes on the GPU "GPU-..." now; None where that cannot be told. Raises nothing."""
    with library() as nvml:
        if not (handle := _handle(nvml, uuid)):
            return None
        processes = _asked(lambda: nvml.nvmlDeviceGetComputeRunningProcesses(handle))
        rates = _asked(lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
        held = {int(one.pid): getattr(one, "usedGpuMemory", None) for one in processes or ()}
        return Use(held, rates and int(rates.gpu))
