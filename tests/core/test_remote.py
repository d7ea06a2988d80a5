"""Other machines, as far as no Ray is needed: who is listed, what is chosen, what crosses in a call."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hybridiff_core.network.tokens import Form
from hybridiff_core.remote import connection, link, machines
from hybridiff_core.remote.connection import Connection, Door, connect
from hybridiff_core.remote.desk import Desk, DeskEndpoint
from hybridiff_core.remote.machines import Cluster, Device, Machine, from_labels, pack_version, to_labels
from hybridiff_core.remote.stream import Stream
from hybridiff_core.share import Unit, by_tokens
from hybridiff_core.workers.channel import ChannelBroken
from hybridiff_core.workers.devices import choices, places, short_name
from hybridiff_core.workers.sockets import Stranger

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
GPU, OTHER = Device("cuda:0", "RTX 3090", 24), Device("cuda:1", "RTX A6000", 48)
RAM = Device("cpu", "", 64)


def machine(name="pc-b", alive=True, pack=None, devices=(GPU, OTHER, RAM)) -> Machine:
    return Machine(name, f"node of {name}", alive, pack or pack_version(), "0.29.0", tuple(devices))


@pytest.fixture
def shared(monkeypatch, tmp_path):
    """What `share` would have written: shared(machine, ...)."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return lambda *found: machines.write(Cluster("10.0.0.1:6399", "10.0.0.1", "a token", found))


def test_labels_tell_all_of_a_machine():
    labels = to_labels(machine())
    assert all(re.fullmatch(r"[\w.-]{0,63}", value) for value in labels.values())
    assert from_labels("node of pc-b", True, labels) == machine(devices=[RAM, GPU, OTHER])
    assert from_labels("head", True, {"ray.io/node-id": "x"}) is None
    assert from_labels("odd", True, {"hybridiff-name": "a b\n"}) is None


def test_gpus_of_machines_that_are_there_are_listed(shared):
    before = choices()
    shared(machine(), machine("pc-c", alive=False), machine("box", devices=[Device("cpu", "", 8)]))
    assert choices() == [*before, "pc-b: cuda:0 (RTX 3090, 24 GB)", "pc-b: cuda:1 (RTX A6000, 48 GB)", "box: cpu"]
    assert short_name("pc-b: cuda:0 (RTX 3090, 24 GB)") == short_name("pc-b/cuda:0") == "pc-b/cuda:0"


@pytest.mark.parametrize("choice", ["pc-b: cuda:1 (RTX A6000, 48 GB)", "pc-b/cuda:1", "pc-b: cuda:1 (another card)"])
def test_a_device_is_found_by_its_machine_and_name(shared, choice):
    shared(machine())
    (place,), said = places([choice], CPU)
    assert (place.machine, place.there, place.device, place.label) == (
        "pc-b", "cuda:1", "cuda:0", "pc-b: cuda:1 (RTX A6000, 48 GB)",
    )  # fmt: skip
    assert said == []


@pytest.mark.parametrize(
    "choice, words",
    [
        ("pc-c: cuda:0", "pc-c is off"),
        ("pc-d: cuda:0", "no machine called pc-d joined"),
        ("pc-b: cuda:7", "pc-b has no cuda:7 (it has: cuda:0, cuda:1, cpu)"),
        ("old: cuda:0", "old is left out: it has another version of Hybridiff (0.0.1-0, here"),
    ],
)
def test_why_a_device_is_not_there_is_said(shared, choice, words):
    shared(machine(), machine("pc-c", alive=False), machine("old", pack="0.0.1-0"))
    found, said = places([choice], CPU)
    assert not found and len(said) == 1 and words in said[0]


def test_without_share_nothing_is_listed(shared):
    assert places(["pc-b: cuda:0"], CPU)[1] == [
        "pc-b/cuda:0 is not there: `python -m hybridiff_core share` does not run on this machine"
    ]
    assert places(["others"], CPU)[1] == ["no other machine has a GPU for this one"]


