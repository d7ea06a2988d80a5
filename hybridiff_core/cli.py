"""The command line: `python -m hybridiff_core devices`, `demo`, and `share` and `join` for several machines."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from . import device_report
from .demo import trained
from .demo.comparison import DemoResult, run_demo
from .demo.drawing import draw
from .demo.model import ModelConfig
from .plan import MODES, HybridPlan
from .remote import commands as remote
from .rules import PAPER_STEPS


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="hybridiff_core", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    devices = commands.add_parser("devices", help="this machine's devices, what auto would do with them, and why")
    devices.add_argument("--cuda-device", metavar="N", help="as ComfyUI is started, if it is")
    devices.add_argument("--cpu", action="store_true", help="as ComfyUI is started, if it is")
    devices.add_argument("--no-messages", action="store_true", help="start no workers")
    demo = commands.add_parser("demo", help="one image on one process and on two, and how they compare")
    demo.add_argument("prompt", nargs="?", default="red heart", help="the name of an emoji")
    demo.add_argument("--mode", choices=MODES, default="auto", help="how the two share the image (default: auto)")
    demo.add_argument("--steps", type=int, default=20)
    demo.add_argument("--k", type=int, help="how many steps the middle has; with auto, predict")
    demo.add_argument("--cfg", type=float, default=3.0)
    demo.add_argument("--seed", type=int, default=1)
    demo.add_argument("--repeats", type=int, default=3)
    demo.add_argument("--out", type=Path, default=Path("hybridiff_demo.png"), help="the figure (needs matplotlib)")
    demo.add_argument("--random", action="store_true", help="a larger random model: it draws nothing, and takes longer")
    remote.add_to(commands)
    options = parser.parse_args(arguments)
    if options.command in ("share", "join"):
        return remote.run(options, parser)
    return (show_devices if options.command == "devices" else show_demo)(options, parser)


def show_devices(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """What device_report.py finds, on standard output."""
    if options.cuda_device not in (None, "all"):  # as ComfyUI does, before torch looks for devices
        os.environ.update(dict.fromkeys(("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"), options.cuda_device))
    try:
        device_report.write(device_report.own_device(options.cpu), not options.no_messages)
    except KeyboardInterrupt:
        return 130
    return 0


def show_demo(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """The demo's figure, and its table on standard output."""
    for name in ("steps", "repeats", "k"):
        if (value := getattr(options, name)) is not None and value < 1:
            parser.error(f"--{name} is {value}; use at least 1")
    if not options.random and not trained.is_here():
        sys.stderr.write("the trained weights are only in the repository; a random model takes their place\n")
        options.random = True
    try:
        k = {} if options.k is None else {"parallel_steps": max(1, round(options.k * PAPER_STEPS / options.steps))}
        mode = "predict" if k and options.mode == "auto" else options.mode  # auto finds k by itself
        plan = HybridPlan(mode=mode, **k)
        plan.for_run(options.steps)
    except ValueError as error:
        parser.error(str(error))
    bar = _Bar(2 * options.steps * (options.repeats + 1))
    config = ModelConfig() if options.random else None
    settings = (options.prompt, options.steps, options.cfg, options.seed, options.repeats, config, plan)
    result = run_demo(*settings, tick=bar.tick)
    bar.close()
    rows = table(result, options.steps)
    print("\n".join(f"{name:15} {value:>9}   {remark}" for name, value, remark in rows))
    if result.pictures:
        try:
            draw(result, options.prompt, rows, options.out)
            print(f"the figure is {options.out}")
        except ImportError:
            print("without matplotlib there is no figure; pip install matplotlib")
    return 0


class _Bar:
    """A progress bar on standard error."""

    def __init__(self, total: int):
        self.total, self.done = total, 0

    def tick(self, what: str) -> None:
        self.done += 1
        filled = 30 * self.done // self.total
        sys.stderr.write(f"\r{'#' * filled}{'.' * (30 - filled)} {self.done}/{self.total} {what:12}")
        sys.stderr.flush()

    def close(self) -> None:
        sys.stderr.write("\n")


def table(result: DemoResult, steps: int) -> list[tuple[str, str, str]]:
    one, two = statistics.median(result.one_s), statistics.median(result.two_s)
    rows = [
        ("one device", f"{one:.2f} s", f"{1e3 * one / steps:.0f} ms a step"),
        ("two devices", f"{two:.2f} s", f"{1e3 * two / steps:.0f} ms a step, {result.wait_share:.0%} of it waiting"),
        ("speed-up", f"{result.speed_up:.2f}x", f"{result.report.mode}; an exact step's limit is 2x"),
        ("max difference", f"{result.max_difference:.1e}", "between the two pictures' latents"),
        ("bytes a step", f"{result.bytes_per_step}", "both directions together"),
    ]
    if result.psnr is not None:
        rows.insert(3, ("PSNR", f"{result.psnr:.1f} dB", "of the second picture against the first (120: identical)"))
    return rows
