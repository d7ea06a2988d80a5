"""Forwards that several devices divide by tokens: exact, and whatever happens to one of them nobody waits for it."""

from __future__ import annotations

import gc
import itertools
import os
import queue
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch

from hybridiff_core.call import Call
from hybridiff_core.demo.demo_backend import DemoBackend
from hybridiff_core.demo.model import ModelConfig, words_to_context
from hybridiff_core.network.split import Reached
from hybridiff_core.network.tokens import SHARES, Form, Look, NotDivided, Shard
from hybridiff_core.share import Unit
from hybridiff_core.token_group import TokenGroup
from hybridiff_core.workers import launch_local
from hybridiff_core.workers.devices import Place
from hybridiff_core.workers.pool import Pool
from hybridiff_core.workers.sockets import pair
from hybridiff_core.workers.token_ways import TokenWay
from hybridiff_core.workers.watch import GroupLost, WorkerLost
from tests.core.test_channel import both, twice
from tests.tiers import full

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
BLOCKS = [full(0, id="first block"), pytest.param(1, id="middle block"), full(5, id="last block")]
FAULTS = [
    ("SIGKILL", "killed by signal 9"),
    ("SIGSTOP", "has not moved"),
    ("exception", "this block cannot be computed"),
]
needs_signals = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="there is no signal that stops a process")


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
            exchange.renew({"conds": CONDS, "fault": fault.get(f"w{i}", ("", -1))})
        return exchanges

    def release(self):
        while self.leases:
            lease = self.leases.pop()
            if lease.exchange.alive():
                lease.exchange.end()
            self.pool.release(lease)
            lease.losses = 0  # its device is not set aside

    def here(self, units, through=None, rows=None):
        mine = slice(*rows[:2]) if rows else slice(None)
        asked = [(unit.branch, unit.index) for unit in units]
        predictions = self.local.predict(X[mine], SIGMA[mine], asked, through, rows)
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
        """The largest difference of predictions to whole forwards, and their units."""
        whole = self.here([unit for piece in parts for unit in piece.units])
        off = [piece.prediction - whole[piece.units[0].branch][slice(*piece.rows or (None,))] for piece in parts]
        return max(one.abs().max().item() for one in off), [unit for piece in parts for unit in piece.units]


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


class Stop(BaseException):
    pass


@pytest.mark.parametrize("halves", [1, 2])
@pytest.mark.parametrize("here", [True, False], ids=["with this process", "workers alone"])
@pytest.mark.parametrize("count", [2, full(3), full(4)])
def test_a_divided_forward_is_the_whole_one(bench, count, here, halves):
    group = TokenGroup([*[None] * here, *bench.workers(count - here)], CPU)
    for _ in range(2):
        off, units = bench.step(group, halves=halves)
        assert off <= EXACT and units == UNITS
    group.abandon()


@pytest.mark.parametrize("here", [True, False], ids=["with this process", "workers alone"])
def test_some_batch_items_are_divided_alone(bench, here):
    group = TokenGroup([*[None] * here, *bench.workers(2 - here)], CPU)
    call, parts = bench.call(), []
    with torch.inference_mode():
        for rows in ((0, 1, 2), (1, 2, 2)):
            group.submit(call, UNITS, bench.form(), BOUNDS[2], rows=rows)
            parts += group.own(call)
            parts += [piece for _, answer in group.collect() for piece in answer.parts]
    assert [piece.rows for piece in parts] == [(0, 1), (0, 1), (1, 2), (1, 2)]
    assert bench.off(parts) == (pytest.approx(0.0, abs=EXACT), UNITS + UNITS)
    group.abandon()


def test_two_groups_work_at_once(bench):
    with_here, others = bench.workers(3)[:1], bench.leases[1:]
    groups = [TokenGroup([None, *with_here], CPU), TokenGroup([lease.exchange for lease in others], CPU)]
    for _ in range(2):
        with torch.inference_mode():
            for group, unit in zip(groups, UNITS):
                group.submit(bench.call(), [unit], bench.form(), BOUNDS[2])
            parts = groups[0].own(bench.call())
            parts += [part for group in groups for _, answer in group.collect() for part in answer.parts]
            assert bench.off(parts) == (pytest.approx(0.0, abs=EXACT), UNITS)


