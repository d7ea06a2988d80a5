"""A run's exact calls over real processes: by batch items and by tokens, which way is kept, and what users are told."""

from __future__ import annotations

import dataclasses
import itertools
import re

import pytest
import torch

from hybridiff_core.engine import Engine
from hybridiff_core.paces import Paces
from hybridiff_core.plan import HybridPlan
from hybridiff_core.report import RunReport
from hybridiff_core.setting import Setting
from hybridiff_core.share import Unit, Way

from .demo_workers import PLACES, Demo, here_with, mixing

STEPS = 8
DEMO = Demo(size=32, width=128, depth=4, heads=4)
ONE, TWO = [Unit(0, 0)], [Unit(0, 0), Unit(1, 0)]


@pytest.fixture(scope="module")
def local():
    return DEMO.local()


class Run:
    """A run of STEPS exact calls, of `units`, or of each of several lists of them in turn."""

    plan, mixing = HybridPlan(mode="exact"), 0.0

    def __init__(
        self, local, exchanges, units=ONE, batch=1, paces=None, forms=None, undividable=None, check=None, own="here"
    ):
        self.report = RunReport("exact", [own])
        setting = Setting(
            self.plan, torch.linspace(1.0, 0.0, STEPS + 1).tolist(), name="demo", paces=paces,
            forms={} if forms is None else forms,
        )  # fmt: skip
        self.engine = Engine(exchanges, self.report, setting, check or (lambda: None))
        self.engine.sharing.hoped = 1 + len(exchanges)
        x = torch.randn(batch, 4, 32, 32, generator=torch.Generator().manual_seed(1))
        turns = itertools.cycle(units if isinstance(units[0], list) else [units])
        with torch.inference_mode():
            for level, units in zip(setting.sigmas[:-1], turns):
                sigma = torch.full((batch,), level)
                here = mixing(here_with(local, x, sigma), x, self.mixing)
                done = self.engine.step(x, sigma, units, here, no_weight, undividable=undividable)
                exact = here(units)
                off = max((done[u.branch] - exact[u.branch]).abs().max().item() for u in units)
                assert off < (1e-5 if self.plan.mode == "exact" else 1.0)
        self.engine.close()
        self.engine.conclude()

    @property
    def ways(self):
        return [step.way if step.helpers else "" for step in self.report.steps]


def no_weight(units):
    raise AssertionError("no branch is taken apart here")


class Mixed(Run):
    """The same of a network that puts out less, by that share, where several units are computed at once."""

    mixing = 3e-3


class MixedAuto(Mixed):
    plan = HybridPlan()


def workers(pool, count):
    return [DEMO.worker(pool, place)[1] for place in PLACES[:count]]


@pytest.mark.parametrize("count", [1, 2])
def test_one_latent_is_divided_by_tokens_once_the_network_was_looked_at(pool, local, count):
    run = Run(local, workers(pool, count))
    assert run.ways == ["", *["tokens"] * (STEPS - 1)]
    assert [step.helpers for step in run.report.steps] == [0, *[count] * (STEPS - 1)]
    assert sum(step.bytes_sent for step in run.report.steps[1:]) > 0


def test_what_the_network_showed_holds_for_later_runs(pool, local):
    forms = {}
    exchanges = workers(pool, 1)
    Run(local, exchanges, forms=forms)
    assert Run(local, exchanges, forms=forms).ways == ["tokens"] * STEPS


def test_a_batch_is_divided_by_its_items(pool, local):
    assert Run(local, workers(pool, 1), batch=4).ways == ["rows"] * STEPS


def test_a_batch_that_cannot_be_divided_is_divided_by_tokens(pool, local):
    assert set(Run(local, workers(pool, 1), batch=4, undividable="its items are frames").ways[1:]) == {"tokens"}


def test_two_branches_and_two_equal_devices_stay_whole_conds(pool, local):
    assert Run(local, workers(pool, 1), units=TWO).ways == ["conds"] * STEPS


