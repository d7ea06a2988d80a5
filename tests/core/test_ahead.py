"""A call that a worker computes before it is asked for (hybridiff_core/ahead.py), over a real process."""

from __future__ import annotations

import os
import signal
import time

import pytest
import torch

from hybridiff_core.ahead import Ahead
from hybridiff_core.call import Call
from hybridiff_core.demo.model import sigmas
from hybridiff_core.handshake import Handshake
from hybridiff_core.newcomers import TRIALS
from hybridiff_core.paces import Paces
from hybridiff_core.plan import HybridPlan
from hybridiff_core.report import RunReport
from hybridiff_core.setting import Setting
from hybridiff_core.share import Unit

from .demo_workers import Demo, here_with

STEPS = 8
DEMO = Demo(size=32, width=128, depth=4, heads=4)
UNITS = [Unit(0, 0)]


@pytest.fixture(scope="module")
def local():
    return DEMO.local()


class Run:
    """STEPS steps, in each of which another model's call comes first: `first` is that one, given the step.

    `asked` gives the x of the call that is asked for, by the step and the x of the first one; None for no call.
    """

    def __init__(
        self, local, exchange, paces=None, first=lambda step: None, asked=lambda step, x: x, before=lambda ahead: None
    ):
        self.report, levels = RunReport("exact", ["here"]), sigmas(STEPS)
        setting = Setting(HybridPlan(mode="exact"), levels.tolist(), name="demo")
        ahead = Ahead(self.report, Handshake(setting), paces, "demo", lambda: None)
        ahead.meet(exchange)
        self.computed = []
        generator = torch.Generator().manual_seed(0)
        with torch.inference_mode():
            for step in range(STEPS):
                x, sigma = torch.randn(1, 4, 32, 32, generator=generator), levels[step].expand(1)
                ahead.begin(x, sigma)
                record = self.report.open_step(float(sigma), [UNITS])
                for _ in range(3):  # a larger model
                    here_with(local, x, sigma)(UNITS)
                first(step)
                if (given := asked(step, x)) is None:
                    continue
                before(ahead)
                mine = []
                call = Call(given, sigma, UNITS, here_with(local, given, sigma, mine), None)
                done = ahead.predict(call, record)
                ahead.expect(UNITS)
                exact = here_with(local, given, sigma)(UNITS)
                assert (done[0] - exact[0]).abs().max() < 1e-5, step
                self.computed.append(len(mine))

    @property
    def helpers(self):
        return [record.helpers for record in self.report.steps]


def until_answered(ahead):
    deadline = time.perf_counter() + 30.0
    while ahead.exchange and ahead._given and not ahead.exchange.answered():
        assert time.perf_counter() < deadline
        time.sleep(0.001)


def test_from_the_second_call_on_its_results_are_used(pool, local):
    exchange = DEMO.worker(pool)[1]
    run = Run(local, exchange)
    # the first shows what is asked for, the second is compared, and one in the second half once more
    assert run.helpers == [0, *[1] * (STEPS - 1)] and run.computed == [1, 1, 0, 0, 1, 0, 0, 0]
    assert run.report.devices == ["here", "cpu (process 2)"] and run.report.lines == []
    assert all(record.conds == [1, 1] for record in run.report.steps[1:])
    assert [record.share for record in run.report.steps] == [None, 1.0, 0.5, 0.5, 1.0, 0.5, 0.5, 0.5]
    assert Run(local, exchange).helpers == [0, *[1] * (STEPS - 1)]


def test_what_was_computed_for_another_x_is_not_used(pool, local):
    exchange = DEMO.worker(pool)[1]
    run = Run(local, exchange, asked=lambda step, x: x + 1e-3 * (step % 2), before=until_answered)
    assert run.helpers == [0, 0, 1, 0, 1, 0, 1, 0]


def test_x_that_changes_in_place_is_another_x(pool, local):
    run = Run(local, DEMO.worker(pool)[1], asked=lambda step, x: x.mul_(0.9))
    assert not any(run.helpers)


def test_a_call_that_does_not_come_is_waited_for_by_nobody(pool, local):
    run = Run(local, DEMO.worker(pool)[1], asked=lambda step, x: x if step < 5 else None)
    assert run.helpers[:5] == [0, 1, 1, 1, 1] and not any(run.helpers[5:])


def test_a_worker_with_another_network_is_left_out(pool, local):
    exchange = DEMO.worker(pool, heads=8)[1]
    run = Run(local, exchange)
    assert not any(run.helpers) and run.computed == [1] * STEPS
    assert run.report.lines[0].startswith("cpu (process 2) is left out: it made another picture (off by ")


def test_a_worker_that_dies_is_said_and_the_run_goes_on(pool, local):
    lease, exchange = DEMO.worker(pool)

    def first(step):
        if step == 6:
            os.kill(exchange.process.pid, signal.SIGKILL)

    run = Run(local, exchange, first=first)
    assert run.helpers[:4] == [0, 1, 1, 1] and run.helpers[7] == 0  # what it was done with before still counts
    (line,) = run.report.lines
    assert line.endswith("this process took over and finished the picture")
    pool.release(lease)


def test_nobody_waits_for_one_that_takes_longer_than_both_calls_here(pool, local):
    exchange = DEMO.worker(pool)[1]
    collect, paces = exchange.collect, Paces()

    def slow(check):
        answer = collect(check)
        return type(answer)(answer.parts, 60.0, *tuple(vars(answer).values())[2:])

    exchange.collect = slow
    run = Run(local, exchange, paces=paces, before=until_answered)
    (line,) = run.report.lines
    assert "cpu (process 2) is left out: it takes " in line and sum(run.helpers) <= TRIALS
    del exchange.collect
    run = Run(local, exchange, paces=Paces(), before=until_answered)
    assert run.helpers == [0, *[1] * (STEPS - 1)] and not run.report.lines


def test_an_answer_that_came_too_late_is_compared_all_the_same(pool, local):
    """The other model's call is the longer one: it is computed here too, and the answer comes after that."""
    exchange = DEMO.worker(pool)[1]
    answered, since = exchange.answered, {}

    def later():  # not before it is asked for the second time
        since[exchange.steps.answers] = since.get(exchange.steps.answers, 0) + 1
        return since[exchange.steps.answers] > 1 and answered()

    exchange.answered = later
    run = Run(local, exchange, paces=Paces(), before=lambda ahead: until_answered(ahead) if ahead._lane else None)
    assert sum(run.helpers) >= 3 and run.helpers[:2] == [0, 0], (run.helpers, run.report.lines)
    assert any("joined at step" in line for line in run.report.lines)
