"""What stands above every measured block: when, on what, from which seed, by which command."""

from __future__ import annotations

import datetime
import platform
import sys
from pathlib import Path

import psutil
import torch


def heading(seed: int) -> str:
    """A line for a Markdown block; names no host."""
    memory = psutil.virtual_memory().total / 2**30
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    return (
        f"{datetime.date.today()}, {platform.system()} {platform.machine()}, {psutil.cpu_count()} cores, "
        f"{memory:.0f} GB, torch {torch.__version__}, seed {seed}: `{command}`"
    )
