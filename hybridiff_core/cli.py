"""The command line: `python -m hybridiff_core demo`."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence

from .demo.run import DemoResult, run_demo


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="hybridiff_core", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="one image on one process and on two, with a small random model")
    demo.add_argument("prompt", nargs="?", default="a red heart")
    demo.add_argument("--steps", type=int, default=20)
    demo.add_argument("--cfg", type=float, default=5.0)
    demo.add_argument("--seed", type=int, default=0)
    demo.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(arguments)
    for name in ("steps", "repeats"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} is {getattr(options, name)}; use at least 1")
    bar = _Bar(2 * options.steps * (options.repeats + 1))
    result = run_demo(options.prompt, options.steps, options.cfg, options.seed, options.repeats, tick=bar.tick)
    bar.close()
    print(table(result, options.steps))
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


def table(result: DemoResult, steps: int) -> str:
    one, two = statistics.median(result.one_s), statistics.median(result.two_s)
    rows = [
        ("one device", f"{one:.2f} s", f"{1e3 * one / steps:.0f} ms a step"),
        ("two devices", f"{two:.2f} s", f"{1e3 * two / steps:.0f} ms a step, {result.wait_share:.0%} of it waiting"),
        ("speed-up", f"{result.speed_up:.2f}x", "the exact split's limit is 2x"),
        ("max difference", f"{result.max_difference:.1e}", "between the two pictures' latents"),
        ("bytes a step", f"{result.bytes_per_step}", "both directions together"),
    ]
    return "\n".join(f"{name:15} {value:>9}   {remark}" for name, value, remark in rows)
