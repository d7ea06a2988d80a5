"""The channel between two processes, and what a stranger or a faulty one can do at its other end."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
import tracemalloc

import psutil
import pytest
import torch

from hybridiff_core.workers import channel as channel_module
from hybridiff_core.workers.channel import HEAD, MARK, MOST_UNTAKEN, Channel, ChannelBroken, connect
from hybridiff_core.workers.launch_local import environment
from hybridiff_core.workers.pieces import receive_whole, send_whole
from hybridiff_core.workers.shared import FIRST_BYTES, Segment
from hybridiff_core.workers.sockets import pair
from hybridiff_core.workers.wire import DTYPES, as_bytes

CPU = torch.device("cpu")
TOKEN = bytes(range(32))
PARTS = [((3, 5), torch.float32), ((2,), torch.int64)]


def head(size, number=0, start=0):
    return HEAD.pack(MARK, number, size, start)


def both(end_a, end_b, token_b=TOKEN, memory=(None, None)):
    """Connect both ends at once; a failure is returned in place of the channel."""
    ends = {}

    def meet(end, rank, token):
        try:
            ends[rank] = connect(end, rank, CPU, token, memory[rank])
        except ChannelBroken as error:
            ends[rank] = error

    threads = [threading.Thread(target=meet, args=args) for args in ((end_a, 0, TOKEN), (end_b, 1, token_b))]
    [thread.start() for thread in threads], [thread.join() for thread in threads]
    return ends[0], ends[1]


def twice(each_way=FIRST_BYTES):
    """A segment, and the same as another process would have it."""
    made = Segment.make(each_way)
    if sys.platform == "win32":
        return made, Segment.take_over(made.hand_over(None), None)
    with contextlib.ExitStack() as stack:
        here, there = map(stack.enter_context, socket.socketpair())
        taken = Segment.take_over(made.hand_over(here), there)
    made.close_file()
    return made, taken


@pytest.fixture(params=["shared memory", "a socket alone"])
def ends(request):
    here, there = both(*pair(), memory=twice() if request.param == "shared memory" else (None, None))
    yield here, there
    here.close()
    there.close()


@pytest.fixture
def raw():
    """A channel, and the bare socket at its other end."""
    end, bare = pair()
    channel = Channel(end, CPU)
    yield channel, bare
    channel.close()
    bare.close()


def test_messages_cross_in_order_both_ways(ends):
    for sender, receiver in (ends, ends[::-1]):
        expected = [receiver.expect(PARTS) for _ in range(3)]
        sent = [[torch.randn(3, 5), torch.tensor([i, -i])] for i in range(3)]
        for message in sent:
            assert sender.send(message) == 80  # 60 and 16 bytes, each rounded up to 16
        for message, coming in zip(sent, expected):
            for tensor, got in zip(message, coming.wait(5)):
                assert torch.equal(tensor, got)
            coming.release()


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_a_tensor_of_any_strides_crosses(ends, dtype):
    """It is copied once, into the memory where the message lies."""
    here, there = ends
    plain = (torch.arange(192) % 3 % 2).to(torch.uint8).view(dtype)[:24].reshape(2, 3, 4)
    for tensor in (plain, plain.transpose(0, 2), plain[:, 1:, ::2], plain[:1].expand(5, 3, 4), plain[0, 0, 0]):
        coming = there.expect([((3,), torch.uint8), (tuple(tensor.shape), dtype)])
        here.send([torch.tensor([1, 2, 3], dtype=torch.uint8), tensor])
        _, came = coming.wait(5)
        assert torch.equal(as_bytes(came), as_bytes(tensor))
        coming.release()


def test_a_message_larger_than_the_sockets_buffers(ends):
    here, there = ends
    whole = torch.randn(9 << 20)  # 36 MB: three pieces
    sending = threading.Thread(target=send_whole, args=(here, whole))
    sending.start()
    assert torch.equal(receive_whole(there, whole.shape, whole.dtype), whole)
    sending.join()


def test_large_messages_may_cross_each_other(ends):
    big = torch.ones(4 << 20, dtype=torch.uint8)
    coming = [end.expect([(tuple(big.shape), torch.uint8)]) for end in ends]
    for end in ends:
        end.send([big])
    for expected in coming:
        assert torch.equal(expected.wait(5)[0], big)


@pytest.mark.parametrize(
    "bytes_sent, words",
    [
        (head(16), "a message of 16 bytes came where 80 were expected"),
        (head(2**64 - 1), "a message of 18446744073709551615 bytes came where 80 were expected"),
        (b"GET / HTTP/1.1\r\nHost: somewhere\r\n\r\n", "what came is not a message"),
        (b"", "the other end hung up"),
        (head(80) + b"x" * 40, "the other end hung up"),
    ],
    ids=["short", "giant", "http", "nothing", "half"],
)
def test_what_is_no_such_message_is_refused(raw, bytes_sent, words):
    channel, bare = raw
    coming = channel.expect(PARTS)
    tracemalloc.start()
    bare.sendall(bytes_sent)
    bare.shutdown(socket.SHUT_WR)
    with pytest.raises(ChannelBroken, match=words):
        coming.wait(5)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    with pytest.raises(ChannelBroken):  # and nothing after it is believed
        channel.expect(PARTS).wait(0.5)


def test_an_announcement_over_the_limit_allocates_nothing(raw):
    with pytest.raises(ChannelBroken, match="over the limit"):
        raw[0].expect([((1 << 40,), torch.float32)])


def test_one_that_dawdles_is_not_waited_for(raw):
    channel, bare = raw
    coming = channel.expect(PARTS)
    bare.sendall(head(80)[:3])
    with pytest.raises(ChannelBroken, match="nothing came or went"):
        coming.wait(0.2)


def test_one_that_takes_nothing_is_not_waited_for(raw):
    channel, _ = raw
    for _ in range(MOST_UNTAKEN):
        channel.send([torch.zeros(16 << 20, dtype=torch.uint8)])
    looks = []
    with pytest.raises(ChannelBroken, match="nothing came or went"):
        channel.send([torch.zeros(1)], 0.2, lambda: looks.append(1))
    assert looks


@pytest.mark.parametrize("each_way", [None, 1 << 20], ids=["a socket alone", "shared memory that some fit in"])
def test_one_that_computes_is_not_waited_for_and_then_gets_everything_in_order(each_way):
    """Where it takes nothing for a while, the sender goes on, and may change what it sent."""
    here, there = both(*pair(), memory=twice(each_way) if each_way else (None, None))
    sizes = [4 << 20, 1000, 4 << 20, 1000]
    coming = [there.expect([((size,), torch.uint8)]) for size in sizes]
    sent = torch.empty(4 << 20, dtype=torch.uint8)
    for value, size in enumerate(sizes[:MOST_UNTAKEN]):
        here.send([sent.fill_(value)[:size]], 0.0)
    taken = threading.Thread(target=lambda: [expected.wait(10) for expected in coming])
    taken.start()
    for value, size in enumerate(sizes[MOST_UNTAKEN:], MOST_UNTAKEN):
        here.send([sent.fill_(value)[:size]], 10.0)
    taken.join()
    for value, expected in enumerate(coming):
        assert (expected.wait(0)[0] == value).all()
    here.close()
    there.close()


def test_an_interrupt_in_the_middle_of_a_message_breaks_the_channel(ends, monkeypatch):
    """Or the other end would take the next message for the rest of this one."""
    here, there = ends

    def interrupt(*args, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(channel_module, "ready", interrupt)
    with pytest.raises(KeyboardInterrupt):
        here.send([torch.zeros(64 << 20, dtype=torch.uint8)])
    monkeypatch.undo()
    with pytest.raises(ChannelBroken):
        here.send([torch.zeros(1)])
    with pytest.raises(ChannelBroken, match="hung up"):
        there.expect([((64 << 20,), torch.uint8)]).wait(5)


def test_a_channel_has_no_threads(ends):
    """Each would wait for Python's lock while kernels are launched."""
    for sender, receiver in (ends, ends[::-1]):
        expected = receiver.expect([((64 << 10,), torch.float32)])
        sender.send([torch.ones(64 << 10)])
        expected.wait(5)
        expected.release()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("hybridiff")] == []