def test_auto_elsewhere_takes_gpus_of_the_own_kind(shared):
    from hybridiff_core.remote.places import others

    shared(machine("pc-b", alive=False), machine(), machine("pc-c", alive=False))
    found, said = others(CUDA, ["pc-b/cuda:0"])
    assert [place.there for place in found] == ["cuda:1"]
    assert said == ["pc-c is off, or cannot be reached"]


def test_what_is_old_or_not_ours_is_not_believed(shared):
    shared(machine())
    file = machines.folder() / "cluster.json"
    assert machines.read() and (file.stat().st_mode & 0o777) == 0o600
    told = json.loads(file.read_text())
    file.write_text(json.dumps({**told, "at": time.monotonic() - 60}))
    assert machines.read() is None
    for junk in ("", "[]", "{}", json.dumps({**told, "machines": 7})):
        file.write_text(junk)
        assert machines.read() is None
    file.write_text(json.dumps({**told, "at": time.monotonic()}))
    assert machines.read()
    if hasattr(os, "getuid"):
        machines.folder().chmod(0o755)
        assert machines.read() is None
        with pytest.raises(PermissionError):
            shared(machine())


def test_a_token_is_kept(shared):
    token = machines.kept_token()
    assert len(token) == 48 and machines.kept_token() == token


KEY = bytes(range(32))
PORTS = range(7910, 7913)


@pytest.fixture
def pair():
    """A connection's two ends, the bridge's and the worker's."""
    door = Door("127.0.0.1", PORTS, KEY)
    with ThreadPoolExecutor() as others:
        worker = others.submit(door.admit)
        ends = connect("127.0.0.1", door.port, KEY), worker.result(10)
    yield ends
    for end in ends:
        end.close()


def sent(bridge: Connection, message: np.ndarray, told: dict) -> threading.Thread:
    """A frame and what is behind it, sent by another thread: the socket does not hold all of it."""
    sending = threading.Thread(target=lambda: (bridge.send(told), bridge.add(message)))
    sending.start()
    return sending


def test_messages_come_whole(pair):
    bridge, worker = pair
    tensors = [torch.randn(3, 900_001), torch.arange(5), torch.randn(2, 3).bfloat16()]
    there, here = Stream(), Stream()
    there.send(tensors)
    (message,) = there.outgoing
    sending = sent(bridge, message, {"frame": {"op": "step"}, "size": message.nbytes})
    told = worker.receive()
    assert told == {"frame": {"op": "step"}, "size": message.nbytes}
    here.begin(worker, told["size"])
    expected = here.expect([(tuple(tensor.shape), tensor.dtype) for tensor in tensors])
    assert all(map(torch.equal, expected.wait(0.0), tensors))
    sending.join(10)
    with pytest.raises(ChannelBroken):
        here.expect([((1,), torch.uint8)])


def test_a_request_that_failed_leaves_nothing_unread(pair):
    bridge, worker = pair
    sending = sent(bridge, np.ones(3_000_001, np.uint8), {"size": 3_000_001})
    stream = Stream()
    stream.begin(worker, worker.receive()["size"])
    stream.end()
    sending.join(10)
    bridge.send({"op": "idle"})
    assert worker.receive() == {"op": "idle"}


def test_the_memory_of_a_message_is_used_again(pair):
    bridge, worker = pair
    there, here = Stream(), Stream()
    places = []
    for _ in range(2):
        there.begin(bridge, 0)
        there.send([torch.arange(9)])
        (message,) = there.outgoing
        bridge.add(message)
        here.begin(worker, message.nbytes)
        came = here.expect([((9,), torch.int64)])
        assert came.wait(0.0)[0].tolist() == list(range(9))
        places.append((message.ctypes.data, came.wait(0.0)[0].data_ptr()))
        came.release()
    assert places[0] == places[1]


def test_an_end_is_seen(pair):
    bridge, worker = pair
    worker.close()
    assert bridge.receive() is None
    with pytest.raises(EOFError):
        bridge.fill(np.empty(1, np.uint8))


