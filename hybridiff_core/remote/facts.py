"""What this machine brings to a cluster: its devices, its ComfyUI, its versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import socket
from collections.abc import Sequence
from pathlib import Path

import psutil

from ..workers.gpus import gigabytes, gpus, short
from .machines import NAME, PACK, Device, Machine, pack_version

GUESSES = ("ComfyUI", "comfy/ComfyUI", "Documents/ComfyUI")


def ray_version() -> str | None:
    """None where Ray is not installed; it is not imported."""
    try:
        return importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        return None


def own_name() -> str:
    """This machine's name, as far as Ray's labels take it."""
    plain = re.sub(r"[^A-Za-z0-9.-]+", "-", platform.node().partition(".")[0])[:40].strip("-.")
    return plain if NAME.fullmatch(plain) else "machine"


def address_towards(host: str) -> str:
    """This machine's own address on the way to `host`. Raises OSError where there is no way."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # nothing is sent
        probe.connect((host, 9))
        return probe.getsockname()[0]


def comfyui_at(path: Path | None) -> Path | None:
    """The ComfyUI that this pack lies in, that `path` names or that lies in a usual place; None where there is none."""
    if path is not None:
        return path.resolve() if _is_comfyui(path) else None
    around = [PACK.parents[1]] if PACK.parent.name == "custom_nodes" else []
    named = [Path(os.environ["COMFYUI_PATH"])] if os.environ.get("COMFYUI_PATH") else []
    return next((p.resolve() for p in [*named, *around, *(Path.home() / g for g in GUESSES)] if _is_comfyui(p)), None)


def comfyui_version(root: Path | None) -> str:
    """ "0.29.0"; "" where it does not say."""
    try:
        found = re.search(r'__version__\s*=\s*"([\w.+-]+)"', (root / "comfyui_version.py").read_text(encoding="utf-8"))
        return found[1] if found else ""
    except (OSError, AttributeError, TypeError):
        return ""


def devices() -> list[tuple[Device, dict[str, str]]]:
    """This machine's, and the variables that show a process each alone."""
    found = [
        (Device(gpu.name, short(gpu.model), gigabytes(gpu.total or 0)), dict(gpu.visibility))
        for gpu in gpus()
        if not gpu.divided
    ]
    ram = gigabytes(psutil.virtual_memory().total)
    return [*found, (Device("cpu", "", ram), {"CUDA_VISIBLE_DEVICES": ""})]


def machine(name: str, root: Path | None) -> Machine:
    """This one, as it will be listed."""
    offered = tuple(device for device, _ in devices())
    return Machine(name, "", True, pack_version(), comfyui_version(root), offered)


def here(name: str, root: Path | None, base: Path | None, address: str, ports: Sequence[int]) -> dict:
    """What a worker on this machine has to know of it (desk.py): where it may listen, too."""
    return {
        "name": name,
        "address": address,
        "ports": list(ports),
        "comfyui": str(root or ""),
        "comfyui_version": comfyui_version(root),
        "folders": {"base_directory": str(base.resolve())} if base else {},
        "devices": {device.name: visible for device, visible in devices()},
        "threads": int(os.environ.get("OMP_NUM_THREADS") or psutil.cpu_count(logical=False) or 1),
    }


def _is_comfyui(path: Path) -> bool:
    return (path / "main.py").is_file() and (path / "comfy").is_dir()
