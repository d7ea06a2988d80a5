"""Hybridiff's commands: `devices` and `demo` for this machine, `share` and `join` for several machines."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from .plan import MODES
from .remote import arguments as remote

CORE = ("torch", "numpy", "psutil")  # the packages that commands need


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; gives its exit status. What needs PyTorch is imported by the command that needs it."""
    parser = argparse.ArgumentParser(prog="hybridiff", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    add_devices(commands)
    add_demo(commands)
    remote.add_to(commands)
    options = parser.parse_args(arguments)
    try:
        return options.run(options)
    except ModuleNotFoundError:
        modules = {name: "PIL" if name == "pillow" else name for name in options.needs}
        missing = [name for name, module in modules.items() if importlib.util.find_spec(module) is None]
        if not missing:
            raise
        sys.stderr.write(f"hybridiff: this Python has no {', '.join(missing)}; pip install {' '.join(missing)}\n")
        return 1
    except BrokenPipeError:  # what reads the output has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nhybridiff: interrupted\n")
        return 130


def add_devices(commands: argparse._SubParsersAction) -> None:
    about = "this machine's devices, what auto does with each and why, and how quickly a worker there answers"
    devices = commands.add_parser("devices", help=about, description=about)
    devices.add_argument("--cuda-device", metavar="N", help="as ComfyUI is started, if it is")
    devices.add_argument("--cpu", action="store_true", help="as ComfyUI is started, if it is")
    devices.add_argument("--no-messages", action="store_true", help="start no workers")
    devices.set_defaults(run=show_devices, needs=CORE)


def show_devices(options: argparse.Namespace) -> int:
    """What device_report.py finds, on standard output."""
    if options.cuda_device not in (None, "all"):  # as ComfyUI does, before torch looks for devices
        os.environ.update(dict.fromkeys(("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"), options.cuda_device))
    from . import device_report

    device_report.write(device_report.own_device(options.cpu), not options.no_messages)
    return 0


def add_demo(commands: argparse._SubParsersAction) -> None:
    about = "small pictures by one process and by two, on this computer's CPU, and how they compare"
    demo = commands.add_parser("demo", help=about, description=about)
    demo.add_argument("prompt", nargs="*", default=["strawberry"], help="an emoji's name in words (see --captions)")
    demo.add_argument("--captions", action="store_true", help="list what the model knows how to draw, and end")
    demo.add_argument("--mode", choices=MODES, default="exact", help="how the two share the picture (default: exact)")
    demo.add_argument("--steps", type=int, default=20, metavar="N")
    demo.add_argument("--k", type=int, metavar="N", help="how many steps cost less, in the other modes")
    demo.add_argument("--cfg", type=float, default=3.0, metavar="X")
    demo.add_argument("--seed", type=int, default=1, metavar="N")
    demo.add_argument("--pictures", type=int, default=4, metavar="N", help="how many are drawn at once (default: 4)")
    demo.add_argument("--repeats", type=int, default=3, metavar="N", help="how often both are timed (default: 3)")
    demo.add_argument("--out", type=Path, default=Path("hybridiff_demo.png"), metavar="FILE", help="the figure, a PNG")
    demo.add_argument("--random", action="store_true", help="a larger random model: it draws nothing, and takes longer")
    demo.set_defaults(run=lambda options: show_demo(options, demo), needs=(*CORE, "safetensors", "pillow"))


def show_demo(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """The demo's table on standard output, and its figure."""
    from .demo import command

    return command.run(options, parser)