@pytest.mark.parametrize("stranger", ["another key", "says nothing", "hangs up", "speaks HTTP"])
def test_who_does_not_know_the_key_is_not_let_in(stranger, monkeypatch):
    monkeypatch.setattr(connection, "PROVE_S", 0.2)
    door = Door("127.0.0.1", PORTS, KEY)
    with ThreadPoolExecutor() as others:
        admitted = others.submit(door.admit)
        if stranger == "another key":
            with pytest.raises(Stranger):
                connect("127.0.0.1", door.port, bytes(32))
        else:
            with socket.create_connection(("127.0.0.1", door.port)) as end:
                if stranger == "speaks HTTP":
                    end.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                if stranger != "hangs up":
                    with contextlib.suppress(ConnectionResetError):  # where more came than is read
                        assert not end.recv(1)  # nothing is told
        bridge = connect("127.0.0.1", door.port, KEY)  # and who does is let in afterwards
        bridge.send({"op": "idle"})
        assert admitted.result(10).receive() == {"op": "idle"}
    with pytest.raises(ConnectionRefusedError):  # nothing listens any more
        socket.create_connection(("127.0.0.1", door.port))


def test_a_bridge_does_not_take_another_program_for_its_worker(monkeypatch):
    """It listens in the worker's place, and gives back what it was told: that is no answer."""
    monkeypatch.setattr(connection, "ADMIT_S", 0.5)
    with socket.create_server(("127.0.0.1", PORTS[0])) as other, ThreadPoolExecutor() as others:
        trying = others.submit(connect, "127.0.0.1", PORTS[0], KEY)
        end, _ = other.accept()
        said = end.recv(64)
        end.sendall(said)
        with pytest.raises(Stranger):
            trying.result(10)
        assert len(said) == 32 and KEY not in said


def test_a_door_is_shut_in_time_though_strangers_knock(monkeypatch):
    monkeypatch.setattr(connection, "ADMIT_S", 0.5)
    door, over = Door("127.0.0.1", PORTS, KEY), threading.Event()

    def knock():
        while not over.wait(0.05):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", door.port)).close()

    with ThreadPoolExecutor() as others:
        others.submit(knock)
        since = time.monotonic()
        with pytest.raises(Stranger):
            door.admit()
        over.set()
    assert time.monotonic() - since < 2.0


def test_a_door_waits_for_a_port(monkeypatch):
    monkeypatch.setattr(connection, "ADMIT_S", 1.0)
    taken = [socket.create_server(("127.0.0.1", port)) for port in PORTS]
    with pytest.raises(OSError, match="in use"):
        Door("127.0.0.1", PORTS, KEY)
    with ThreadPoolExecutor() as others:
        coming = others.submit(Door, "127.0.0.1", PORTS, KEY)
        time.sleep(0.3)
        assert not coming.done()
        taken[1].close()
        assert coming.result(10).port == PORTS[1]
    with pytest.raises(Stranger):  # and it is shut
        coming.result().admit()
    for other in taken:
        other.close()


def test_what_a_worker_fails_over_ends_the_connection(pair):
    bridge, worker = pair
    desk = Desk.__new__(Desk)  # without a model: what comes is no request
    desk._door, desk._endpoint = SimpleNamespace(admit=lambda: worker), DeskEndpoint()
    bridge.send({"no": "request"})
    with pytest.raises(KeyError):
        desk.serve()
    assert bridge.receive() is None


def test_a_live_connection_is_not_cut(pair):
    bridge, worker = pair
    assert not bridge.is_cut()
    sent(bridge, np.ones(30_000_000, np.uint8), {"size": 30_000_000})  # more than is taken
    time.sleep(0.5)
    assert not bridge.is_cut()
    worker.receive()
    worker.fill(np.empty(30_000_000, np.uint8))


@pytest.mark.parametrize("messages", [[-1], [1.5], [True], ["1"], [1 << 40]])
def test_an_answer_of_no_possible_size_is_refused(messages):
    with pytest.raises((ValueError, TypeError)):
        link._size_of(messages)


def test_tokens_are_divided_among_devices_of_this_machine():
    form = Form(blocks=4, tokens=1024, text=16, attends=(0,) * 4, bytes_a_token=64)
    deal = by_tokens([Unit(0, 0)], 1, [1.0, 1.0], form).on([0, 2])
    assert deal.places == [0, 2] and deal.loads(3)[1] == 0.0
