"""`python -m hybridiff_core devices`: what this machine has, what auto would do with it, how quick a worker answers.

The first thing to ask of a user who reports a problem; it names no path and no user.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator

import psutil
import torch

from . import __version__
from .share import Unit
from .waiting import wait_for
from .workers.candidates import obstacle, verdicts
from .workers.devices import places
from .workers.gpus import Gpu, gpu_of, gpus, own_title, unopened
from .workers.nvml import listing
from .workers.pool import Pool
from .workers.usage import memory

VARIABLES = (
    "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES",
    "HSA_OVERRIDE_GFX_VERSION", "ZE_AFFINITY_MASK", "ONEAPI_DEVICE_SELECTOR",
)  # fmt: skip
SIZES = {"16 KiB": 2**14, "256 KiB": 2**18, "8 MiB": 2**23}
REPEATS = {"16 KiB": 40, "256 KiB": 40, "8 MiB": 12}
GIB = 2**30


def own_device(cpu: bool = False) -> torch.device:
    """What ComfyUI would compute on in this environment; with `cpu` as with its --cpu."""
    if not cpu and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if not cpu and hasattr(torch, "xpu") and torch.xpu.is_available():
        return torch.device("xpu", torch.xpu.current_device())
    return torch.device("mps" if not cpu and torch.backends.mps.is_available() else "cpu")


def system() -> list[str]:
    """Lines about the versions and the machine."""
    ram, nvidia = psutil.virtual_memory(), listing()
    driver = f"NVIDIA driver {nvidia.driver}" if nvidia.driver else "no NVIDIA driver that nvidia-ml-py can ask"
    unused = [] if torch.version.cuda else [gpu.title for gpu in nvidia.gpus]
    return [
        f"Hybridiff {__version__}, Python {platform.python_version()}, PyTorch {torch.__version__}",
        f"{platform.platform()}, {os.cpu_count()} CPU cores",
        f"{ram.total / GIB:.0f} GB of memory, {ram.available / GIB:.1f} GB free; {driver}",
        *(f"{title} cannot be used: this PyTorch was built without CUDA" for title in unused),
        *(f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ),
    ]


def roles(own: torch.device) -> list[tuple[str, str, str]]:
    """Of each device its title, its free memory, and what auto does with it beside a process on `own`."""
    own_gpu, nobody = gpu_of(own), obstacle(own)
    judged = {verdict.gpu: (rank, verdict.against) for rank, verdict in enumerate(verdicts(own), start=1)}

    def role(gpu: Gpu) -> str:
        if gpu == own_gpu:
            return "ComfyUI's own"
        if nobody or gpu not in judged:
            return nobody or "not of ComfyUI's kind"
        rank, against = judged[gpu]
        return f"auto leaves it out: {against}" if against else f"auto takes it, as number {rank}"

    rows = [(gpu.title, _free(gpu), role(gpu)) for gpu in gpus()]
    rows += [(name, "", f"cannot be opened: {error}") for name, error in unopened().items()]
    if own_gpu is None and own.type not in ("cuda", "xpu", "cpu"):
        rows.append((str(own), "", "ComfyUI's own"))
    return [*rows, ("cpu", "", "ComfyUI's own" if own.type == "cpu" else "only if it is chosen")]


def _free(gpu: Gpu) -> str:
    found = memory(gpu)
    return f"{found[0] / GIB:.1f} GB free" if found else ""


def message_times(own: torch.device) -> Iterator[tuple[str, list[float] | str]]:
    """Of each device, as it is measured: median seconds of a message of each of SIZES to a worker there and back.

    In the place of the seconds, why there is no such worker.
    """
    for name in [*(gpu.name for gpu in gpus()), "cpu"]:
        found, said = places([name], own)
        for place in found:
            pool = Pool("demo", lambda place: {"threads": 1})
            try:
                shapes = {"h": [[1]], "z": [[1]], "dtype": "float32"}
                exchange = pool.prepare(place, own, {"sizes": shapes}).ready(lambda: None)
                exchange.begin({"conds": [torch.zeros(1, 1, 1)]})
                yield place.label, [_seconds(exchange, own, size, REPEATS[size]) for size in SIZES]
            except Exception as error:  # noqa: BLE001 - whatever it is, the next device is measured
                yield place.label, str(error) or type(error).__name__
            finally:
                pool.close()
        if not found:
            yield name, "; ".join(said)


def _seconds(exchange: object, own: torch.device, size: str, repeats: int) -> float:
    """The median of `repeats` messages after three to warm up."""
    message = torch.zeros(1, SIZES[size] // 4, device=own)
    sigma, taken = torch.ones(1, device=own), []
    for _ in range(repeats + 3):
        wait_for(own)
        since = time.perf_counter()
        exchange.submit(message, sigma, [Unit(0, 0)])
        exchange.collect()
        wait_for(own)
        taken.append(time.perf_counter() - since)
    return statistics.median(taken[3:])


def write(own: torch.device, messages: bool = True, out: Callable[[str], None] = print) -> None:
    """Write the whole report, line by line as it is found; `messages` starts a worker on each device."""
    for line in system():
        out(line)
    out(f"ComfyUI's own device: {own_title(own)}")
    out("")
    rows = roles(own)
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for title, free, role in rows:
        out(f"{title:{widths[0]}}  {free:{widths[1]}}  {role}")
    if not messages:
        return
    out("")
    out("A message to a worker there and back, median milliseconds (each worker takes some seconds to start):")
    width = widths[0] + len(" (process 2)")
    out(f"{'':{width}}" + "".join(f"{size:>10}" for size in SIZES))
    with torch.inference_mode():
        for label, found in message_times(own):
            times = found if isinstance(found, str) else "".join(f"{1e3 * seconds:10.2f}" for seconds in found)
            out(f"{label:{width}}{'  ' if isinstance(found, str) else ''}{times}")
            sys.stdout.flush()
