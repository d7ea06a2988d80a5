"""The engine over real worker processes, with the demo's model."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import threading
import time

import psutil
import pytest
import torch

from hybridiff_core import lines
from hybridiff_core.demo.comparison import run_demo
from hybridiff_core.demo.model import ModelConfig
from hybridiff_core.engine import Engine
from hybridiff_core.network.split import Cut
from hybridiff_core.plan import HybridPlan
from hybridiff_core.report import RunReport
from hybridiff_core.setting import Setting
from hybridiff_core.share import Unit
from hybridiff_core.workers import frames as frames_module
from hybridiff_core.workers import launch_local
from hybridiff_core.workers import watch as watch_module
from hybridiff_core.workers.devices import Place
from hybridiff_core.workers.frames import FramePipe
from hybridiff_core.workers.pool import Pool
from hybridiff_core.workers.watch import Watch, WorkerLost
from hybridiff_core.workers.wire import CannotCross

from . import demo_workers
from .demo_workers import CPU, PLACES, Demo

SMALL = {"size": 16, "width": 32, "depth": 2, "heads": 2}
DEMO = Demo(**SMALL)
CONDS = DEMO.conds
X = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
SIGMA = torch.tensor([0.7, 0.7])
UNITS = [Unit(0, 0), Unit(1, 0)]


def engine_of(exchanges, report):
    return Engine(exchanges, report, Setting(HybridPlan(mode="exact"), [1.0, 0.0]))


def nothing() -> None:
    """A check that never interrupts."""


@pytest.fixture(scope="module")
def local():
    return DEMO.local()


def exchange_of(pool, place=PLACES[0], **changed):
    return DEMO.worker(pool, place, **changed)


def here_with(backend, computed=None):
    return demo_workers.here_with(backend, X, SIGMA, computed)


def no_weight(units):
    raise AssertionError("no branch is taken apart here")


def step(engine, backend, units=UNITS, computed=None):
    with torch.inference_mode():
        return engine.step(X, SIGMA, units, here_with(backend, computed), no_weight)


def test_two_processes_give_what_one_gives(pool, local):
    _, exchange = exchange_of(pool)
    report, computed = RunReport("exact", []), []
    engine = engine_of([exchange], report)
    step(engine, local, computed=computed)
    # a new worker's first result is compared with this process's own, and the first call in parts with the whole one
    assert computed == [*UNITS, *UNITS]
    computed.clear()
    done = step(engine, local, computed=computed)
    alone = here_with(local)(UNITS)
    assert computed == [UNITS[0]]
    assert done.keys() == alone.keys() == {0, 1}
    for branch in done:
        assert (done[branch] - alone[branch]).abs().max() < 1e-5
    record = report.steps[1]
    # out: x, and two sigmas rounded up to 16 bytes; back: three numbers of 8 bytes rounded up to 32, a prediction
    assert (record.bytes_sent, record.bytes_received) == (X.nbytes + 16, 32 + X.nbytes)
    assert len(record.compute_s) == 2


def test_three_processes_share_three_branches(pool, local):
    exchanges = [exchange_of(pool, place)[1] for place in PLACES]
    report, computed = RunReport("exact", []), []
    units = [*UNITS, Unit(2, 0)]
    engine = engine_of(exchanges, report)
    step(engine, local, units)
    done = step(engine, local, units, computed)
    assert computed == [units[0]]
    for branch, prediction in here_with(local)(units).items():
        assert (done[branch] - prediction).abs().max() < 1e-5


def test_a_worker_is_kept_and_its_model_not_sent_twice(pool):
    lease, exchange = exchange_of(pool)
    assert exchange.loading.read_anew
    pid = exchange.process.pid
    pool.release(lease)
    lease, exchange = exchange_of(pool)
    assert exchange.process.pid == pid and not exchange.loading.read_anew
    pool.release(lease)
    _, exchange = exchange_of(pool, seed=1)
    assert exchange.process.pid == pid and exchange.loading.read_anew


def test_a_worker_in_use_is_not_given_twice(pool):
    lease, _ = exchange_of(pool)
    assert pool.prepare(PLACES[0], CPU, {"config": SMALL}) is None
    pool.release(lease)
    again = pool.prepare(PLACES[0], CPU, {"config": SMALL})
    again.ready(nothing)


@pytest.mark.skipif(sys.platform == "win32", reason="there a process ends with a status, not by a signal")
@pytest.mark.parametrize("fault, words", [("SIGKILL", "killed by signal 9"), ("SIGTERM", "killed by signal")])
def test_a_killed_worker_is_noticed_and_the_step_finished_here(pool, local, fault, words):
    lease, exchange = exchange_of(pool)
    report, computed = RunReport("exact", []), []
    engine = engine_of([exchange], report)
    step(engine, local)
    os.kill(exchange.process.pid, getattr(signal, fault))
    started = time.perf_counter()
    done = step(engine, local, computed=computed)
    assert time.perf_counter() - started < 2.0
    for branch, prediction in here_with(local)(UNITS).items():
        assert (done[branch] - prediction).abs().max() < 1e-5
    assert sorted(computed, key=lambda unit: unit.branch) == UNITS
    assert engine.exchanges == []
    (line,) = report.lines
    assert words in line and "took over" in line
    pool.release(lease)
    _, fresh = exchange_of(pool)
    assert fresh.process.pid != exchange.process.pid
    assert not RunReport("exact", []).lines and step(engine_of([fresh], report), local)


def test_a_failing_forward_is_told_in_words(pool, local):
    _, exchange = exchange_of(pool)
    report = RunReport("exact", [])
    done = step(engine_of([exchange], report), local, [Unit(0, 0), Unit(1, 0)])
    exchange.renew({"conds": CONDS[:1]})  # the worker no longer has a cond for branch 1
    done = step(engine_of([exchange], report), local)
    assert done.keys() == {0, 1}
    (line,) = report.lines
    assert "IndexError: list index out of range" in line


def test_a_model_that_cannot_be_made_is_told_in_words(pool):
    lease = pool.prepare(PLACES[0], CPU, {"config": {"width": -1}})
    with pytest.raises(WorkerLost, match=r"cpu \(process 2\) is out: RuntimeError"):
        lease.ready(nothing)
    pool.release(lease)
    exchange_of(pool)  # a fresh one takes a right model


def test_a_device_that_fails_to_start_in_two_runs_is_set_aside():
    starts = []

    def start(place):
        starts.append(place)
        return {"threads": "many" if len(starts) <= 2 else 1}

    pool = Pool("demo", start)
    try:
        for _ in range(5):
            lease = pool.prepare(PLACES[0], CPU, {"config": SMALL}, "this wish")
            with pytest.raises(WorkerLost) as failure:
                lease.ready(nothing)
            pool.release(lease)
        assert len(starts) == 2
        assert "failed in 2 runs in a row, so this device is set aside until ComfyUI" in str(failure.value)
        lease = pool.prepare(PLACES[0], CPU, {"config": SMALL}, "another wish")
        lease.ready(nothing)
        assert len(starts) == 3
    finally:
        pool.close()


def test_a_start_that_ends_its_thread_is_told_in_words():
    """SystemExit and the like are no Exception: the run would wait for ever, or end as the thread did."""

    def start(place):
        raise SystemExit("a pack ended the process")

    pool = Pool("demo", start)
    try:
        lease = pool.prepare(PLACES[0], CPU, {"config": SMALL})
        waited = time.monotonic()

        def check():
            assert time.monotonic() - waited < 30, "still waiting"

        with pytest.raises(WorkerLost, match="is out: SystemExit: a pack ended the process"):
            lease.ready(check)
    finally:
        pool.close()


def test_a_model_that_cannot_be_made_is_no_failed_start(pool):
    for _ in range(4):
        lease = pool.prepare(PLACES[0], CPU, {"config": {"width": -1}})
        with pytest.raises(WorkerLost, match="RuntimeError"):
            lease.ready(nothing)
        pool.release(lease)
    exchange_of(pool)


def test_a_worker_that_hangs_in_a_forward_is_given_up_by_the_steps_times(pool, local, monkeypatch):
    """Its reading thread still answers, so only the time of the step can tell."""
    _, exchange = exchange_of(pool)
    report = RunReport("exact", [])
    engine = engine_of([exchange], report)
    for _ in range(3):
        step(engine, local)
    monkeypatch.setattr(exchange.steps, "limit", lambda: 1.0)  # 10 s at least, in truth
    exchange.requests.send({"op": "step", "number": 0, "x": [[1], "uint8"], "sigma": [[1], "uint8"], "units": []})
    done = step(engine, local)  # the worker takes this step's message for another's, and waits for more
    for branch, prediction in here_with(local)(UNITS).items():
        assert (done[branch] - prediction).abs().max() < 1e-5
    assert len(report.lines) == 1 and "took over" in report.lines[0]


def test_a_flood_of_failures_is_the_workers_end(pool, local):
    _, exchange = exchange_of(pool)
    with pytest.raises(ValueError, match="that nobody asked about"):
        for number in range(1000):
            exchange.requests._take({"op": "failed", "number": number, "text": "x" * 1000})


def test_numbers_that_are_none_are_computed_here(pool, local):
    _, exchange = exchange_of(pool)
    exchange.renew({"conds": [CONDS[0], torch.full_like(CONDS[1], float("nan"))]})
    report = RunReport("exact", [])
    done = step(engine_of([exchange], report), local)
    for branch, prediction in here_with(local)(UNITS).items():
        assert (done[branch] - prediction).abs().max() < 1e-5
    (line,) = report.lines
    assert "values that are not numbers" in line


class Stop(BaseException):
    pass


def test_an_interrupted_step_leaves_the_worker_usable(pool, local):
    lease, exchange = exchange_of(pool)
    engine = engine_of([exchange], RunReport("exact", []))

    def stop(units):
        raise Stop

    with pytest.raises(Stop), torch.inference_mode():
        engine.step(X, SIGMA, UNITS, stop, no_weight)
    exchange.end()
    pool.release(lease)
    _, again = exchange_of(pool)
    assert again is exchange
    other = 0.5 * X
    with torch.inference_mode():
        again.submit(other, SIGMA, UNITS[1:])
        ((_, prediction, _),) = again.collect().parts
        (expected,) = local.predict(other, SIGMA, [(1, 0)])
    assert (prediction - expected).abs().max() < 1e-5


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="there is no signal that stops a process")
def test_an_interrupt_is_heard_while_waiting(pool, local):
    _, exchange = exchange_of(pool)
    step(engine_of([exchange], RunReport("exact", [])), local)
    os.kill(exchange.process.pid, signal.SIGSTOP)
    try:
        exchange.submit(X, SIGMA, UNITS[1:])

        def interrupt():
            raise Stop

        started = time.perf_counter()
        with pytest.raises(Stop):
            exchange.collect(interrupt)
        assert time.perf_counter() - started < 1.0
    finally:
        os.kill(exchange.process.pid, signal.SIGCONT)


def until(happened, limit_s=10.0):
    """Whether it happens in time."""
    deadline = time.monotonic() + limit_s
    while not happened() and time.monotonic() < deadline:
        time.sleep(0.005)
    return happened()


def test_whether_an_answer_is_here_can_be_seen_without_waiting(pool):
    _, exchange = exchange_of(pool)
    assert not exchange.answered()  # nothing was asked
    exchange.submit(X, SIGMA, UNITS[1:])
    assert until(exchange.answered)
    exchange.collect()
    assert not exchange.answered()


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="there is no signal that stops a process")
def test_a_lost_worker_counts_as_answered(pool, monkeypatch):
    _, exchange = exchange_of(pool)
    exchange.submit(X, SIGMA, UNITS[1:])
    exchange.collect()
    os.kill(exchange.process.pid, signal.SIGSTOP)
    exchange.submit(X, SIGMA, UNITS[1:])
    assert not exchange.answered()
    monkeypatch.setattr(exchange.steps, "limit", lambda: 0.0)  # 10 s at least, in truth
    assert exchange.answered()
    with pytest.raises(WorkerLost, match="did not answer"):
        exchange.collect()
    os.kill(exchange.process.pid, signal.SIGKILL)
    _, other = exchange_of(pool, PLACES[1])
    os.kill(other.process.pid, signal.SIGKILL)
    assert until(other.answered)


def test_a_step_is_sent_by_the_thread_that_then_computes(pool, monkeypatch):
    _, exchange = exchange_of(pool)
    exchange.submit(X, SIGMA, UNITS[1:])
    exchange.collect()
    wrote, write = [], FramePipe.write
    monkeypatch.setattr(FramePipe, "write", lambda *args: (wrote.append(threading.current_thread()), write(*args)))
    for _ in range(30):
        exchange.submit(X, SIGMA, UNITS[1:])
        exchange.collect()
    assert len(wrote) >= 30 and set(wrote) == {threading.current_thread()}  # a ping may be among them


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="there is no signal that stops a process")
def test_a_stuck_worker_holds_nobody_up_until_it_is_noticed(pool, monkeypatch):
    """It takes no frames and no messages: both of its ways are full at some time."""
    _, exchange = exchange_of(pool)
    monkeypatch.setattr(watch_module, "STUCK_S", 2.0)
    x = torch.zeros(1, 4, 128, 128)
    os.kill(exchange.process.pid, signal.SIGSTOP)
    longest = 0.0
    with pytest.raises(WorkerLost, match=r"has not moved for 2 s"):
        for _ in range(1000):
            started = time.perf_counter()
            exchange.submit(x, SIGMA, UNITS[1:])
            longest = max(longest, time.perf_counter() - started)
            time.sleep(0.01)
    assert longest < 2.0


def test_a_message_too_large_to_be_sent_is_not_counted_as_sent(pool, local, monkeypatch):
    _, exchange = exchange_of(pool)
    exchange.begin({"conds": []})  # the worker forgets the conds
    with monkeypatch.context() as patched:
        patched.setattr(frames_module, "FRAME_LIMIT", 10_000)
        with pytest.raises(CannotCross, match="over the limit of 10000"):
            exchange.begin({"conds": CONDS, "more": ["x" * 100] * 1000})
    exchange.begin({"conds": CONDS})
    exchange.submit(X, SIGMA, UNITS[1:])
    ((_, prediction, _),) = exchange.collect().parts
    assert torch.allclose(prediction, local.predict(X, SIGMA, [(1, 0)])[0], atol=1e-5)


@pytest.mark.parametrize("at", [lines.DID_NOT_TELL_INNER(), lines.DID_NOT_SEND_INNER()], ids=["reply", "message"])
def test_an_interrupt_while_inner_results_are_fetched_leaves_the_worker_usable(pool, monkeypatch, at):
    deep = Demo(**{**SMALL, "depth": 3})
    lease, exchange = deep.worker(pool)
    backend = deep.local()
    exchange.set_cut(Cut((1, 2)))
    exchange.submit(X, SIGMA, UNITS[:1], kind="take", time=0.7)
    exchange.collect()
    wait = Watch.wait

    def interrupted(self, waiting, limit_s, check, failed):
        if failed == at:
            raise Stop
        return wait(self, waiting, limit_s, check, failed)

    with monkeypatch.context() as patched:
        patched.setattr(Watch, "wait", interrupted)
        with pytest.raises(Stop):
            exchange.history(UNITS[0], 1)
    exchange.end()
    pool.release(lease)
    _, again = deep.worker(pool)
    assert again is exchange
    again.submit(X, SIGMA, UNITS[1:])
    ((_, prediction, _),) = again.collect().parts
    assert torch.allclose(prediction, backend.predict(X, SIGMA, [(1, 0)])[0], atol=1e-5)


def test_an_idle_worker_is_ended():
    pool = Pool("demo", lambda place: {"threads": 1}, idle_s=0.2)
    try:
        lease, exchange = exchange_of(pool)
        pool.release(lease)
        psutil.Process(exchange.process.pid).wait(10)
        assert not exchange.alive()
    finally:
        pool.close()


def test_unloading_reaches_idle_workers(pool, local):
    lease, exchange = exchange_of(pool)
    pool.release(lease)
    pool.unload()
    exchange.submit(X, SIGMA, UNITS[1:])
    with pytest.raises(WorkerLost, match="NoneType"):  # the demo's worker has dropped its model
        exchange.collect()


def test_after_unloading_a_run_loads_the_model_again(pool, local):
    lease, exchange = exchange_of(pool)
    pool.release(lease)
    pool.unload()
    lease, again = exchange_of(pool)
    assert again is exchange and again.loading.read_anew
    again.submit(X, SIGMA, UNITS[1:])
    ((_, prediction, _),) = again.collect().parts
    assert torch.allclose(prediction, local.predict(X, SIGMA, [(1, 0)])[0], atol=1e-5)


def test_a_worker_that_did_not_connect_is_started_anew(pool, local, monkeypatch):
    """It lives, but has no channel: no memory to be had for it, for example."""
    wait = Watch.wait

    def refused(self, waiting, limit_s, check, failed):
        if failed == lines.DID_NOT_CONNECT():
            raise self.error("there is no pinned memory")
        return wait(self, waiting, limit_s, check, failed)

    with monkeypatch.context() as patched:
        patched.setattr(Watch, "wait", refused)
        lease = pool.prepare(PLACES[0], CPU, {"config": SMALL})
        with pytest.raises(WorkerLost, match="no pinned memory"):
            lease.ready(nothing)
        pool.release(lease)
    _, exchange = exchange_of(pool)
    done = step(engine_of([exchange], report := RunReport("exact", [])), local)
    assert set(done) == {0, 1} and report.shared_steps == 1 and report.lines == []


def test_workers_end_with_their_parent(tmp_path):
    """A parent that is killed leaves no worker behind."""
    script = (
        "import sys, time, torch\n"
        "from hybridiff_core.workers.pool import Pool\n"
        "from hybridiff_core.workers.devices import Place\n"
        "pool = Pool('demo', lambda place: {'threads': 1})\n"
        "lease = pool.prepare(Place('cpu#0', 'cpu', 'cpu'), torch.device('cpu'), "
        f"{{'config': {SMALL!r}}})\n"
        "print(lease.ready(lambda: None).process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    worker = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    worker.wait(5)


OF_ANOTHER_GPU = """
import sys

