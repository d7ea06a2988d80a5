"""Memory that two processes share: what lies where in it, who has it, and what becomes of it."""

from __future__ import annotations

import contextlib
import gc
import json
import mmap
import os
import random
import re
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from hybridiff_core.share import Unit
from hybridiff_core.workers import room as room_module
from hybridiff_core.workers.channel import HEAD, MARK, Channel, ChannelBroken
from hybridiff_core.workers.shared import COUNTERS, Halves, NoSharedMemory, Segment
from hybridiff_core.workers.sockets import pair

from .demo_workers import CPU, PLACES

SIGMA = torch.ones(1)
ECHO = {"sizes": {"h": [[1]], "z": [[1]], "dtype": "float32"}}  # it answers 0.9 x
unix = pytest.mark.skipif(sys.platform == "win32", reason="there memory is handed over by its name")


def other(segment):
    """`segment` as another process has it."""
    if sys.platform == "win32":
        return Segment.take_over(segment.hand_over(None), None)
    with contextlib.ExitStack() as stack:
        here, there = map(stack.enter_context, socket.socketpair())
        return Segment.take_over(segment.hand_over(here), there)


def halves(each_way):
    segment = Segment.make(each_way)
    ends = Halves(segment, 0, CPU), Halves(other(segment), 1, CPU)
    segment.close_file()
    return ends


def test_what_lies_in_it_is_not_written_over_before_it_is_taken():
    here, there = halves(1 << 16)
    chance, out, refused = random.Random(0), [], 0
    for number in range(3000):
        size = chance.choice([1, 16, 1000, 9000, 20000, 40000])
        if placed := here.place(size):
            start, memory = placed
            memory.fill_(number % 251)
            out.append((start, size, number % 251))
        else:
            refused += 1
        while out and (not placed or chance.random() < 0.4):
            start, size, value = out.pop(0)
            assert (there.at(start, size) == value).all()
            there.took()
            placed = True
    assert 100 < refused < 2000  # it was full time and again


def test_both_directions_have_memory_of_their_own():
    here, there = halves(4096)
    for sender, receiver, value in ((here, there, 1), (there, here, 2)):
        start, memory = sender.place(4096)
        memory.fill_(value)
        assert receiver.at(start, 4096).eq(value).all() and sender.place(1) is None
    assert here.place(4097) is None


@pytest.mark.parametrize("number, start", [(1, 1 << 16), (1, 1 << 40), (1, 8), (2, 0), (1, (1 << 16) - 64)])
def test_a_message_that_would_lie_elsewhere_is_refused(number, start):
    segment = Segment.make(1 << 16)
    end, bare = pair()
    channel = Channel(end, CPU, 0, segment)
    segment.close_file()
    coming = channel.expect([((20,), torch.float32)])
    bare.sendall(HEAD.pack(MARK, number, 80, start))
    with pytest.raises(ChannelBroken, match="what came is not a message"):
        coming.wait(5)
    channel.close()
    bare.close()


@unix
def test_memory_shorter_than_told_is_refused():
    segment = Segment.make(4096)
    segment.told = {"bytes": COUNTERS + (1 << 20)}
    with pytest.raises(NoSharedMemory, match="not of the 1052672 bytes"):
        other(segment)
    segment.close_file()


@pytest.mark.parametrize("size", [0, -1, COUNTERS, 1 << 60, "1", None, 4.5])
def test_a_size_of_no_sense_is_refused(size):
    with pytest.raises(NoSharedMemory, match="that were announced"):
        Segment.take_over({"bytes": size}, None)


@unix
def test_it_has_no_name_where_memory_files_have_one(monkeypatch):
    """As on macOS."""
    monkeypatch.delattr(os, "memfd_create", raising=False)
    before = set(Path("/dev/shm").iterdir()) if Path("/dev/shm").exists() else set()
    here, there = halves(1 << 16)
    assert not Path("/dev/shm").exists() or set(Path("/dev/shm").iterdir()) == before
    start, memory = here.place(100)
    memory.fill_(7)
    assert there.at(start, 100).eq(7).all()


