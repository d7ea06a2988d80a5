"""Before a worker starts, or is given another model, memory is asked for; NVML is a stand-in, RAM this machine's."""

from __future__ import annotations

import psutil
import pytest
import torch

from hybridiff_core.workers import memory
from hybridiff_core.workers.devices import Place
from hybridiff_core.workers.memory import Need, free_ram, require_room
from hybridiff_core.workers.pool import Pool
from hybridiff_core.workers.watch import WorkerLost

from .nvml_fake import GIB, Card, driver

CPU = torch.device("cpu")
HELPER = Place("cpu#0", "cpu (process 2)", "cpu")
GPU = Place("cuda:1#0", "cuda:1 (RTX 3090, 24 GB)", "cuda:0", uuid="GPU-1")
MAPPED = {"mapped": True}  # no RAM of this machine counts
SMALL = {"config": {"size": 16, "width": 32, "depth": 2, "heads": 2}}


def card(monkeypatch, free, **more):
    driver(monkeypatch, [Card("NVIDIA GeForce RTX 3090", "GPU-1", free=free, **more)])


def test_a_model_that_does_not_fit_the_devices_free_memory_is_loaded_in_part(monkeypatch):
    card(monkeypatch, 5 * GIB)
    line = require_room(GPU, Need("model", 11 * GIB, GIB, **MAPPED), None)
    assert line.startswith(
        "cuda:1 (RTX 3090, 24 GB) has 5.0 GB of its memory free, this model needs 12.0: it is loaded"
    )


def test_a_model_that_fits_is_no_matter(monkeypatch):
    card(monkeypatch, 13 * GIB)
    assert require_room(GPU, Need("model", 11 * GIB, GIB, **MAPPED), None) is None


def test_what_the_worker_holds_is_its_own_to_give(monkeypatch):
    card(monkeypatch, 5 * GIB)
    held = [Need("another", 8 * GIB, GIB, **MAPPED)]
    assert require_room(GPU, Need("model", 11 * GIB, GIB, **MAPPED), held) is None


def test_a_full_device_is_left_out(monkeypatch):
    card(monkeypatch, GIB // 5)
    with pytest.raises(WorkerLost, match=r"24 GB\) is left out: 0.2 GB of its memory are free, this model needs 2.0"):
        require_room(GPU, Need("model", GIB, GIB, **MAPPED), None)


def test_a_model_that_cannot_be_loaded_in_part_is_left_out(monkeypatch):
    card(monkeypatch, 5 * GIB)
    with pytest.raises(WorkerLost, match=r"24 GB\) is left out: 5.0 GB of its memory are free, this model needs 12.0"):
        require_room(GPU, Need("model", 12 * GIB, whole=True, **MAPPED), None)


@pytest.mark.parametrize("unknown", ["no NVML", "no UUID", "no answer"])
def test_where_nothing_is_known_nothing_is_said(monkeypatch, unknown):
    card(monkeypatch, GIB // 5, dumb=unknown == "no answer")
    if unknown == "no NVML":
        monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    place = Place(GPU.key, GPU.label, GPU.device) if unknown == "no UUID" else GPU
    assert require_room(place, Need("model", GIB, GIB, **MAPPED), None) is None


@pytest.mark.parametrize("place", [HELPER, GPU], ids=["cpu", "gpu"])
def test_ram_that_would_not_hold_the_model_leaves_the_worker_out(place):
    more = int(free_ram() * 1.5)
    with pytest.raises(WorkerLost, match=r"is left out: .* GB of RAM are free, its worker needs"):
        require_room(place, Need("model", more), None)
    # but for what the worker holds itself, and a file that the system reads as it is needed
    assert require_room(place, Need("model", more), [Need("another", more)]) is None
    if place is GPU:
        assert require_room(place, Need("model", more, **MAPPED), None) is None
    with pytest.raises(WorkerLost):
        require_room(place, Need("model", more // 2), None, promised=more // 2)


GROUPS = {
    "version 2": ("memory.max", "memory.current", "memory.stat", ""),
    "version 1": (
        "memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_",
    ),
}  # fmt: skip


@pytest.mark.parametrize("version", GROUPS)
def test_a_containers_limit_counts(tmp_path, version):
    limit, used, stat, prefix = GROUPS[version]
    assert free_ram(tmp_path) <= psutil.virtual_memory().total + psutil.swap_memory().total
    (tmp_path / "memory").mkdir()
    (tmp_path / used).write_text("900000\n")
    (tmp_path / stat).write_text(f"anon 1\n{prefix}inactive_file 300000\n{prefix}active_file 50000\n")
    (tmp_path / limit).write_text("1000000\n")
    assert free_ram(tmp_path) == 1000000 - 900000 + 350000
    (tmp_path / limit).write_text("max\n" if version == "version 2" else f"{2**63 - 4096}\n")
    assert free_ram(tmp_path) > 1000000


@pytest.fixture
def pool():
    starts = []
    pool = Pool("demo", lambda place: starts.append(place) or {"threads": 1})
    pool.starts = starts
    yield pool
    pool.close()


def prepared(pool, need, recipe=SMALL):
    lease = pool.prepare(HELPER, CPU, recipe, "wish", need)
    try:
        return lease.ready(lambda: None)
    finally:
        pool.release(lease)


def test_without_ram_no_worker_is_started_and_that_is_no_failure_of_the_device(pool):
    for _ in range(3):
        with pytest.raises(WorkerLost, match=r"is left out: .* GB of RAM"):
            prepared(pool, Need("model", 1 << 50))
    assert pool.starts == []
    prepared(pool, Need("another", 1 << 20))
    assert len(pool.starts) == 1


def test_a_model_that_the_worker_holds_is_not_asked_for_again(pool, monkeypatch):
    asked = []
    monkeypatch.setattr(memory, "free_ram", lambda: asked.append(1) or 1 << 40)
    for _ in range(2):
        exchange = prepared(pool, Need("model", 1 << 20))
    assert len(asked) == 1
    prepared(pool, Need("another", 1 << 20))
    assert len(asked) == 2
    exchange.close()
    prepared(pool, Need("another", 1 << 20))
    assert len(asked) == 3 and pool._promised == {}
