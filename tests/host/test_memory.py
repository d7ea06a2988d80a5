"""A worker's memory: given back when the user unloads, not when the host makes room; asked for before a start."""

from __future__ import annotations

import shutil
import time

import psutil
import pytest

from .asked import Asked
from .comfy_server import PACK, Comfy, make_models
from .conftest import Bench
from .test_exact import LIMIT, assert_shared
from .test_fallbacks import workers

GIVEN_BACK = "the memory of the worker on cpu (process 2) is given back"


def run(bench, how: str | None = None) -> tuple[Bench, int]:
    """A short run, and what a node then frees; gives where the server's log was before it."""
    side = bench("sd15", size=8)
    side.settings["steps"] = 1
    latent = side.sampler("HybridiffKSampler", **side.device_chain())
    if how:
        latent = side.graph.add("TestFreed", latent=latent, how=how, turn=side.settings["seed"])
    side.save(latent)
    before = side.comfy.log.stat().st_size
    side.comfy.run(side.graph.nodes)
    return side, before


def given_back(comfy: Comfy, since: int, within_s: float = 20.0) -> bool:
    deadline = time.monotonic() + within_s
    while not (found := GIVEN_BACK.encode() in comfy.log.read_bytes()[since:]) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def assert_next_is_shared(bench) -> None:
    again = bench("sd15", size=8)
    again.settings["steps"] = 1
    difference, report = again.compare()
    assert difference <= LIMIT
    assert_shared(report)


@pytest.mark.parametrize("before", ["it is loaded", "the host made room"])
def test_the_users_unloading_gives_the_workers_memory_back(bench, before):
    side, since = run(bench, "room" if before == "the host made room" else None)
    pids = {worker.pid for worker in workers(side.comfy)}
    assert not given_back(side.comfy, since, within_s=2.0)
    side.comfy.post("/free", {"unload_models": True})
    assert given_back(side.comfy, since)
    assert_next_is_shared(bench)
    assert {worker.pid for worker in workers(side.comfy)} == pids


def test_a_node_that_unloads_all_models_counts_as_the_user(bench):
    side, since = run(bench, "all")
    assert given_back(side.comfy, since)


def test_freeing_the_nodes_cache_too_ends_the_worker(bench):
    side, _ = run(bench)
    found = workers(side.comfy)
    side.comfy.post("/api/free", {"free_memory": True})
    assert psutil.wait_procs(found, timeout=10)[1] == []
    assert_next_is_shared(bench)


def test_unloading_while_a_run_goes_on_waits_for_its_end(bench):
    run(bench)
    side = bench("sd3", size=48)
    side.settings["steps"] = 30
    ours = side.sampler("HybridiffKSampler", **side.device_chain())
    side.save(ours)
    since = side.comfy.log.stat().st_size
    prompt = side.comfy.queue(side.graph.nodes)
    (worker, *_) = workers(side.comfy)
    used, deadline = worker.cpu_times().user, time.monotonic() + 60
    while worker.cpu_times().user < used + 0.3 and time.monotonic() < deadline:
        time.sleep(0.01)  # until it works on this prompt
    side.comfy.post("/free", {"unload_models": True})
    (report,) = side.comfy.wait(prompt)["outputs"][ours[0]]["hybridiff"]
    assert_shared(report, calls=30)
    assert given_back(side.comfy, since)


def test_a_worker_that_would_not_fit_into_ram_is_not_started(bench):
    side = bench("sd3")
    folder = side.comfy.base / "models" / "diffusion_models"
    another = folder / "another.safetensors"  # a model that no worker holds
    shutil.copy(folder / "sd3_depth4.safetensors", another)
    try:
        before = {worker.pid for worker in workers(side.comfy)}
        side.model = side.graph.add("UNETLoader", unet_name=another.name, weight_dtype="default")
        side.model = side.graph.add("TestHuge", model=side.model)
        difference, report = side.compare()
        assert difference == 0.0 and report["shared_calls"] == 0
        (line,) = report["lines"]
        assert "is left out: " in line and "GB of RAM are free, its worker needs 10485" in line
        assert {worker.pid for worker in workers(side.comfy)} <= before
    finally:
        another.unlink()


def test_a_worker_makes_room_in_a_run_and_computes_the_same(comfyui_root):
    make_models(comfyui_root)
    asked = Asked(comfyui_root, PACK / "tests" / "host" / "room.py")
    try:
        found = asked.ask("room")
    finally:
        asked.close()
    assert found["before"] == 2 and found["after"] == [True]  # the run's own model stays
    assert found["held"][1] < found["held"][0]  # but for what of it can be computed from RAM
    assert found["difference"] <= LIMIT