def test_on_windows_it_is_found_by_a_name_that_nobody_can_guess(monkeypatch):
    made, names = {}, []

    def named(descriptor, size, tagname):
        assert descriptor == -1
        names.append(tagname)
        if tagname not in made:
            made[tagname] = mapped(-1, size)
        return made[tagname]

    mapped = mmap.mmap
    with monkeypatch.context() as patched:
        patched.setattr(sys, "platform", "win32")
        patched.setattr(mmap, "mmap", named)
        segments = [Segment.make(4096) for _ in range(2)]
        others = [Segment.take_over(json.loads(json.dumps(segment.hand_over(None))), None) for segment in segments]
    assert names[:2] == names[2:] and len(set(names)) == 2
    assert all(re.fullmatch(r"Local\\hybridiff-[0-9a-f]{64}", name) for name in names)
    start, memory = Halves(segments[0], 0, CPU).place(100)
    memory.fill_(7)
    assert Halves(others[0], 1, CPU).at(start, 100).eq(7).all()
    assert not Halves(others[1], 1, CPU).at(start, 100).any()


@unix
def test_neither_end_can_make_it_shorter():
    if not hasattr(os, "memfd_create"):
        pytest.skip("there are no seals")
    segment = Segment.make(4096)
    with pytest.raises(PermissionError):
        os.ftruncate(segment._descriptor, 0)
    segment.close_file()


# -- with workers


def exchange_of(pool, place=PLACES[0]):
    exchange = pool.prepare(place, CPU, ECHO).ready(lambda: None)
    exchange.begin({"conds": [torch.zeros(1, 1, 1)]})
    return exchange


def echo(exchange, x):
    exchange.submit(x, SIGMA, [Unit(0, 0)])
    ((_, answer, _),) = exchange.collect().parts
    return torch.equal(answer, 0.9 * x)


def test_steps_go_by_it(pool):
    exchange = exchange_of(pool)
    assert echo(exchange, torch.randn(1, 1000))
    ends = exchange.channel._segments[1]
    assert ends._placed == 2 and int(ends._taken_by_me[0]) == 1  # the conditioning and the step; the answer


def test_it_grows_where_a_message_needs_it_and_nobody_waits(pool):
    exchange, x = exchange_of(pool), torch.randn(1, 3 << 20)  # 12 MiB
    before = exchange.channel.room
    assert before < x.nbytes
    for _ in range(20):
        assert echo(exchange, x)
    assert exchange.channel.room >= 2 * x.nbytes
    assert sorted(exchange.channel._segments) == [2]  # the first is given back
    assert echo(exchange, torch.randn(1, 10))


def test_without_it_the_socket_carries_everything(pool, monkeypatch):
    def none(each_way):
        raise NoSharedMemory("there is none")

    monkeypatch.setattr(room_module.Segment, "make", none)
    exchanges = [exchange_of(pool, place) for place in PLACES]
    exchanges[0].link(exchanges[1])
    for size in (10, 3 << 20):
        assert echo(exchanges[0], torch.randn(1, size))
    assert exchanges[0].channel.room == 0


@unix
def test_where_the_worker_cannot_have_it_the_socket_carries_everything(pool, monkeypatch):
    hand_over = Segment.hand_over
    monkeypatch.setattr(Segment, "hand_over", lambda self, way: {**hand_over(self, way), "bytes": 1 << 30})
    exchange = exchange_of(pool)
    assert exchange.channel.room == 0
    for size in (10, 3 << 20):
        assert echo(exchange, torch.randn(1, size))


@unix
def test_where_the_worker_cannot_have_more_it_goes_on_with_what_there_is(pool, monkeypatch):
    exchange = exchange_of(pool)
    before, hand_over = exchange.channel.room, Segment.hand_over
    monkeypatch.setattr(Segment, "hand_over", lambda self, way: {**hand_over(self, way), "bytes": 1 << 30})
    for size in (10, 3 << 20, 10, 3 << 20, 5 << 20):
        assert echo(exchange, torch.randn(1, size))
    assert exchange.channel.room == before


