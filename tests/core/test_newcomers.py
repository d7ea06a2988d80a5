"""Workers that get ready while a run goes on, and ones that compute something else, over real processes."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
import torch

from hybridiff_core.demo.model import sigmas
from hybridiff_core.engine import Engine
from hybridiff_core.paces import LEFT_OUT_RUNS, Paces
from hybridiff_core.plan import HybridPlan
from hybridiff_core.report import RunReport
from hybridiff_core.setting import Setting
from hybridiff_core.share import Unit

from .demo_workers import PLACES, Demo, here_with, mixing

STEPS = 12
DEMO = Demo(size=32, width=128, depth=6, heads=4)
CONDS = DEMO.conds
UNITS = [Unit(0, 0), Unit(1, 0)]
NOISE = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def local():
    return DEMO.local()


def exchange_of(pool, place=PLACES[0], **changed):
    return DEMO.worker(pool, place, **changed)[1]


class Run:
    """A run of STEPS exact steps; `come` are the workers that get ready before a step.

    Without `paces` all count as equal; `mixes` is of demo_workers.mixing.
    """

    def __init__(self, local, come, units=UNITS, paces=None, pause=lambda step: None, name="demo", mixes=0.0):
        self.report = RunReport("exact", ["here"])
        plan, levels = HybridPlan(mode="exact"), sigmas(STEPS)
        self.engine = Engine([], self.report, Setting(plan, levels.tolist(), name=name, paces=paces))
        self.computed = []
        with torch.inference_mode():
            for step in range(STEPS):
                for exchange in come.get(step, ()):
                    self.engine.welcome(exchange)
                mine = []
                sigma = levels[step].expand(1)
                here = mixing(here_with(local, NOISE, sigma, mine), NOISE, mixes)
                done = self.engine.step(NOISE, sigma, units, here, lambda units: None)
                exact = mixing(here_with(local, NOISE, sigma), NOISE, mixes)(units)
                assert all((done[branch] - of).abs().max() < 1e-5 for branch, of in exact.items())
                self.computed.append(len(mine))
                pause(step)
        for exchange in (exchange for of_step in come.values() for exchange in of_step):
            if exchange.alive():
                exchange.drain()
                exchange.end()

    @property
    def shared(self) -> list[int]:
        return [step for step, record in enumerate(self.report.steps) if record.helpers]


def until_answered(exchanges):
    def pause(step):
        deadline = time.perf_counter() + 30.0
        while any(exchange.steps._pending and not exchange.answered() for exchange in exchanges):
            assert time.perf_counter() < deadline
            time.sleep(0.001)

    return pause


def test_a_worker_joins_after_a_trial_that_nobody_waits_for(pool, local):
    exchange = exchange_of(pool)
    run = Run(local, {3: [exchange]}, pause=until_answered([exchange]))
    # the trial is of step 3, which is computed here too; the second half has one more comparison
    assert run.shared == list(range(4, STEPS))
    assert run.computed == [2, 2, 2, 2, 1, 1, 2, 1, 1, 1, 1, 1]
    assert run.report.devices == ["here", "cpu (process 2)"]
    assert run.report.lines == ["cpu (process 2) joined at step 5 of 12, when it was ready"]


def test_a_worker_that_was_compared_before_has_its_part_from_the_first_step_on(pool, local):
    exchange = exchange_of(pool)
    Run(local, {0: [exchange]}, pause=until_answered([exchange]))
    exchange.begin({"conds": CONDS})
    run = Run(local, {0: [exchange]})
    assert run.shared == list(range(STEPS)) and run.computed == [1] * STEPS and not run.report.lines
    exchange.begin({"conds": CONDS})
    assert Run(local, {0: [exchange]}, name="another").computed[0] == 2  # another model is compared anew


def test_two_workers_join_one_after_the_other(pool, local):
    exchanges = [exchange_of(pool, place) for place in PLACES]
    come = {0: exchanges[:1], 4: exchanges[1:]}
    run = Run(local, come, [*UNITS, Unit(2, 0)], pause=until_answered(exchanges))
    assert [record.helpers for record in run.report.steps] == [0, 1, 1, 1, 1, *[2] * (STEPS - 5)]
    assert run.report.devices == ["here", "cpu (process 2)", "cpu (process 3)"]


@pytest.mark.parametrize("at", [0, 5])
def test_a_worker_with_another_network_is_left_out_and_the_picture_right(pool, local, at):
    exchange = exchange_of(pool, heads=8)
    run = Run(local, {at: [exchange]}, pause=until_answered([exchange]))
    assert not run.shared
    assert run.report.lines[-1].startswith("cpu (process 2) is left out: it made another picture (off by ")


@pytest.mark.parametrize("paces", [None, Paces()])
def test_a_network_that_makes_something_else_of_one_prompt_alone_is_not_shared(pool, local, paces):
    exchange = exchange_of(pool)
    run = Run(local, {1: [exchange]}, paces=paces, pause=until_answered([exchange]), mixes=0.05)
    assert not run.shared
    assert "the prompts of a step are not shared: by itself one came out differently (off by 5.26%)" in run.report.lines


def test_a_worker_whose_network_changes_in_the_run_is_found_in_its_second_half(pool, local):
    exchange = exchange_of(pool)

    def pause(step):
        until_answered([exchange])(step)
        if step == 2:
            exchange.renew({"conds": [CONDS[0], CONDS[2]]})  # as if it computed something else

    plan = HybridPlan(mode="exact")
    report, levels = RunReport("exact", ["here"]), sigmas(STEPS)
    engine = Engine([], report, Setting(plan, levels.tolist(), name="demo", paces=None))
    engine.welcome(exchange)
    with torch.inference_mode():
        for step in range(STEPS):
            sigma = levels[step].expand(1)
            engine.step(NOISE, sigma, UNITS, here_with(local, NOISE, sigma), lambda units: None)
            pause(step)
    assert [bool(record.helpers) for record in report.steps] == [False, *[True] * 5, *[False] * 6]
    assert "made another picture" in report.lines[-1]


def test_a_worker_that_dies_in_its_trial_is_said_and_the_run_goes_on(pool, local):
    exchange = exchange_of(pool)
    exchange.process.stop(0.0)
    run = Run(local, {1: [exchange]})
    assert not run.shared and "is out" in run.report.lines[0]


class Slowed:
    """A worker that computes a hundredth of the time: it is stopped, and goes on, by turns."""

    def __init__(self, exchange):
        self.pid, self.over = exchange.process.pid, threading.Event()
        self.thread = threading.Thread(target=self.turns)

    def turns(self):
        while not self.over.is_set():
            os.kill(self.pid, signal.SIGSTOP)
            time.sleep(0.2)
            os.kill(self.pid, signal.SIGCONT)
            time.sleep(0.002)

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


@pytest.mark.full  # how long a stopped process takes hangs on the system: 25 s, and once over 100
@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="a process is slowed by stopping it")
def test_a_worker_that_is_too_slow_has_no_part_and_after_two_runs_is_not_loaded_for_some(pool, local):
    exchange, paces = exchange_of(pool), Paces()
    with Slowed(exchange):
        for model in ("demo", "another", "demo"):  # for another model it may be worth it
            assert paces.skips("demo", "cpu (process 2)") is None
            run = Run(local, {0: [exchange]}, paces=paces, pause=until_answered([exchange]), name=model)
            exchange.begin({"conds": CONDS})
            assert not run.shared
            assert run.report.lines[0].startswith("cpu (process 2) is left out: it takes ")
    assert [paces.skips("demo", "cpu (process 2)") is not None for _ in range(LEFT_OUT_RUNS + 1)] == [
        *[True] * LEFT_OUT_RUNS,
        False,
    ]