def test_seconds_are_those_of_computing_not_of_waiting(bench):
    quick, slow = bench.workers(2, w1=("sleeps", 1))
    group = TokenGroup([None, quick, slow], CPU)
    call = bench.call()
    with torch.inference_mode():
        group.submit(call, UNITS, bench.form(), BOUNDS[3])
        assert bench.off(group.own(call))[0] <= EXACT  # slow is not stuck
        answers = dict(group.collect())
    assert answers[quick].compute_s < 1.0 < 2.9 < answers[slow].compute_s
    assert group.waited_s > 2.9 and not quick.broken and not slow.broken


def test_memory_grows_with_the_messages_and_what_has_no_room_goes_by_the_socket(bench):
    group = TokenGroup([None, *bench.workers(1)], CPU)
    bench.step(group)
    first, (channel,) = group._links, group._links.channels.values()
    assert channel.room == first.each_way
    bench.step(group)
    assert group._links is first
    form = bench.form()
    larger = Form(**{**vars(form), "bytes_a_token": 1000 * form.bytes_a_token})
    call = bench.call()
    with torch.inference_mode():
        group.submit(call, UNITS, larger, BOUNDS[2])
        assert group._links.each_way > first.each_way
        assert bench.off(group.own(call))[0] <= EXACT
        group.collect()
    group._links.each_way = 1 << 30
    (channel,) = group._links.channels.values()
    channel._sends_in = 0
    assert bench.step(group)[0] <= EXACT and channel.room == 0


# -- losses


def until(happened, limit_s=10.0):
    """Whether it happens in time."""
    deadline = time.monotonic() + limit_s
    while not happened() and time.monotonic() < deadline:
        time.sleep(0.05)
    return happened()


def lose(bench, group, culprit, others, within_s=NOTICED_S):
    """A call in which `culprit` is lost: how it is said. The others then compute, at once and exactly."""
    started = time.perf_counter()
    with pytest.raises(WorkerLost) as lost:
        bench.step(group)
    assert time.perf_counter() - started < within_s
    assert not isinstance(lost.value, GroupLost) and culprit.broken and not any(one.broken for one in others)
    assert culprit.watch.label in str(lost.value)
    for one in others:
        one.submit(X, SIGMA, UNITS)  # what it still owes is passed over
        assert bench.off(one.collect().parts)[0] <= EXACT
    again = TokenGroup([None, *others], CPU)
    assert bench.step(again)[0] <= EXACT
    again.abandon()
    return str(lost.value)


@needs_signals
@pytest.mark.parametrize("at", BLOCKS)
@pytest.mark.parametrize("fault, words", FAULTS)
def test_a_lost_worker_is_noticed_at_once_by_all(bench, fault, words, at):
    one, other = bench.workers(2, w1=(fault, at))
    assert words in lose(bench, TokenGroup([None, one, other], CPU), other, [one])


@needs_signals
@pytest.mark.parametrize("lead", [pytest.param(True, id="lead"), full(False, id="second")])
@pytest.mark.parametrize("fault, words", [*(full(*row) for row in FAULTS[:2]), FAULTS[2]])
def test_a_lost_worker_of_a_group_without_this_process(bench, fault, words, lead):
    culprit, other = bench.workers(2, w0=(fault, 4))
    devices = [culprit, other] if lead else [other, culprit]
    assert words in lose(bench, TokenGroup(devices, CPU), culprit, [other])


def test_one_that_hangs_is_given_up_and_no_other(bench, monkeypatch):
    """It answers pings, so only the time can tell; those that wait for it are not to blame."""
    one, other = bench.workers(2, w1=("sleeps", 1))
    for exchange in (one, other):
        monkeypatch.setattr(exchange.steps, "limit", lambda: 0.7)  # 10 s at least, in truth
    group = TokenGroup([None, one, other], CPU)
    with pytest.raises(WorkerLost, match="did not answer a step"):
        bench.step(group)
    assert other.broken and not one.broken


def test_a_group_is_lost_with_one_of_its_devices_and_the_other_group_is_not(bench):
    one, two, three = bench.workers(3, w2=("exception", 0))
    groups = [TokenGroup([None, one], CPU), TokenGroup([two, three], CPU)]
    call = bench.call()
    with torch.inference_mode():
        for group, unit in zip(groups, UNITS):
            group.submit(call, [unit], bench.form(), BOUNDS[2])
        parts = groups[0].own(call)
        with pytest.raises(WorkerLost, match="this block cannot"):
            groups[1].collect()
        groups[0].collect()
        assert bench.off(parts)[0] <= EXACT
        two.submit(X, SIGMA, UNITS[1:])
        assert bench.off(two.collect().parts) == (pytest.approx(0.0, abs=EXACT), UNITS[1:])


