"""Benchmarks that run in a ComfyUI process: with its Python, on one core, workers on the other."""

from __future__ import annotations

import argparse
import importlib
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.host.comfy_server import MODELS, PACK, find_comfyui, make_models, python_of


def enter_comfyui(root: Path, cpu: bool = True):
    """Be a ComfyUI process on one core, and return the pack's host side with its workers on the other core.

    Without `cpu` be one as ComfyUI itself would, on its GPU, and leave the cores alone.
    """
    os.environ["HYBRIDIFF_WAIT"] = "1"  # what is measured is two devices, from the first step on
    sys.path.remove(str(PACK))
    runpy.run_path(str(PACK / "nodes" / "host" / "worker.py"))["register_pack"]()
    sys.path.insert(0, str(root))
    import comfy.cli_args

    comfy.cli_args.args.cpu = cpu
    if not cpu:
        return host_side()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("two cores are needed; only one is to be had here")
    os.sched_setaffinity(0, cores[:1])
    import torch

    torch.set_num_threads(1)
    host = host_side()
    pool = host.leases.pool()
    pool.start = lambda place: {**host.leases.start_frame(place), "cpus": cores[1:2]}
    start_workers_on(cores[1:2])
    return host


def start_workers_on(cores: list[int]) -> None:
    """Have workers start on these cores: a process inherits those of the thread that starts it."""
    from hybridiff_pack.hybridiff_core.workers import pool

    started = pool.WorkerProcess

    def start(*arguments: object):
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, cores)
        try:
            return started(*arguments)
        finally:
            os.sched_setaffinity(0, before)

    pool.WorkerProcess = start


def host_side():
    """The package nodes/host, all of it imported, with the test models to be had."""
    importlib.import_module("hybridiff_pack.nodes.host.acceleration")
    from hybridiff_pack.nodes import host

    read_models_from(MODELS)
    return host


def read_models_from(models: Path) -> None:
    """Make `models` one of ComfyUI's own model folders: a worker reads no others."""
    import folder_paths

    for kind in ("checkpoints", "diffusion_models"):
        folder_paths.add_model_folder_path(kind, str(models / kind))


def run_inside(script: str, options: argparse.Namespace, measure: Callable[[argparse.Namespace, Path], None]) -> None:
    """Run `script` again with ComfyUI's own Python, and there `measure(options, ComfyUI's folder)`."""
    root = find_comfyui()
    if root is None:
        sys.exit("no ComfyUI is to be found; set COMFYUI_PATH")
    if os.environ.get("HYBRIDIFF_BENCHMARK") != "inside":
        make_models(root)
        environment = {**os.environ, "HYBRIDIFF_BENCHMARK": "inside", "OMP_NUM_THREADS": "1"}
        sys.exit(subprocess.run([python_of(root), script, *sys.argv[1:]], env=environment).returncode)
    import torch

    with torch.inference_mode():
        measure(options, root)


def run_on_device(options: argparse.Namespace, measure: Callable[[argparse.Namespace, object], None]) -> None:
    """Run this script again with ComfyUI's own Python, and there, on that device, `measure(options, the host side)`."""
    root = find_comfyui()
    if root is None:
        sys.exit("no ComfyUI is to be found; set COMFYUI_PATH")
    if os.environ.get("HYBRIDIFF_BENCHMARK") != "inside":
        command = [python_of(root), *sys.argv]
        sys.exit(subprocess.run(command, env={**os.environ, "HYBRIDIFF_BENCHMARK": "inside"}).returncode)
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no CUDA GPU is to be had by ComfyUI's torch here; to try the script out, add --device cpu --small")
    host = enter_comfyui(root, cpu=options.device == "cpu")
    with torch.inference_mode():
        measure(options, host)
    host.leases.pool().close()