def test_prompts_that_come_out_otherwise_by_themselves_are_not_shared(pool, local):
    forms, exchanges = {}, workers(pool, 1)
    for kind in (Mixed, Mixed, Run):  # the demo's network divided by tokens does not mix, so that is barred too
        run = kind(local, exchanges, units=TWO, forms=forms)
        assert any("the prompts of a step are not shared" in line and "0.30%" in line for line in run.report.lines)
        assert "conds" not in run.ways[1:], run.ways


def test_within_autos_tolerance_they_are(pool, local):
    run = MixedAuto(local, workers(pool, 1), units=TWO)
    assert run.ways[:4] == ["conds"] * 4 and not any("prompts of a step" in line for line in run.report.lines)


def test_where_a_worker_is_lost_in_the_first_call_this_process_makes_it_whole(pool, local):
    exchanges = workers(pool, 1)
    exchanges[0].process.stop(0.0)
    run = Mixed(local, exchanges, units=TWO)
    assert not any(run.ways) and len(run.report.lines) == 1


def test_by_the_clock_tokens_are_tried_and_what_is_said_is_possible(pool, local):
    paces, forms = Paces(), {}
    gpu = dataclasses.replace(PLACES[0], label="cuda:1 (RTX 3090, 24 GB)")
    exchanges = [DEMO.worker(pool, gpu)[1]]
    for _ in range(2):
        run = Run(local, exchanges, paces=paces, forms=forms)
    assert any(Way.TOKENS in tried.seconds for tried in paces.ways.values())
    said = [re.search(r"by parts of the image: about ([\d.]+)x", line) for line in run.report.lines]
    assert all(float(found[1]) <= 2.0 for found in said if found)


@pytest.mark.parametrize("label, own", [("cpu", "cuda:0"), ("cuda:0 (RTX 4090, 24 GB) (process 2)", "cuda:0")])
def test_nothing_is_claimed_of_a_cpu_or_of_one_device_twice(pool, local, label, own):
    paces, forms = Paces(), {}
    exchanges = [DEMO.worker(pool, dataclasses.replace(PLACES[0], label=label))[1]]
    for _ in range(2):
        run = Run(local, exchanges, paces=paces, forms=forms, own=own)
    assert any(Way.TOKENS in tried.seconds for tried in paces.ways.values())
    assert not [line for line in run.report.lines if "as fast as one" in line or "times as long here" in line]


def test_calls_that_take_turns_are_timed_like_others(pool, local):
    paces, forms = Paces(), {}
    run = Run(local, workers(pool, 1), units=[ONE, [Unit(1, 0)]], paces=paces, forms=forms)
    assert len(forms) == 2 and run.ways[:2] == ["", ""] and run.ways[2:4] == ["tokens"] * 2
    assert len(paces.ways) == 2 and all(tried.runs == 1 and tried.seconds for tried in paces.ways.values())


def test_a_divided_forward_that_is_something_else_is_not_believed(pool, local, monkeypatch):
    from hybridiff_core.network.tokens import Shard

    gather = Shard.gather
    monkeypatch.setattr(Shard, "gather", lambda self, part, dim, n: gather(self, part, dim, n).flip(dim))
    run = Run(local, workers(pool, 1))
    assert "tokens" not in run.ways[2:]
    (line,) = run.report.lines
    assert line.startswith("the image is not divided: that made another picture")


def test_an_interrupt_leaves_the_workers_usable(pool, local):
    class Interrupted(Exception):
        pass

    calls = []

    def check():
        calls.append(None)
        if len(calls) == 30:
            raise Interrupted

    exchanges = workers(pool, 1)
    try:
        Run(local, exchanges, check=check)
    except Interrupted:
        for exchange in exchanges:
            exchange.drain()
    assert Run(local, exchanges).ways[1:] == ["tokens"] * (STEPS - 1)
