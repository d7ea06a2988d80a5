"""A device that fails by itself in two runs in a row is set aside; what is not its failure does not count."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
import torch

from hybridiff_core.demo.model import ModelConfig, words_to_context
from hybridiff_core.share import Unit
from hybridiff_core.workers import launch_local, steps
from hybridiff_core.workers.devices import Place
from hybridiff_core.workers.pool import Pool
from hybridiff_core.workers.watch import WorkerLost

CPU = torch.device("cpu")
PLACE = Place("cpu#0", "cpu (process 2)", "cpu")
SMALL = {"size": 16, "width": 32, "depth": 2, "heads": 2}
CONDS = [words_to_context(text, ModelConfig(**SMALL)) for text in ("a cat", "")]
X = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
SIGMA = torch.tensor([0.7])


class Bench:
    """A pool of failing workers. `launches` counts the processes that were started."""

    def __init__(self, **start):
        self.start, self.launches = start, 0
        self.pool = Pool("failing", self._frame)

    def _frame(self, place):
        self.launches += 1
        return {"threads": 1, **self.start}

    def run(self, wish="these devices", steps=1, config=SMALL, own_s=0.0):
        """What a run does with a worker; gives why it was lost, or None."""
        lease = self.pool.prepare(PLACE, CPU, {"config": config}, wish)
        try:
            exchange = lease.ready(lambda: None)
            exchange.begin({"conds": CONDS})
            for _ in range(steps):
                exchange.submit(X, SIGMA, [Unit(1, 0)])
                time.sleep(own_s)  # this process's own part
                exchange.collect()
            exchange.end()
        except WorkerLost as error:
            return str(error)
        finally:
            self.pool.release(lease)
        return None


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.setitem(launch_local.SCRIPTS, "failing", Path(__file__).with_name("failing_worker.py"))
    made = []

    def make(**start):
        made.append(Bench(**start))
        return made[-1]

    yield make
    for one in made:
        one.pool.close()


@pytest.mark.parametrize("fault", ["no kernel image", "out of memory", "killed", "load: out of memory"])
def test_a_device_that_cannot_compute_is_tried_in_two_runs(bench, fault):
    failing = bench(fault=fault)
    reasons = [failing.run() for _ in range(6)]
    assert failing.launches == 2
    for reason in reasons[2:]:
        assert "failed in 2 runs in a row, so this device is set aside until ComfyUI is restarted" in reason


def test_another_choice_of_devices_tries_it_again(bench):
    failing = bench(fault="no kernel image")
    for _ in range(3):
        failing.run()
    assert "no kernel image" in failing.run("other devices")
    assert failing.launches == 3


def test_a_run_that_goes_well_begins_the_count_anew(bench):
    failing = bench(fault="no kernel image")
    for _ in range(2):
        failing.start["fault"] = "no kernel image"
        assert "no kernel image" in failing.run()
        failing.start["fault"] = ""
        assert failing.run() is None
        failing.pool._leases[PLACE.key].exchange.close()  # so that the next one fails again
    assert failing.launches == 4


@pytest.mark.skipif(sys.platform == "win32", reason="there a process ends with a status, not by a signal")
def test_a_worker_that_was_ended_from_outside_is_no_failure_of_its_device(bench):
    ended = bench(fault="ended")
    assert all("killed by signal 15" in ended.run() for _ in range(3))
    assert ended.launches == 3


def test_a_run_without_a_step_says_nothing_about_the_device(bench):
    failing = bench(fault="no kernel image")
    for count in (1, 0, 0, 1, 1):
        reason = failing.run(steps=count)
    assert "set aside" in reason and failing.launches == 2


@pytest.mark.parametrize("fault", ["out of memory", "cannot allocate"])
def test_a_step_that_finds_no_memory_is_computed_once_more(bench, fault, caplog):
    caplog.set_level("DEBUG", "hybridiff")
    failing = bench(fault=fault, times=1)
    assert failing.run() is None
    assert "room was made" in caplog.text
    assert failing.launches == 1 and failing.pool._leases[PLACE.key].losses == 0


def test_no_other_failure_is_computed_once_more(bench):
    assert "no kernel image" in bench(fault="no kernel image", times=1).run()


def test_a_first_step_may_take_several_times_this_processes_own(bench, monkeypatch):
    monkeypatch.setattr(steps, "FIRST_STEP_LIMIT_S", 0.5)
    assert bench(fault="3.0", times=1).run(own_s=1.0) is None
    assert "did not answer a step within 1 s" in bench(fault="60.0", times=1).run(own_s=0.2)
