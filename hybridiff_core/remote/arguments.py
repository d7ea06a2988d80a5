"""The arguments of `share` and `join`: what `--help` needs, without torch, psutil and Ray."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

PORT = 6399
TOKEN = "HYBRIDIFF_TOKEN"  # noqa: S105 - the variable's name


def add_to(commands: argparse._SubParsersAction) -> None:
    """The two commands' arguments."""
    share = commands.add_parser("share", help="let other machines' GPUs help this ComfyUI, and print how they join")
    share.add_argument("--address", help="the address of this machine to listen on (default: that of its network)")
    share.add_argument("--cluster", metavar="HOST:PORT", help="use this Ray cluster in the place of a new one")
    join = commands.add_parser("join", help="let this machine's GPUs help the ComfyUI of another machine")
    join.add_argument("cluster", metavar="ADDRESS", help="what `share` printed: HOST:PORT")
    join.add_argument("--comfyui", type=Path, help="this machine's ComfyUI")
    join.add_argument("--base-directory", type=Path, help="as ComfyUI is started, if it is: where its models are")
    join.add_argument("--name", help="how this machine is called in lists (default: its own name)")
    join.add_argument("--address", help="the address of this machine to listen on (default: that towards ADDRESS)")
    for command in (share, join):
        command.add_argument("--port", type=int, default=PORT, help=f"the first of the ports used (default: {PORT})")
        command.set_defaults(run=partial(_run, command), needs=("psutil", "ray"))
        command.add_argument("--token", help=f"better in the variable {TOKEN}, or typed when asked: lists of processes "
                             "show command lines")  # fmt: skip


def _run(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    from . import commands

    return commands.run(options, parser)
