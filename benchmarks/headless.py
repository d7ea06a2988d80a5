"""A worker's start with ComfyUI's own start-up and without it, and the memory it has to itself with a large model.

    python benchmarks/headless.py [--repeats 5] [--file MODEL] [--json FILE]

Seconds from the process's launch to READY, in turns on one core, by the script of the tests that can leave the
start-up out. `--file` is a diffusion model of which the memory (USS) is measured: before it is loaded, after, and
unloaded again; with its weights used where they lie in the file, and copied.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

PACK = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PACK))
from benchmarks.block import heading, keep, table  # noqa: E402
from benchmarks.inside import enter_comfyui, run_inside  # noqa: E402

COLUMNS = [("what", lambda row: row["what"]), ("value", lambda row: row["value"])]
KINDS = {"with ComfyUI's start-up": "", "without": "main"}


def start_s(host, place) -> float:
    """Seconds from a worker's launch to READY."""
    import torch
    from hybridiff_pack.hybridiff_core.workers.exchange import Exchange
    from hybridiff_pack.hybridiff_core.workers.launch_local import WorkerProcess

    began = time.perf_counter()
    exchange = Exchange(WorkerProcess("comfy", place), place, torch.device("cpu"))
    try:
        exchange.open(host.leases.pool().start(place))
        return time.perf_counter() - began
    finally:
        exchange.close()


def memory(host, file: Path, copied: bool) -> list[float]:
    """USS of this process in MiB: before the model is loaded, after, and unloaded."""
    import comfy.sd
    import folder_paths
    import psutil
    from hybridiff_pack.nodes.host import backend, kitchen, recipe, settings

    def own() -> float:
        kitchen._give_back()
        return psutil.Process().memory_full_info().uss / 2**20

    folder_paths.add_model_folder_path("diffusion_models", str(file.parent))
    order = {"model": recipe.recipe_of(comfy.sd.load_diffusion_model(str(file))), "args": settings.read_args()}
    worker = backend.ComfyBackend({"device": "cpu", "model_folders": [str(file.parent)]})
    assigned = kitchen.weights_assigned
    found = [own()]
    try:
        if copied:
            kitchen.weights_assigned = contextlib.nullcontext
        worker.load(order)
    finally:
        kitchen.weights_assigned = assigned
    found.append(own())
    worker.unload()
    return [*found, own()]


def measure(options: argparse.Namespace, root: Path) -> None:
    host = enter_comfyui(root)
    from hybridiff_pack.hybridiff_core.workers import devices, launch_local

    launch_local.SCRIPTS = {"comfy": PACK / "tests" / "host" / "headless_worker.py"}
    place = devices.Place("cpu#0", "cpu", "cpu")
    seconds = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HYBRIDIFF_SEEN"] = str(Path(folder) / "seen")
        for _ in range(options.repeats):
            for kind, otherwise in KINDS.items():
                os.environ["HYBRIDIFF_OTHERWISE"] = otherwise
                seconds[kind].append(start_s(host, place))
                print(kind, f"{seconds[kind][-1]:.2f} s", flush=True)
    rows = [
        {"what": f"start {kind}, median of {options.repeats}", "value": f"{statistics.median(found):.2f} s"}
        for kind, found in seconds.items()
    ]
    ratios = [one / other for one, other in zip(*seconds.values())]
    rows.append({"what": "with over without, median of the turns", "value": f"{statistics.median(ratios):.2f}"})
    if options.file:
        for copied in (False, True):
            before, loaded, unloaded = memory(host, options.file, copied)
            size = options.file.stat().st_size / 2**20
            what = f"USS of a worker with a file of {size:.0f} MiB, weights {'copied' if copied else 'where they lie'}"
            value = f"{before:.0f} MiB, loaded {loaded:.0f}, unloaded {unloaded:.0f}"
            rows.append({"what": what, "value": value})
    print(heading("none"), table(rows, COLUMNS), sep="\n\n")
    keep(options.json, rows, "none")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--file", type=Path)
    parser.add_argument("--json", type=Path)
    run_inside(__file__, parser.parse_args(), measure)
