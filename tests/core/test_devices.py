"""Places for workers. GPUs are made up here: this is about names and visibility, not about hardware."""

import sys
import types

import pytest
import torch

from hybridiff_core.workers import devices
from hybridiff_core.workers.devices import Gpu, places

CPU = torch.device("cpu")
TWO = tuple(Gpu(f"cuda:{i}", f"Card {i}", "CUDA_VISIBLE_DEVICES", f"GPU-{i}") for i in range(2))


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(devices, "gpus", lambda: TWO)


@pytest.fixture
def no_gpus(monkeypatch):
    monkeypatch.setattr(devices, "gpus", lambda: ())


def test_auto_is_every_gpu_but_ones_own(two_gpus, monkeypatch):
    monkeypatch.setattr(devices, "gpu_of", lambda device: TWO[0])
    (place,), lines = places(["auto"], torch.device("cuda", 0))
    assert (place.key, place.label, place.device) == ("cuda:1#0", "cuda:1 (Card 1)", "cuda:0")
    assert place.visibility == {"CUDA_VISIBLE_DEVICES": "GPU-1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert lines == []
    assert devices.choices() == ["auto", "same", "cpu", "cuda:0", "cuda:1"]


def test_same_is_ones_own_gpu(two_gpus, monkeypatch):
    monkeypatch.setattr(devices, "gpu_of", lambda device: TWO[1])
    (place,), _ = places(["same"], torch.device("cuda", 0))
    assert (place.key, place.device, place.visibility["CUDA_VISIBLE_DEVICES"]) == ("cuda:1#0", "cuda:0", "GPU-1")
    assert place.label == "cuda:1 (Card 1) (process 2)"


def test_auto_without_a_second_gpu_says_so(no_gpus):
    found, lines = places(["auto"], CPU)
    assert found == []
    assert lines == ["no second GPU was found on this machine; a Hybridiff Devices node can choose one"]


def test_a_device_that_is_gone_is_named(two_gpus):
    found, lines = places(["cuda:7", "cuda:1"], CPU)
    assert [place.key for place in found] == ["cuda:1#0"]
    assert lines == ["the device cuda:7 is not on this machine (here are: same, cpu, cuda:0, cuda:1)"]


def test_a_device_named_twice_gets_two_processes(no_gpus):
    found, _ = places(["same", "same", "cpu"], CPU)
    assert [place.key for place in found] == ["cpu#0", "cpu#1", "cpu#2"]
    assert [place.label for place in found] == ["cpu (process 2)", "cpu (process 3)", "cpu (process 4)"]
    assert all(place.device == "cpu" and place.visibility == {"CUDA_VISIBLE_DEVICES": ""} for place in found)


class NoAnswer(Exception):
    """pynvml's NVMLError."""


def driver(monkeypatch, gpus, count=None):
    """A driver that lists these GPUs, by UUID; None for one that cannot be opened."""

    def opened(index):
        if gpus[index] is None:
            raise NoAnswer("GPU is lost")
        return gpus[index]

    def counted():
        if count is not None:
            raise count
        return len(gpus)

    nvml = types.SimpleNamespace(
        NVMLError=NoAnswer,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=counted,
        nvmlDeviceGetHandleByIndex=opened,
        nvmlDeviceGetName=lambda uuid: f"Card {uuid}",
        nvmlDeviceGetUUID=lambda uuid: uuid,
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    devices.gpus.cache_clear()
    monkeypatch.setattr(devices, "gpus", devices.gpus.__wrapped__)


def test_a_gpu_that_cannot_be_opened_is_left_out_and_said(monkeypatch, caplog):
    driver(monkeypatch, ["GPU-a", None, "GPU-c"])
    assert [(gpu.name, gpu.visible_as) for gpu in devices.gpus()] == [("cuda:0", "GPU-a"), ("cuda:2", "GPU-c")]
    assert caplog.messages == ["the GPU cuda:1 cannot be opened (GPU is lost), so it is left out"]


def test_a_driver_that_does_not_answer_is_no_fault(monkeypatch):
    driver(monkeypatch, ["GPU-a"], count=NoAnswer("driver is not loaded"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.gpus() == ()