def maps(pid):
    return [line for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if "hybridiff" in line]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc shows what is mapped")
@pytest.mark.parametrize("end", ["kill", "close"])
def test_a_worker_that_ends_leaves_no_memory_behind(pool, end):
    exchange = exchange_of(pool)
    assert echo(exchange, torch.randn(1, 1000))
    assert maps(exchange.process.pid) and maps(os.getpid())
    if end == "kill":
        psutil.Process(exchange.process.pid).kill()
    exchange.close()
    del exchange
    pool.close()
    gc.collect()
    assert maps(os.getpid()) == []


def test_no_tracker_of_multiprocessing_is_started_or_warns():
    script = (
        "import sys, psutil, torch\n"
        "from hybridiff_core.share import Unit\n"
        "from hybridiff_core.workers.pool import Pool\n"
        "from hybridiff_core.workers.devices import Place\n"
        "pool = Pool('demo', lambda place: {'threads': 1})\n"
        f"lease = pool.prepare(Place('cpu#0', 'cpu', 'cpu'), torch.device('cpu'), {ECHO!r})\n"
        "exchange = lease.ready(lambda: None)\n"
        "assert exchange.channel.room\n"
        "print(len(psutil.Process().children()), 'multiprocessing.resource_tracker' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    alone = subprocess.run(
        [sys.executable, "-c", "import sys, torch; print('multiprocessing.resource_tracker' in sys.modules)"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout.split() == ["1", *alone.stdout.split()] and done.stderr == ""


# -- pinned memory, with the calls to CUDA faked


class FakeCuda:
    """What is asked of torch.cuda for pinned memory. `answer` is cudaHostRegister's."""

    def __init__(self, answer: int):
        self.answer, self.registered, self.kernels = answer, {}, 0

    def cudart(self):
        return self

    def device(self, _):
        return contextlib.nullcontext()

    def cudaHostRegister(self, address, size, flags):
        assert flags == 1  # for every context
        if self.answer == 0:
            self.registered[address] = size
        return self.answer

    def cudaHostUnregister(self, address):
        del self.registered[address]
        return 0


@pytest.fixture
def cuda(monkeypatch):
    def faked(answer):
        fake = FakeCuda(answer)
        for name in ("cudart", "device"):
            monkeypatch.setattr(torch.cuda, name, getattr(fake, name))
        zeros = torch.zeros

        def kernel(*shape, device=None, **more):
            fake.kernels += device is not None
            return zeros(*shape, **more)

        monkeypatch.setattr(torch, "zeros", kernel)
        return fake

    return faked


def test_with_a_gpu_it_is_pinned_as_long_as_it_is_used(cuda):
    fake = cuda(0)
    segment = Segment.make(1 << 16)
    ends = Halves(segment, 0, torch.device("cuda:0"))
    segment.close_file()
    assert ends.pinned and fake.registered == {segment.memory.data_ptr(): COUNTERS + 2 * (1 << 16)}
    ends.close()
    ends.close()
    assert not ends.pinned and fake.registered == {} and fake.kernels == 0


def test_where_it_cannot_be_pinned_it_serves_all_the_same(cuda):
    fake = cuda(712)  # cudaErrorHostMemoryAlreadyRegistered
    segment = Segment.make(1 << 16)
    ends = Halves(segment, 0, torch.device("cuda:0"))
    segment.close_file()
    assert not ends.pinned and ends.place(100)
    assert fake.kernels == 1  # or the next operation would be told of the failure
    ends.close()


def test_copies_of_pinned_memory_are_left_to_the_device_until_the_next_message(pool, monkeypatch):
    exchange = exchange_of(pool)
    monkeypatch.setattr(Channel, "pinned", True)
    taken = exchange.channel._segments[1]._taken_by_me
    for steps in range(3):
        assert int(taken[0]) == max(steps - 1, 0) and echo(exchange, torch.randn(1, 1000))
        assert int(taken[0]) == steps  # sending this step's x waited for the copies of the one before
