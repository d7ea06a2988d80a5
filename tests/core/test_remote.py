"""Other machines, as far as no Ray is needed: who is listed, what is chosen, what crosses in a call."""

from __future__ import annotations

import json
import os
import re
import tempfile
import time

import numpy as np
import pytest
import torch

from hybridiff_core.network.tokens import Form
from hybridiff_core.remote import machines
from hybridiff_core.remote.machines import Cluster, Device, Machine, from_labels, pack_version, to_labels
from hybridiff_core.remote.parcels import CHUNK, Stream, chunks, opened, parcel
from hybridiff_core.share import Unit, by_tokens
from hybridiff_core.workers.channel import ChannelBroken
from hybridiff_core.workers.devices import choices, places, short_name

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


def test_a_message_comes_whole_in_pieces():
    tensors = [torch.randn(3, 400_001), torch.arange(5), torch.randn(2, 3).bfloat16()]
    there, here = Stream(), Stream()
    there.send(tensors)
    (message,) = there.outgoing
    assert len(chunks(message)) == -(-message.nbytes // CHUNK) > 2
    for piece in chunks(message):
        here.put(piece)
    expected = here.expect([(tuple(tensor.shape), tensor.dtype) for tensor in tensors])
    assert all(map(torch.equal, expected.wait(0.0), tensors))
    with pytest.raises(ChannelBroken):
        here.expect([((1,), torch.uint8)])


@pytest.mark.parametrize(
    ("text", "data"),
    [
        (b"{}", np.zeros(8, np.float32)), (b"{}", np.zeros((2, 2), np.uint8)), (b"{}", b"xxxx"),
        (b"[]", np.zeros(1, np.uint8)), (b"{", np.zeros(1, np.uint8)), ("{}", np.zeros(1, np.uint8)),
    ],
)  # fmt: skip
def test_what_is_no_parcel_is_refused(text, data):
    with pytest.raises(ValueError):
        opened(text, data)


def test_the_memory_of_a_message_is_used_again():
    there, here = Stream(), Stream()
    places = []
    for _ in range(2):
        there.begin()
        there.send([torch.arange(9)])
        (message,) = there.outgoing
        here.put(message)
        came = here.expect([((9,), torch.int64)])
        assert came.wait(0.0)[0].tolist() == list(range(9))
        places.append((message.ctypes.data, came.wait(0.0)[0].data_ptr()))
        came.release()
    assert places[0] == places[1]


def test_a_parcel_is_a_frame_and_bytes():
    frame, data = opened(*parcel({"op": "step"}, np.arange(7, dtype=np.uint8)))
    assert frame == {"op": "step"} and data.tolist() == list(range(7))


def test_tokens_are_divided_among_devices_of_this_machine():
    form = Form(blocks=4, tokens=1024, text=16, attends=(0,) * 4, bytes_a_token=64)
    deal = by_tokens([Unit(0, 0)], 1, [1.0, 1.0], form).on([0, 2])
    assert deal.places == [0, 2] and deal.loads(3)[1] == 0.0
