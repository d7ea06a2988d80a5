"""What the driver's library is asked, and that nothing it does breaks a run. The driver is made up."""

import sys
import types

import pytest

from hybridiff_core.workers import nvml

from .nvml_fake import GIB, Card, NoAnswer, driver

CARD = Card("NVIDIA GeForce RTX 3090", "GPU-a", (8, 6), 24 * GIB, 20 * GIB, held={11: 2 * GIB, 12: GIB}, utilisation=40)


def test_a_listing_says_what_each_gpu_is(monkeypatch):
    calls = driver(monkeypatch, [CARD, Card("NVIDIA A100", "GPU-b", (8, 0), 80 * GIB, mig=True)])
    listing = nvml.listing()
    assert listing.gpus == (
        nvml.NvmlGpu(0, "NVIDIA GeForce RTX 3090", "GPU-a", (8, 6), 24 * GIB, False),
        nvml.NvmlGpu(1, "NVIDIA A100", "GPU-b", (8, 0), 80 * GIB, True),
    )
    assert (listing.unopened, listing.driver) == ((), "560.35")
    assert calls["running"] == 0  # the library is let go


def test_a_gpu_that_cannot_be_opened_is_only_named(monkeypatch):
    driver(monkeypatch, [CARD, Card("", "GPU-b", lost=True), Card("C", "GPU-c", dumb=True)])
    listing = nvml.listing()
    assert [gpu.uuid for gpu in listing.gpus] == ["GPU-a", "GPU-c"]
    assert listing.unopened == ((1, "GPU is lost"),)
    assert listing.gpus[1] == nvml.NvmlGpu(2, "C", "GPU-c", None, None, False)


def test_memory_and_use(monkeypatch):
    driver(monkeypatch, [CARD, Card("C", "GPU-c", dumb=True), Card("D", "GPU-d", held={11: None})])
    assert nvml.memory("GPU-a") == (20 * GIB, 24 * GIB)
    assert nvml.use("GPU-a") == nvml.Use({11: 2 * GIB, 12: GIB}, 40)
    assert nvml.use("GPU-a").of_others({11}) == GIB
    assert nvml.use("GPU-d").of_others(()) is None  # Windows does not tell
    assert nvml.use("GPU-d").of_others({11}) == 0
    assert (nvml.memory("GPU-c"), nvml.use("GPU-c")) == (None, nvml.Use({}, None))
    assert (nvml.memory("GPU-z"), nvml.use("GPU-z")) == (None, None)


def no_driver():
    raise NoAnswer("Driver Not Loaded")


@pytest.mark.parametrize(
    "library",
    [None, types.SimpleNamespace(), types.SimpleNamespace(nvmlInit=no_driver), types.SimpleNamespace(nvmlInit=int)],
    ids=["missing", "empty", "no driver", "no calls"],
)
def test_without_a_library_that_works_every_answer_is_empty(monkeypatch, library):
    monkeypatch.setitem(sys.modules, "pynvml", library)
    assert nvml.listing() == nvml.Listing()
    assert (nvml.memory("GPU-a"), nvml.use("GPU-a")) == (None, None)


def test_a_driver_that_does_not_count_is_no_fault(monkeypatch):
    driver(monkeypatch, [CARD], count=NoAnswer("Unknown Error"))
    assert nvml.listing().gpus == ()
