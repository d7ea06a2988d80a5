"""The demo: one image on one process, then on two, and what came of it."""

from __future__ import annotations

import dataclasses
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from ..devices import Place
from ..engine import Engine, Here
from ..pool import Pool
from ..report import RunReport
from ..share import Unit
from ..split import Pass
from .backend import DemoBackend
from .model import ModelConfig, sample_euler, sigmas, words_to_context

UNITS = [Unit(branch=0, index=0), Unit(branch=1, index=0)]


@dataclass(frozen=True)
class DemoResult:
    """Seconds and speed-ups are lists, one entry a repetition; `bytes_per_step` both ways together."""

    one_s: list[float]
    two_s: list[float]
    max_difference: float
    bytes_per_step: int
    wait_share: float
    report: RunReport

    @property
    def speed_up(self) -> float:
        return statistics.median(one / two for one, two in zip(self.one_s, self.two_s))


def run_demo(
    prompt: str,
    steps: int = 20,
    cfg: float = 5.0,
    seed: int = 0,
    repeats: int = 3,
    config: ModelConfig | None = None,
    tick: Callable[[str], None] = lambda what: None,
) -> DemoResult:
    """Denoise the same noise with one process and with two, `repeats` times in turns.

    One thread a process, each on a core of its own where the system lets it choose. `tick` is
    called with the name of the run at every step. Raises WorkerLost when the second process fails.
    """
    config = config or ModelConfig()
    noise = torch.randn(1, config.channels, config.size, config.size, generator=torch.Generator().manual_seed(seed))
    conds = [words_to_context(prompt, config), words_to_context("", config)]
    one_s, two_s, report = [], [], None
    with _one_core() as other_core, torch.inference_mode():
        here = DemoBackend({"device": "cpu"})
        here.load({"config": dataclasses.asdict(config)})
        here.begin({"conds": conds}, fresh=True)
        pool = Pool("demo", lambda place: {"threads": 1, "cpus": other_core})
        try:
            place = Place("cpu#0", "cpu (process 2)", "cpu")
            recipe = {"config": dataclasses.asdict(config)}
            lease = pool.prepare(place, torch.device("cpu"), recipe)
            exchange = lease.ready(lambda: None)
            exchange.begin({"conds": conds})

            def at(x: torch.Tensor, sigma: torch.Tensor) -> Here:
                def predict_here(units: list[Unit], through: Pass | None = None) -> dict[int, torch.Tensor]:
                    predictions = here.predict(x, sigma, [(unit.branch, unit.index) for unit in units], through)
                    return {unit.branch: prediction for unit, prediction in zip(units, predictions)}

                return predict_here

            def sample(engine: Engine, name: str) -> torch.Tensor:
                def predict(x: torch.Tensor, sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
                    done = engine.step(x, sigma, UNITS, at(x, sigma), _no_weight)
                    tick(name)
                    return done[0], done[1]

                return sample_euler(predict, noise, sigmas(steps), cfg)

            difference = 0.0
            for repeat in range(repeats + 1):
                alone = Engine([], RunReport("exact", ["cpu"]))
                report = RunReport("exact", ["cpu", place.label])
                times, images = [], []
                for engine, name in ((alone, "one device"), (Engine([exchange], report), "two devices")):
                    started = time.perf_counter()
                    images.append(sample(engine, name))
                    times.append(time.perf_counter() - started)
                difference = max(difference, (images[0] - images[1]).abs().max().item())
                if repeat:  # the first is for warming up
                    one_s.append(times[0])
                    two_s.append(times[1])
            if report.lines:
                raise RuntimeError(report.lines[0])
        finally:
            pool.close()
    return DemoResult(
        one_s,
        two_s,
        difference,
        statistics.median_high(step.bytes_sent + step.bytes_received for step in report.steps),
        sum(step.wait_s for step in report.steps) / two_s[-1],
        report,
    )


def _no_weight(units: list[Unit]) -> torch.Tensor:
    raise AssertionError("a branch of one cond is never taken apart")


@contextmanager
def _one_core() -> Iterator[list[int] | None]:
    """One thread and one core for this process; gives the core left for the other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    try:
        if len(cores) > 1:
            os.sched_setaffinity(0, cores[:1])
        yield cores[1:2] or None
    finally:
        torch.set_num_threads(threads)
        if len(cores) > 1:
            os.sched_setaffinity(0, cores)