# -- strangers


def test_a_wrong_token_is_refused_at_both_ends():
    here, there = both(*pair(), token_b=b"x" * 32)
    assert isinstance(here, ChannelBroken) and isinstance(there, ChannelBroken)
    assert "does not know" in str(there) and "hung up" in str(here)


@pytest.mark.parametrize(
    "bytes_sent, words",
    [
        (b"", "hung up before"),
        (b"x" * 31, "hung up before"),
        (os.urandom(1 << 16), "another program answered"),
        (head(2**63), "another program answered"),
    ],
    ids=["nothing", "short", "noise", "giant"],
)
def test_no_token_is_refused(bytes_sent, words):
    end, bare = pair()

    def answer():
        with contextlib.suppress(OSError):  # refused before all of it was taken
            bare.sendall(bytes_sent)
            bare.shutdown(socket.SHUT_WR)

    # a thread: where a socket's buffer is small (macOS), the noise does not fit in it
    thread = threading.Thread(target=answer)
    thread.start()
    with pytest.raises(ChannelBroken, match=words):
        connect(end, 1, CPU, TOKEN)
    thread.join()
    with contextlib.suppress(ConnectionResetError):
        assert bare.recv(100) == b""  # and it learnt nothing
    bare.close()


def test_a_byte_now_and_then_does_not_hold_the_door_open(monkeypatch):
    monkeypatch.setattr(channel_module, "CONNECT_LIMIT_S", 0.5)
    end, bare = pair()

    def drip():
        try:
            for _ in range(30):
                bare.sendall(b"x")
                time.sleep(0.1)
        except OSError:
            pass

    thread = threading.Thread(target=drip)
    thread.start()
    started = time.monotonic()
    with pytest.raises(ChannelBroken, match=r"did not show within"):
        connect(end, 1, CPU, TOKEN)
    assert time.monotonic() - started < 1.5
    thread.join()
    bare.close()