sys.path.insert(0, {pack!r})
from hybridiff_core.demo.demo_backend import DemoBackend
from hybridiff_core.workers import worker

worker.uuid_of = lambda device: "0c"
worker.serve(DemoBackend)
"""


@pytest.mark.parametrize("uuid, right", [("GPU-0A", False), ("GPU-0C", True), ("", True)])
def test_a_worker_on_another_gpu_is_not_used(pool, tmp_path, monkeypatch, uuid, right):
    script = tmp_path / "worker.py"
    script.write_text(OF_ANOTHER_GPU.format(pack=str(launch_local.PACK)))
    monkeypatch.setitem(launch_local.SCRIPTS, "demo", script)
    lease = pool.prepare(Place("cuda:1#0", "cuda:1 (A)", "cpu", uuid=uuid), CPU, {"config": SMALL})
    if right:
        assert lease.ready(nothing).alive()
    else:
        with pytest.raises(
            WorkerLost, match=r"the worker on cuda:1 \(A\).*another GPU than the one it was meant to have"
        ):
            lease.ready(nothing)


def test_no_thread_or_process_outlives_the_pool(local):
    before = {thread.name for thread in threading.enumerate()}
    children = set(psutil.Process().children())
    pool = Pool("demo", lambda place: {"threads": 1})
    lease, _ = exchange_of(pool)
    pool.release(lease)
    pool.close()
    deadline = time.monotonic() + 5
    while {thread.name for thread in threading.enumerate()} - before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert {thread.name for thread in threading.enumerate()} <= before
    assert set(psutil.Process().children()) == children


def test_the_demo_draws_what_it_is_asked_for(tmp_path):
    from hybridiff_core.cli import main

    exact = run_demo("red heart", steps=8, cfg=3.0, seed=1, repeats=1)
    assert exact.max_difference < 1e-4 and exact.psnr > 90
    picture = exact.pictures[0][0]
    middle, corner = picture[:, 54:74, 54:74].mean((1, 2)), picture[:, :8, :8].mean((1, 2))
    assert middle[0] > 0.7 > 0.4 > middle[1:].max() and corner.min() > 0.8  # red on white
    arguments = [
        "--steps",
        "16",
        "--mode",
        "predict",
        "--k",
        "6",
        "--repeats",
        "1",
        "--out",
        str(tmp_path / "demo.png"),
    ]
    assert main(["demo", "blue heart", *arguments]) == 0
    assert (tmp_path / "demo.png").stat().st_size > 10_000


def test_the_demo_gives_one_picture():
    result = run_demo("a red heart", steps=3, repeats=1, config=ModelConfig(**SMALL))
    assert result.max_difference < 1e-5
    assert result.report.shared_steps == 3
    assert result.bytes_per_step == 2 * 4 * 16 * 16 * 4 + 16 + 32


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc, and its page faults in /proc")
def test_a_worker_on_the_processor_keeps_its_memory_between_steps(pool):
    # a forward gave its memory back to the system, and the next one waited for each page of it anew: 7 % of its time
    _, exchange = Demo(size=64, width=128, depth=2, heads=2).worker(pool)
    x, sigma = torch.randn(4, 4, 64, 64), torch.full((4,), 0.7)

    def step() -> int:
        before = faults(exchange.process.pid)
        exchange.submit(x, sigma, [Unit(0, 0)])
        exchange.collect()
        return faults(exchange.process.pid) - before

    taken = [step() for _ in range(12)]
    # 5,000 a step before, of 4 KiB each; 512 at once come now and then, when the system takes a large page apart
    assert statistics.median(taken[4:]) < 125, taken


def faults(pid: int) -> int:
    """Pages that a process had to wait for."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        return int(file.read().rsplit(")", 1)[1].split()[7])
