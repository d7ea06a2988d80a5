"""The gain that is shown, beside the clock's: real runs over real worker processes whose devices take a known time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from hybridiff_core.demo.model import sigmas
from hybridiff_core.engine import Engine
from hybridiff_core.gain import gain_of
from hybridiff_core.plan import HybridPlan
from hybridiff_core.report import RunReport
from hybridiff_core.setting import Setting
from hybridiff_core.share import Unit
from hybridiff_core.workers import launch_local
from hybridiff_core.workers.pool import Pool

from ..tiers import full
from .demo_workers import CPU, PLACES, Demo, here_with

EACH_S = 0.2  # that this process's device takes for a unit; the network itself takes a hundredth of it
DEMO = Demo(size=16, width=32, depth=1, heads=2)
NOISE = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
PREDICTED = {"mode": "predict", "warmup": "fixed", "start_step": 4, "parallel_steps": 8}
OFF = 0.05  # of the clock's: as far as the number may be
TRIES = 3  # another program on the cores is in one of both runs only


@pytest.fixture
def helper(monkeypatch):
    """Makes workers that take so many times EACH_S for a call: helper(1.5), ready for steps; what they do is real."""
    monkeypatch.setitem(launch_local.SCRIPTS, "timed", Path(__file__).with_name("failing_worker.py"))
    pools = []

    def make(times: float, place=PLACES[0]):
        pool = Pool("timed", lambda place: {"threads": 1, "fault": str(times * EACH_S)})
        pools.append(pool)
        exchange = pool.prepare(place, CPU, {"config": DEMO.config}).ready(lambda: None)
        exchange.begin({"conds": DEMO.conds})
        return exchange

    yield make
    for pool in pools:
        pool.close()


def run(plan: dict, steps: int, exchanges=(), come=None, branches: int = 2) -> dict:
    """A run's report; `exchanges` are there from the first step on, `come` gets ready before a step."""
    local, levels = DEMO.local(), sigmas(steps)
    report = RunReport(plan.get("mode", "exact"), ["cuda:0"], total=steps)
    setting = Setting(HybridPlan(**plan), levels.tolist(), time=float, name="demo")
    engine = Engine(list(exchanges), report, setting)
    report.devices[1:] = [f"cuda:{place}" for place in range(1, len(exchanges) + 1)]

    def here(sigma):
        computing = here_with(local, NOISE, sigma)

        def timed(units, through=None, rows=None):
            time.sleep(EACH_S * len(units))
            return computing(units, through, rows)

        return timed

    with torch.inference_mode():
        for step in range(steps):
            for exchange in (come or {}).get(step, ()):
                engine.welcome(exchange)
            sigma, units = levels[step].expand(1), [Unit(branch, 0) for branch in range(branches)]
            since = time.perf_counter()
            engine.step(NOISE, sigma, units, here(sigma), lambda units: None)
            report.steps[-1].seconds = time.perf_counter() - since
    report.end(finished=True)
    named = [f"cuda:{place}" for place in range(len(report.devices))]
    return report.to_dict() | {"devices": named}


EXACT = {"mode": "exact"}
KINDS = [
    pytest.param(EXACT, 8, [1.0], {}, 2, id="exact"),
    full(EXACT, 4, [1.0], {}, 2, id="few steps"),
    full(EXACT, 20, [1.0], {}, 2, id="many steps"),
    full(EXACT, 8, [0.7], {}, 2, id="a faster helper"),
    pytest.param(EXACT, 8, [1.5], {}, 2, id="a slower helper"),
    full(EXACT, 8, [1.0, 1.0], {}, 3, id="three devices"),
    full(EXACT, 12, [], {5: 1.0}, 2, id="a helper that comes later"),
    pytest.param(PREDICTED, 16, [1.0], {}, 2, id="predicted"),
    full(PREDICTED, 16, [], {}, 2, id="predicted on one device"),
    full(EXACT, 8, [], {}, 2, id="one device"),
]


@pytest.mark.parametrize("plan, steps, helpers, later, branches", KINDS)
def test_the_gain_is_the_clocks(helper, plan, steps, helpers, later, branches):
    exchanges = [helper(times, PLACES[place]) for place, times in enumerate(helpers)]
    come = {step: [helper(times)] for step, times in later.items()}
    for _ in range(1 if come else TRIES):  # a worker comes only once
        alone = run(EXACT, steps, branches=branches)
        report = run(plan, steps, exchanges, come, branches)
        gain, by_clock = gain_of(report), alone["seconds"] / report["seconds"]
        print(f"shown {gain.times:.3f}, by the clock {by_clock:.3f}")
        assert gain.measured == (not helpers)
        computed = sum(record["work"] == "exact" for record in report["steps"])
        assert gain.times <= len(report["devices"]) * steps / computed
        if gain.times == pytest.approx(by_clock, rel=OFF):
            return
    raise AssertionError(f"{gain} was shown, {by_clock:.3f} by the clock")
