"""What auto takes of the machine's GPUs, and why it leaves the others: hidden, unfit and busy ones."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import psutil
import torch

from .. import lines
from . import nvml
from .gpus import Gpu, gigabytes, gpu_of, gpus, is_shown
from .usage import memory, use

SMALL, SMALL_SHARE = int(3.5 * 2**30), 1 / 4  # less memory, or a lesser share of our own GPU's, helps no model
COMPUTING = 2**28  # held by others that compute: more than a desktop needs, less than a model
OCCUPIED, OCCUPIED_SHARE = 2 * 2**30, 1 / 8  # in use, where the driver does not tell by whom; the more of both
UTILISED = 50  # percent

_idle: set[str] = set()  # GPUs that were found idle: what is on them later may be our own workers'


@dataclass(frozen=True)
class Verdict:
    """A GPU, and why auto does not take it; None where it does."""

    gpu: Gpu
    against: str | None


def obstacle(own: torch.device) -> str | None:
    """Why auto takes no GPU at all beside a process on `own`; None where each is judged by itself."""
    if own.type == "cpu" and gpus():
        return lines.AUTO_ON_CPU()
    if gpu_of(own) is None and sum(gpu.kind == own.type for gpu in gpus()) > 1:
        return lines.OWN_GPU_UNKNOWN(device=own)
    return None


def verdicts(own: torch.device) -> list[Verdict]:
    """Of each GPU of the kind of `own`, but that itself: those that auto takes, the best first, and the others.

    The best is the one most like ComfyUI's own, then the most capable, then the one with most free memory.
    """
    own_gpu = gpu_of(own)
    if own_gpu is None:
        return []
    with nvml.library():  # once for all questions
        others = [gpu for gpu in gpus() if gpu.kind == own.type and gpu != own_gpu]
        ours = _ours() if others else set()
        found = [Verdict(gpu, _against(gpu, own_gpu, ours)) for gpu in others]
        return sorted(found, key=lambda verdict: (verdict.against is not None, _rank(verdict.gpu, own_gpu)))


def _rank(gpu: Gpu, own: Gpu) -> tuple:
    major, minor = gpu.capability or (0, 0)
    free = (memory(gpu) or (gpu.total or 0,))[0]
    return (gpu.model != own.model, -major, -minor, -free)


def _against(gpu: Gpu, own: Gpu, ours: set[int]) -> str | None:
    """Why auto does not take `gpu`, the reason first that a user can change least; `ours` are our processes."""
    if gpu.divided:
        return lines.GPU_IS_DIVIDED()
    if not is_shown(gpu):
        return lines.GPU_IS_HIDDEN()
    if gpu.model != own.model and (unfit := _unfit(gpu, own)):
        return unfit
    return _busy(gpu, ours)


def _unfit(gpu: Gpu, own: Gpu) -> str | None:
    if not _has_code(gpu):
        return lines.GPU_IS_TOO_OLD(what=gpu.architecture or ".".join(map(str, gpu.capability or ())))
    if gpu.integrated:
        return lines.GPU_IS_INTEGRATED()
    if gpu.total is not None and gpu.total < max(SMALL, SMALL_SHARE * (own.total or 0)):
        return lines.GPU_IS_SMALL(has=gigabytes(gpu.total), own=gigabytes(own.total or 0))
    return None


def _has_code(gpu: Gpu) -> bool:
    """Whether this torch was compiled for `gpu`; also where it does not say what it was compiled for."""
    built = torch.cuda.get_arch_list() if gpu.kind == "cuda" else []
    if gpu.architecture:
        return not built or gpu.architecture in built or any("generic" in name for name in built)
    if gpu.capability is None or not built:
        return True
    return any(_runs(name, *gpu.capability) for name in built)


def _runs(name: str, major: int, minor: int) -> bool:
    """Whether code for "sm_86" runs on (major, minor): on the same major, "compute_86" on all later ones too."""
    kind, _, digits = name.partition("_")
    if digits[-1:] in ("a", "f"):  # for this one alone, or for its family
        digits = digits[:-1]
    if not digits.isdecimal():
        return True
    built = divmod(int(digits), 10)
    return built <= (major, minor) and (kind == "compute" or built[0] == major)


def _busy(gpu: Gpu, ours: set[int]) -> str | None:
    """Why others need `gpu` now. Our own workers there do not count."""
    seen = use(gpu)
    if seen is None:
        return None
    # some drivers tell of no process, and in a container the numbers may be those of another namespace
    told = bool(seen.held) and all(map(psutil.pid_exists, seen.held))
    held = seen.of_others(ours) if told else None
    if held is not None and held >= COMPUTING:
        return lines.GPU_IS_USED(size=f"{held / 2**30:.1f}")
    # where the numbers tell nothing, what is on a GPU that was idle before may be our own workers', if there are any
    maybe_ours = not told and gpu.name in _idle and len(ours) > 1
    if not any(pid in ours for pid in seen.held) and not maybe_ours:
        free, total = memory(gpu) or (0, 0)
        if total - free >= max(OCCUPIED, OCCUPIED_SHARE * total):
            return lines.GPU_IS_USED(size=f"{(total - free) / 2**30:.1f}")
        if (seen.utilisation or 0) >= UTILISED:
            return lines.GPU_COMPUTES(percent=seen.utilisation)
    _idle.add(gpu.name)
    return None


def _ours() -> set[int]:
    """This process and what it started."""
    own = psutil.Process()
    found = {own.pid}
    with contextlib.suppress(psutil.Error):
        found.update(child.pid for child in own.children(recursive=True))
    return found
