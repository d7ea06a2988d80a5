"""A measured block: its rows, and when, on what, from which seed, by which command they were measured."""

from __future__ import annotations

import datetime
import importlib.util
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import torch

RESULTS = Path(__file__).resolve().parent / "results"
Column = tuple[str, Callable[[dict], object]]  # a title, and what a row has under it


def heading(seed: int | str) -> str:
    """A line for a Markdown block; names no host."""
    memory = psutil.virtual_memory().total / 2**30
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *map(_plain, sys.argv[1:])])
    return (
        f"{datetime.date.today()}, {platform.system()} {platform.machine()}, {psutil.cpu_count()} cores, {_gpus()}, "
        f"{memory:.0f} GB, torch {torch.__version__}{_comfyui()}{_commit()}, seed {seed}: `{command}`"
    )


def _comfyui() -> str:
    """The version of the ComfyUI that this process has entered."""
    if importlib.util.find_spec("comfyui_version") is None:
        return ""
    return f", ComfyUI {importlib.import_module('comfyui_version').__version__}"


def _commit() -> str:
    """Of this package, with "+" where code of it was changed since; nothing outside a checkout."""

    def git(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(["git", *arguments], cwd=RESULTS, capture_output=True, text=True)

    told = git("rev-parse", "--short", "HEAD")
    if told.returncode:
        return ""
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/hybridiff_core", ":/nodes").stdout
    return f", commit {told.stdout.strip()}{'+' if changed.strip() else ''}"


def _plain(argument: str) -> str:
    """A command's argument; a path outside the working folder by its last part."""
    return Path(argument).name if os.path.isabs(argument) else argument


def _gpus() -> str:
    if torch.cuda.is_available():
        return " + ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    return "no GPU"


def table(rows: Sequence[dict], columns: Sequence[Column]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(title for title, _ in columns)} |", "|---" * len(columns) + "|"]
    return "\n".join([*lines, *(line(row, columns) for row in rows)])


def line(row: dict, columns: Sequence[Column]) -> str:
    return f"| {' | '.join(str(of(row)) for _, of in columns)} |"


def keep(path: Path | None, rows: list[dict], seed: int | str) -> None:
    """Write the block to `path`, if there is one."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps({"heading": heading(seed), "rows": rows}, indent=1))
        part.replace(path)


def kept(path: Path) -> dict:
    """A block that `keep` wrote: {"heading": str, "rows": list}."""
    return json.loads(path.read_text())