def test_a_pair_is_not_made_with_a_stranger(monkeypatch):
    """Where a pair is made over the loopback address, as on Windows, somebody else may connect first."""
    monkeypatch.delattr(socket, "AF_UNIX", raising=False)

    def race(*args, **more):
        listener = socket.create_server(("127.0.0.1", 0))
        ours = socket.create_connection(listener.getsockname())
        stranger = socket.create_connection(listener.getsockname())
        first, second = listener.accept()[0], listener.accept()[0]
        listener.close()
        first.close(), stranger.close()
        return ours, second

    monkeypatch.setattr(socket, "socketpair", race)
    with pytest.raises(Exception, match="another program connected in place of this one, 5 times in a row"):
        pair()
    pairs = iter([race(), race(), loopback()])
    monkeypatch.setattr(socket, "socketpair", lambda: next(pairs))
    here, there = pair()
    here.sendall(b"ours")
    assert there.recv(4) == b"ours"
    here.close(), there.close()


def loopback():
    """A pair as Windows has them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        here = socket.create_connection(listener.getsockname())
        return here, listener.accept()[0]


@pytest.mark.skipif(not hasattr(psutil.Process, "num_fds"), reason="there are no file descriptors to count")
def test_a_workers_end_is_forgotten_by_its_peer(pool_with_two):
    stays, goes = pool_with_two
    process = psutil.Process(stays.process.pid)
    open_before, threads_before = process.num_fds(), process.num_threads()
    os.kill(goes.process.pid, 9)
    goes.close()
    deadline = time.monotonic() + 5
    while process.num_fds() > open_before - 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    # its socket and its memory; no thread was there for it
    assert process.num_fds() == open_before - 2 and process.num_threads() == threads_before
    assert stays.requests.peers == {} and stays.alive()


def test_nothing_listens(pool_with_two):
    """Neither this process nor a worker has a socket that anybody could connect to."""
    for pid in (os.getpid(), *(exchange.process.pid for exchange in pool_with_two)):
        kinds = psutil.Process(pid).net_connections(kind="inet")
        assert [one for one in kinds if one.status == psutil.CONN_LISTEN] == []
        if hasattr(socket, "AF_UNIX"):
            assert [one for one in psutil.Process(pid).net_connections(kind="unix") if one.laddr] == []


@pytest.fixture
def pool_with_two():
    from hybridiff_core.workers.devices import Place
    from hybridiff_core.workers.pool import Pool

    pool = Pool("demo", lambda place: {"threads": 1})
    config = {"config": {"size": 16, "width": 32, "depth": 2, "heads": 2}}
    leases = [pool.prepare(Place(f"cpu#{i}", f"cpu {i}", "cpu"), CPU, config) for i in range(2)]
    exchanges = [lease.ready(lambda: None) for lease in leases]
    exchanges[0].link(exchanges[1])
    yield exchanges
    pool.close()


def tcp_pair():
    """As Windows makes a pair: over TCP, on the loopback address."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(1)
        here = socket.create_connection(server.getsockname())
        there, _ = server.accept()
    return here, there


def test_a_pair_that_is_tcp_sends_at_once():
    """Without TCP_NODELAY, and with two writes a message, each way waits for the other end's delayed answer: 40 ms."""
    ends = both(*tcp_pair())
    tensor, times = torch.ones(4096), []
    for _ in range(20):
        started = time.perf_counter()
        for sender, receiver in (ends, ends[::-1]):
            expected = receiver.expect([((4096,), torch.float32)])
            sender.send([tensor])
            assert torch.equal(expected.wait(5.0)[0], tensor)
            expected.release()
        times.append(time.perf_counter() - started)
    for end in ends:
        end.close()
    assert sorted(times)[10] < 0.02


def test_a_worker_is_not_told_secrets():
    right = {
        "PATH": "/bin", "Path": "C:", "CUDA_VISIBLE_DEVICES": "1", "OMP_NUM_THREADS": "1", "HF_HOME": "/x",
        "LC_ALL": "C", "COMFY_CLI": "1", "NO_PROXY": "localhost", "HTTP_PROXY": "http://proxy:3128",
        # what set-ups need that no list of ours would name
        "FLASH_ATTENTION_TRITON_AMD_ENABLE": "TRUE", "COMFYUI_ENABLE_MIOPEN": "1", "NIX_LD": "/nix", "CC": "gcc",
        "INCLUDE": "C:", "LIB": "C:", "PROGRAMFILES(X86)": "C:", "XFORMERS_DISABLED": "1",
    }  # fmt: skip
    secret = {
        "HF_TOKEN": "t", "CUDA_API_KEY": "t", "AWS_SECRET_ACCESS_KEY": "t", "PGPASSWORD": "p", "SSH_AUTH_SOCK": "/s",
        "HTTPS_PROXY": "http://user:word@proxy", "PIP_INDEX_URL": "https://user@host/simple", "OPENAI_APIKEY": "k",
    }  # fmt: skip
    assert environment({**right, **secret}) == right