@pytest.mark.skipif(not hasattr(psutil.Process, "num_fds"), reason="there are no file descriptors to count")
def test_channels_that_were_closed_are_forgotten(bench):
    workers = bench.workers(2)
    processes = [psutil.Process(pid) for pid in (os.getpid(), *(worker.process.pid for worker in workers))]
    group = TokenGroup([None, *workers], CPU)
    bench.step(group)
    group.abandon()

    def counted():
        for worker in workers:
            worker.wait_idle()
        gc.collect()
        return [(process.num_fds(), process.num_threads()) for process in processes]

    held = []
    for _ in range(3):
        held.append(counted())
        bench.step(group)
        group.abandon()
    assert until(lambda: counted() == held[1])


# -- this process gives up


@pytest.mark.parametrize("at", BLOCKS)
def test_an_exception_here_ends_the_call_in_every_device(bench, at, monkeypatch):
    workers = bench.workers(2)
    group, plain, exchanges = TokenGroup([None, *workers], CPU), Shard.exchange, itertools.count()

    def failing(self, pairs, dim, n):
        if next(exchanges) == at:
            raise Stop
        return plain(self, pairs, dim, n)

    with monkeypatch.context() as patched, pytest.raises(Stop):
        patched.setattr(Shard, "exchange", failing)
        bench.step(group)
    started = time.perf_counter()
    for worker in workers:
        worker.drain()
    assert time.perf_counter() - started < 1.0
    assert bench.step(group)[0] <= EXACT


@pytest.mark.parametrize("here", [True, False], ids=["with this process", "workers alone"])
def test_an_interrupt_is_heard_while_others_are_waited_for(bench, here):
    """And what was asked before is not taken for the answer to what is asked after it."""
    workers = bench.workers(2, w1=("sleeps", 1))
    began = time.perf_counter()

    def check():
        if time.perf_counter() - began > 0.3:
            raise Stop

    group = TokenGroup([*[None] * here, *workers], CPU, check)
    with pytest.raises(Stop):
        bench.step(group)
    assert time.perf_counter() - began < 1.0
    workers[0].submit(X, SIGMA, UNITS[1:])  # it hears at once that the call is over
    parts = workers[0].collect().parts
    assert time.perf_counter() - began < 1.5
    assert bench.off(parts)[0] <= EXACT
    group.check = lambda: None
    assert bench.step(group)[0] <= EXACT


@needs_signals
def test_an_interrupt_while_the_devices_meet(bench):
    one, other = bench.workers(2)

    def check():
        raise Stop

    os.kill(other.process.pid, signal.SIGSTOP)
    group = TokenGroup([None, one, other], CPU, check)
    with pytest.raises(Stop):
        bench.step(group)
    os.kill(other.process.pid, signal.SIGCONT)
    group.check = lambda: None
    assert bench.step(group)[0] <= EXACT and not one.broken and not other.broken


def test_a_network_that_is_not_divided_is_the_groups_loss(bench):
    """Nobody is to blame: whole forwards go on."""
    one, other = bench.workers(2)
    group = TokenGroup([None, one, other], CPU)

    def whole(units, through=None, rows=None):
        return bench.here(units)

    with pytest.raises(GroupLost, match="not be divided by its tokens"):
        bench.step(group, here=whole)
    assert not one.broken and not other.broken and bench.step(group)[0] <= EXACT


