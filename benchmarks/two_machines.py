"""A real ComfyUI for benchmarks of many runs, with or without a second machine on loopback."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.host.comfy_server import Comfy, find_comfyui, make_models
from tests.remote.network import Machine, base_of, cluster

OTHER = "pc-b: cpu"  # the second machine's device, as the Devices node lists it


def add_to(parser: argparse.ArgumentParser) -> None:
    """The argument that asks for the second machine."""
    parser.add_argument("--remote", action="store_true", help="with a second machine; needs Ray beside ComfyUI")


@contextlib.contextmanager
def comfyui(remote: bool, flags: tuple[str, ...] = ()) -> Iterator[tuple[Comfy, Machine | None]]:
    """The server, and the machine "pc-b" that joined it, if that was asked for."""
    if remote:
        os.environ["COMFYUI_PYTHON"] = sys.executable  # for it has Ray
    root = find_comfyui()
    if root is None:
        sys.exit("no ComfyUI is to be found; set COMFYUI_PATH")
    make_models(root)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        other, there = None, {}
        if remote:
            join = ["--comfyui", str(root), *base_of(Path(folder) / "b")]
            a, other, *_ = stack.enter_context(cluster(None, *join, port=7599))
            there = {"TMPDIR": str(a.folder)}
        comfy = Comfy(root, Path(folder) / "base", flags=flags, **there)
        stack.callback(comfy.stop)
        yield comfy, other


def workers_on(machine: Machine | None) -> list[psutil.Process]:
    """Those of Machine.workers, as psutil has them."""
    found = []
    for pid in machine.workers() if machine else []:
        with contextlib.suppress(psutil.Error):
            found.append(psutil.Process(pid))
    return found
