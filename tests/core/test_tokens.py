"""Forwards that several devices divide by tokens: exact, and whatever happens to one of them nobody waits for it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch

from hybridiff_core.call import Call
from hybridiff_core.demo.demo_backend import DemoBackend
from hybridiff_core.demo.model import ModelConfig, words_to_context
from hybridiff_core.network.tokens import SHARES, Look
from hybridiff_core.share import Unit
from hybridiff_core.token_group import TokenGroup
from hybridiff_core.workers import launch_local
from hybridiff_core.workers.devices import Place
from hybridiff_core.workers.pool import Pool

CPU = torch.device("cpu")
SMALL = {"size": 14, "width": 32, "depth": 3, "heads": 2}  # 49 tokens
CONDS = [words_to_context(text, ModelConfig(**SMALL)) for text in ("a cat", "", "a dog")]
X = torch.randn(2, 4, 14, 14, generator=torch.Generator().manual_seed(0))
SIGMA = torch.tensor([0.7, 0.4])
UNITS = [Unit(0, 0), Unit(1, 0)]
EXACT = 1e-6
NOTICED_S = 2.0
# uneven, and where there are three or more, one has nothing at all
BOUNDS = {1: (0, SHARES), 2: (0, 1500, SHARES), 3: (0, 1000, 1010, SHARES), 4: (0, 900, 1300, 3000, SHARES)}
needs_signals = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="there is no signal that stops a process")


def scripted(monkeypatch_session):
    monkeypatch_session.setitem(launch_local.SCRIPTS, "tokens", Path(__file__).with_name("tokens_worker.py"))


class Bench:
    """Workers that are kept from test to test, those that were lost replaced."""

    def __init__(self):
        self.pool = Pool("tokens", lambda place: {"threads": 1})
        self.local = DemoBackend({"device": "cpu"})
        self.local.load({"config": SMALL})
        self.local.begin({"conds": CONDS}, fresh=True)
        self.leases = []

    def workers(self, count, **fault):
        """`fault` is of the worker with that number: w1=("SIGKILL", 0)."""
        for i in range(count):
            self.leases.append(self.pool.prepare(Place(f"cpu#{i}", f"cpu {i}", "cpu"), CPU, {"config": SMALL}))
        exchanges = [lease.ready(lambda: None) for lease in self.leases]
        for i, exchange in enumerate(exchanges):
            exchange.begin({"conds": CONDS})
            exchange.submit(X, SIGMA, UNITS)  # so that it is warm
            exchange.collect()
            if f"w{i}" in fault:
                exchange.renew({"conds": CONDS, "fault": fault[f"w{i}"]})
        return exchanges

    def release(self):
        while self.leases:
            lease = self.leases.pop()
            lease.exchange.end()
            self.pool.release(lease)

    def here(self, units, through=None, rows=None):
        predictions = self.local.predict(X, SIGMA, [(unit.branch, unit.index) for unit in units], through, rows)
        return {unit.branch: prediction for unit, prediction in zip(units, predictions)}

    def call(self, units=UNITS, here=None):
        return Call(X, SIGMA, list(units), here or self.here, None)

    def form(self):
        look = Look()
        self.here(UNITS[:1], look)
        return look.form

    def step(self, group, units=UNITS, here=None, halves=1):
        """A call by `group`: the predictions' units and the largest difference to whole forwards."""
        call = self.call(units, here)
        with torch.inference_mode():
            group.submit(call, units, self.form(), BOUNDS[len(group.devices)], halves)
            parts = group.own(call)
            for _, answer in group.collect():
                parts += answer.parts
            return self.off(parts)

    def off(self, parts):
        whole = self.here([unit for piece in parts for unit in piece.units])
        return max((prediction - whole[unit.branch]).abs().max().item() for (unit,), prediction, _ in parts), [
            unit for (unit,), _, _ in parts
        ]


@pytest.fixture(scope="module")
def made():
    launch_local.SCRIPTS["tokens"] = Path(__file__).with_name("tokens_worker.py")
    bench = Bench()
    yield bench
    bench.pool.close()
    del launch_local.SCRIPTS["tokens"]


@pytest.fixture
def bench(made):
    yield made
    made.release()


@pytest.mark.parametrize("halves", [1, 2])
@pytest.mark.parametrize("here", [True, False], ids=["with this process", "workers alone"])
@pytest.mark.parametrize("count", [2, 3])
def test_a_divided_forward_is_the_whole_one(bench, count, here, halves):
    workers = bench.workers(count - here)
    group = TokenGroup([*[None] * here, *workers], CPU)
    for _ in range(2):
        off, units = bench.step(group, halves=halves)
        assert off <= EXACT and units == UNITS
    group.abandon()