def test_sizes_cross_as_keys_and_values_do():
    """Three times keys and values of half of 10 tokens, 8 wide, in two bytes, each padded to 16; then a part."""
    sizes = {"h": [[1]], "z": [[1]], "dtype": "float16", "tokens": 10, "width": 8, "attends": 3}
    x, local, pool = torch.ones(1, 1, 1), DemoBackend({"device": "cpu"}), Pool("demo", lambda place: {"threads": 1})
    local.load({"sizes": sizes})
    local.begin({"conds": [x]}, fresh=True)
    try:
        worker = pool.prepare(Place("cpu#0", "cpu 0", "cpu"), CPU, {"sizes": sizes}).ready(lambda: None)
        worker.begin({"conds": [x]})
        group, units = TokenGroup([None, worker], CPU), UNITS[:1]

        def here(units, through=None, rows=None):
            return {0: local.predict(x, SIGMA[:1], [(0, 0)], through)[0]}

        call = Call(x, SIGMA[:1], units, here, None)
        group.submit(call, units, Form(1, (0, 1, 2), 10, 0, 3 * 2 * 8 * 2), (0, SHARES // 2, SHARES))
        (piece,) = group.own(call)
        group.collect()
        assert torch.equal(piece.prediction, 0.9 * x)
        assert group.moved == (3 * 2 * 5 * 8 * 2, 3 * 2 * 5 * 8 * 2 + 16)
        group.abandon()
    finally:
        pool.close()


# -- a part, with threads for devices


class Queues:
    """A Way between two threads. `log` gets what is sent and received, as it happens."""

    def __init__(self, out, back, log):
        self.out, self.back, self.log = out, back, log

    def stow(self, tensors):
        return [tensor.clone() for tensor in tensors]

    def send(self, stowed):
        self.log.append("send")
        self.out.put(stowed)

    def expect(self, parts):
        return parts

    def receive(self, parts):
        came = self.back.get(timeout=10)
        assert [(tuple(tensor.shape), tensor.dtype) for tensor in came] == list(parts)
        return came

    def release(self, expected):
        pass


@pytest.mark.parametrize("devices", [1, 2, 3, 4])
def test_parts_are_put_together_in_order(devices):
    bounds, n, done = BOUNDS[devices], 37, {}
    queues = {(one, other): queue.Queue() for one in range(devices) for other in range(devices)}
    k, v, mask = torch.randn(2, 5, n, 8), torch.randn(2, 5, n, 4).half(), torch.rand(1, 1, n, 1) > 0.5

    def device(rank):
        log = []
        ways = [Queues(queues[rank, other], queues[other, rank], log) for other in range(devices)]
        shard = Shard(Form(1, (0,), n, 0, 1), rank, bounds, ways, 2)
        mine = slice(*shard.mine(n))
        pairs = [(k[:, :2, mine], v[:, :2, mine], mask[:, :, mine]), (k[:, 2:, mine], v[:, 2:, mine])]
        wholes = []
        for whole in shard.exchange(pairs, -2, n):
            log.append("compute")
            wholes.append(whole)
        others = ["send"] * (devices - 1)
        assert log == [*others, *others, "compute", "compute"]  # the second half is on its way before the first is used
        assert torch.equal(torch.cat([wholes[0][0], wholes[1][0]], 1), k)
        assert torch.equal(torch.cat([wholes[0][1], wholes[1][1]], 1), v)
        assert torch.equal(wholes[0][2], mask)
        try:
            assert torch.equal(shard.gather(k[:, :, mine], 2, n), k)
            done[rank] = "whole"
        except Reached:
            done[rank] = "reached"

    threads = [threading.Thread(target=device, args=(rank,)) for rank in range(devices)]
    [thread.start() for thread in threads], [thread.join() for thread in threads]
    assert done == {rank: "reached" if rank else "whole" for rank in range(devices)}


@pytest.mark.parametrize("each_way", [None, 8 << 20, 96 << 20], ids=["socket", "memory for some", "memory"])
def test_large_parts_cross_each_other(each_way):
    """Each device sends before it reads, and may be one exchange ahead."""
    n, width, ends, done = 64, 1 << 16, both(*pair(), memory=twice(each_way) if each_way else (None, None)), []
    whole = [torch.randn(1, 2, n, width).half() for _ in range(4)]  # 8 MB of each to each

    def device(rank):
        way = TokenWay(ends[rank], 20.0)
        shard = Shard(Form(1, (0,), n, 0, 1), rank, (0, 2048, SHARES), [way, way], 2)
        mine = slice(*shard.mine(n))
        for one in whole:
            halves = shard.exchange([(one[:, :1, mine],), (one[:, 1:, mine],)], 2, n)
            assert torch.equal(torch.cat([half for (half,) in halves], 1), one)
        done.append(rank)

    threads = [threading.Thread(target=device, args=(rank,)) for rank in (0, 1)]
    [thread.start() for thread in threads], [thread.join() for thread in threads]
    assert sorted(done) == [0, 1]
    [end.close() for end in ends]


def test_a_part_of_another_size_is_refused():
    shard = Shard(Form(1, (0,), 8, 0, 1), 0, (0, SHARES), [None])
    with pytest.raises(NotDivided, match="7 tokens in a device's part where 8 were"):
        shard.gather(torch.zeros(1, 7), 1, 8)
    with pytest.raises(ValueError, match="bounds"):
        Shard(Form(1, (0,), 8, 0, 1), 0, (0, 12), [None])
