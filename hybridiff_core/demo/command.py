"""The command `demo`: what is checked before it runs, and what is said of it."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import psutil

from ..plan import HybridPlan
from ..rules import PAPER_STEPS
from ..schedule import Work
from ..workers.watch import WorkerLost
from . import captions, trained
from .comparison import DemoResult, run_demo
from .model import ModelConfig

LIMITS = {"steps": (1, 1000), "repeats": (1, 100), "pictures": (1, 64), "k": (1, 1000), "seed": (0, 2**64 - 1)}
MOST_CFG = 30.0
BUSY = 0.25  # the part of the processors that other programs use, from which the times say little
SAME, CLOSE, SIMILAR = 100.0, 40.0, 30.0  # dB


def run(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Check, draw, and say what came of it; gives the exit status."""
    if options.captions:
        print("\n".join(captions.CAPTIONS))
        return 0
    options.prompt = " ".join(options.prompt)
    plan = checked(options, parser)
    print("\n".join(introduction(options)) + "\n")
    bar = _Bar(2 * options.steps * (options.repeats + 1))
    config = ModelConfig() if options.random else None
    settings = (options.prompt, options.steps, options.cfg, options.seed, options.repeats, config, plan)
    try:
        result = run_demo(*settings, tick=bar.tick, count=options.pictures)
    except (WorkerLost, RuntimeError) as error:
        sys.stderr.write(f"\nhybridiff: the second process failed: {error}\n")
        return 1
    finally:
        bar.close()
    rows = table(result, options.steps)
    print("\n".join(f"{name:21}{value:>9}   {remark}".rstrip() for name, value, remark in rows))
    for line in result.report.lines:
        print(f"- {line}")
    if result.pictures:
        from .drawing import draw

        try:
            draw(result, options.prompt, options.out)
        except OSError as error:
            sys.stderr.write(f"hybridiff: the figure could not be written: {error}\n")
            return 1
        print(f"The figure is {options.out}")
    return 0


def checked(options: argparse.Namespace, parser: argparse.ArgumentParser) -> HybridPlan:
    """The plan; ends with a message where something asked for cannot be done."""
    for name, (low, high) in LIMITS.items():
        value = getattr(options, name)
        if value is not None and not low <= value <= high:
            parser.error(f"--{name} is {value}; use {low} to {high}")
    if not 1.0 < options.cfg <= MOST_CFG:  # nor is NaN
        parser.error(f"--cfg is {options.cfg:g}; use more than 1, to {MOST_CFG:g}: at 1 this model is not shared")
    if options.k is not None and options.mode == "exact":
        parser.error("--k has no use in exact, in which no step costs less; choose another --mode")
    if not options.random and not trained.is_here():
        sys.stderr.write("The trained weights are in the repository only; a random model takes their place.\n")
        options.random = True
    if not options.random:
        try:
            captions.remark(options.prompt)
            _try_to_write(options.out)
        except (ValueError, OSError) as error:
            parser.error(str(error))
    try:
        k = {} if options.k is None else {"parallel_steps": max(1, round(options.k * PAPER_STEPS / options.steps))}
        mode = "predict" if k and options.mode == "auto" else options.mode  # auto finds k by itself
        plan = HybridPlan(mode=mode, **k)
        plan.for_run(options.steps)
    except ValueError as error:
        parser.error(str(error))
    return plan


def _try_to_write(path: Path) -> None:
    """Raises ValueError or OSError where the figure cannot be written: better now than after the run."""
    if path.suffix.lower() != ".png":
        raise ValueError(f"--out is {path}; the figure is a PNG, so use a name that ends in .png")
    there = path.exists()
    try:
        path.open("ab").close()
    except OSError as error:
        raise OSError(f"--out is {path}, which cannot be written: {error.strerror}") from error
    if not there:
        path.unlink()


def introduction(options: argparse.Namespace) -> list[str]:
    """What is about to happen, and what a reader of its times should know."""
    pinned = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if pinned else psutil.cpu_count()
    each = f"with one {'core' if pinned else 'thread'} each" if cores != 1 else "and take turns on its one core"
    several = f", {options.pictures} at once" if options.pictures > 1 else ""
    what = "A random network" if options.random else f'A small trained model draws "{options.prompt}"{several}'
    said = [
        f"{what}: first one process computes each step, then two share it, in mode {options.mode}.",
        f"Both are on this computer's CPU, {each}; no GPU is used.",
    ]
    if not options.random and (remark := captions.remark(options.prompt)):
        said.append(remark)
    if cores == 1:
        said.append("So two cannot be faster than one here.")
    elif (busy := psutil.cpu_percent(0.3) / 100) > BUSY:
        said.append(f"Other programs use {busy:.0%} of the CPU now: expect less speed than two free cores give.")
    return said


class _Bar:
    """A progress bar on standard error, where that is a terminal."""

    def __init__(self, total: int):
        self.total, self.done, self.shown = total, 0, sys.stderr.isatty()

    def tick(self, what: str) -> None:
        self.done += 1
        if self.shown:
            filled = 30 * self.done // self.total
            sys.stderr.write(f"\r{'#' * filled}{'.' * (30 - filled)} {self.done}/{self.total} {what:14}")
            sys.stderr.flush()

    def close(self) -> None:
        if self.shown:
            sys.stderr.write("\n")


def table(result: DemoResult, steps: int) -> list[tuple[str, str, str]]:
    """Rows of name, value and remark. Times are those of the repetition in the middle."""
    pair = result.median
    rows = [
        ("one process", f"{pair.one_s:.2f} s", f"{1e3 * pair.one_s / steps:.0f} ms a step"),
        (
            "two processes",
            f"{pair.two_s:.2f} s",
            f"{1e3 * pair.two_s / steps:.0f} ms a step, {result.wait_share:.0%} of it waiting",
        ),
        ("speed-up", f"{pair.speed_up:.2f}x", _beside_the_bound(result)),
        (
            "largest difference",
            f"{result.max_difference:.1e}" if result.max_difference else "none",
            "of any value of the two latents",
        ),
        ("sent each step", f"{result.bytes_per_step / 1024:.0f} KiB", "both ways, mean of all steps"),
    ]
    if result.psnr is not None:
        alike = "no difference" if result.psnr >= SAME else f"{result.psnr:.1f} dB"
        rows.insert(3, ("second against first", alike, verdict(result.psnr)))
    return rows


def bound(result: DemoResult) -> float | None:
    """What arithmetic allows two devices for the steps that were computed; None where parts of steps were."""
    works = [step.work for step in result.report.steps]
    exact, predicted = works.count(Work.EXACT.value), works.count(Work.PREDICTED.value)
    return None if exact + predicted < len(works) else 2 * len(works) / exact


def _beside_the_bound(result: DemoResult) -> str:
    most = bound(result)
    measured = "measured" + (f", the middle one of {len(result.pairs)}" if len(result.pairs) > 1 else "")
    if most is None:
        return measured
    if result.median.speed_up > most:
        return f"{measured}; beyond {most:.2f}x, which is the most that is real, it is chance"
    return f"{measured}; {most:.2f}x at most"


def verdict(psnr: float) -> str:
    """A PSNR of the second's pictures against the first's, in words."""
    if psnr >= SAME:
        return "the same, to rounding"
    if psnr >= CLOSE:
        return "practically the same (PSNR)"
    return "close (PSNR)" if psnr >= SIMILAR else "visibly another (PSNR)"
