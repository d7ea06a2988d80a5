"""The demo: one image on one process, then on two, and what came of it."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from ..call import Here, Rows
from ..engine import Engine
from ..network.split import Pass, central_openings
from ..network.tokens import Look, Shard
from ..plan import HybridPlan
from ..report import RunReport
from ..setting import Setting
from ..share import Unit
from ..workers.devices import Place
from ..workers.pool import Pool
from . import text, trained
from .demo_backend import DemoBackend
from .model import ModelConfig, sample_euler, sigmas, words_to_context

OWN = "process 1"
UNITS = [Unit(branch=0, index=0), Unit(branch=1, index=0)]


@dataclass(frozen=True)
class Pair:
    """One repetition: seconds by one process and by two, and what each run did."""

    one_s: float
    two_s: float
    one: RunReport
    two: RunReport

    @property
    def speed_up(self) -> float:
        return self.one_s / self.two_s


@dataclass(frozen=True)
class DemoResult:
    """The repetitions, by rising speed-up, and the largest difference of the latents in any of them.

    `pictures` are [count, 3, height, width] in 0 to 1, by one process and by two, where the model was trained.
    """

    pairs: list[Pair]
    max_difference: float
    pictures: tuple[torch.Tensor, torch.Tensor] | None = None

    @property
    def median(self) -> Pair:
        """The repetition in the middle; of two the slower one."""
        return self.pairs[(len(self.pairs) - 1) // 2]

    @property
    def report(self) -> RunReport:
        return self.median.two

    @property
    def bytes_per_step(self) -> int:
        """Both ways together, the mean of all steps."""
        steps = self.report.steps
        return round(sum(step.bytes_sent + step.bytes_received for step in steps) / len(steps))

    @property
    def wait_share(self) -> float:
        """The part of the run by two in which this process waited."""
        return sum(step.wait_s for step in self.report.steps) / self.median.two_s

    @property
    def psnr(self) -> float | None:
        """Of the second's pictures against the first's, dB."""
        if self.pictures is None:
            return None
        one, two = self.pictures
        return -10 * torch.log10((one - two).square().mean().clamp_min(1e-12)).item()


def run_demo(
    prompt: str,
    steps: int = 20,
    cfg: float = 5.0,
    seed: int = 0,
    repeats: int = 3,
    config: ModelConfig | None = None,
    plan: HybridPlan | None = None,
    tick: Callable[[str], None] = lambda what: None,
    count: int = 1,
) -> DemoResult:
    """Denoise the same noise with one process and with two, `repeats` times in turns, the latter by `plan`.

    `count` pictures at once, from noise of their own. With a `config` the model is a random one of that
    size, without it the trained one. One thread a process, each on a core of its own where the system
    lets it choose. `tick` is called with the name of the run at every step. Raises WorkerLost when the
    second process fails.
    """
    if config is None:
        recipe, times, shape = {"trained": True}, trained.sigmas(steps), trained.LATENT
        conds = [text.encode(prompt), text.encode("")]
    else:
        recipe, times = {"config": dataclasses.asdict(config)}, sigmas(steps)
        shape = (config.channels, config.size, config.size)
        conds = [words_to_context(prompt, config), words_to_context("", config)]
    noise = torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))
    plan = plan or HybridPlan(mode="exact")
    setting = Setting(
        plan, times.tolist(), cfg, openings=central_openings, name=str(recipe), flow=True, first_order=True
    )
    exact = dataclasses.replace(setting, plan=HybridPlan(mode="exact"))
    pairs = []
    with _one_core() as other_core, torch.inference_mode():
        here = DemoBackend({"device": "cpu"})
        here.load(recipe)
        here.begin({"conds": conds}, fresh=True)
        pool = Pool("demo", lambda place: {"threads": 1, "cpus": other_core})
        try:
            place = Place("cpu#0", "process 2", "cpu")
            lease = pool.prepare(place, torch.device("cpu"), recipe)
            exchange = lease.ready(lambda: None)
            exchange.begin({"conds": conds})

            def at(x: torch.Tensor, sigma: torch.Tensor) -> Here:
                def predict_here(
                    units: list[Unit], through: Pass | Look | Shard | None = None, rows: Rows | None = None
                ) -> dict[int, torch.Tensor]:
                    first, end, _ = rows or (0, len(x), 0)
                    asked = [(unit.branch, unit.index) for unit in units]
                    predictions = here.predict(x[first:end], sigma[first:end], asked, through, rows)
                    return {unit.branch: prediction for unit, prediction in zip(units, predictions)}

                return predict_here

            def sample(engine: Engine, name: str) -> torch.Tensor:
                def predict(x: torch.Tensor, sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
                    began = time.perf_counter()
                    done = engine.step(x, sigma, UNITS, at(x, sigma), _no_weight)
                    engine.report.steps[-1].seconds = time.perf_counter() - began
                    tick(name)
                    return done[0], done[1]

                return sample_euler(predict, noise, times, cfg)

            difference, latents = 0.0, []
            for repeat in range(repeats + 1):
                one, two = RunReport("exact", [OWN]), RunReport(plan.mode, [OWN, place.label])
                engines = Engine([], one, exact), Engine([exchange], two, setting)
                taken, latents = [], []
                for engine, name in zip(engines, ("one process", "two processes")):
                    started = time.perf_counter()
                    latents.append(sample(engine, name))
                    taken.append(time.perf_counter() - started)
                exchange.drain()
                difference = max(difference, (latents[0] - latents[1]).abs().max().item())
                if repeat:  # the first is for warming up
                    pairs.append(Pair(*taken, one, two))
            if not exchange.alive():
                raise RuntimeError(two.lines[-1])
        finally:
            pool.close()
        pictures = None
        if config is None:
            decode = trained.decoder()
            pictures = tuple(decode(latent).clamp(0, 1) for latent in latents)
    return DemoResult(sorted(pairs, key=lambda pair: pair.speed_up), difference, pictures)


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
