"""Where nothing can be shared: the right picture, and one plain line that says why."""

from __future__ import annotations

import contextlib
import os
import shutil
import time

import psutil
import pytest

from .comfy_server import Refused
from .conftest import FamilyBench, large, plan_values
from .test_exact import LIMIT, assert_shared


def assert_alone(report: dict, words: str) -> None:
    assert report["shared_calls"] == 0 and report["calls"] > 0
    (line,) = report["lines"]
    assert words in line


def test_cfg_1_has_one_branch(bench):
    side = bench("sd15", size=8)
    side.settings["cfg"], side.devices = 1.0, ("same", "cpu", "cpu", "cpu")
    before = len(workers(side.comfy))
    difference, report = side.compare()
    assert difference == 0.0
    assert_alone(report, "ran on one device: at CFG 1 only one prompt is computed")
    assert report["devices"] == ["cpu"] and not report["loadings"]
    assert len(workers(side.comfy)) == before  # there is no part for one


def never_together(side, steps: int = 8):
    side.settings["steps"] = steps
    for name, start, end in (("positive", 0.0, 0.45), ("negative", 0.45, 1.0)):
        timed = {"conditioning": getattr(side, name), "start": start, "end": end}
        setattr(side, name, side.graph.add("ConditioningSetTimestepRange", **timed))
    return side


@pytest.mark.parametrize("mode", ["exact", "predict"])
def test_prompts_that_are_never_active_together(bench, mode):
    side = never_together(bench("sd15", size=8))
    side.plan = {"mode": mode}
    difference, report = side.compare()
    words = "where only one prompt is active, there is nothing to share"
    if mode == "exact":
        assert difference == 0.0
        assert_alone(report, f"ran on one device: {words}")
    else:
        assert words in report["lines"]


@large
@pytest.mark.full
@pytest.mark.parametrize("mode", ["exact", "auto"])
def test_a_model_that_makes_something_else_of_each_prompt_alone(comfy, mode):
    """ACE-Step 1.5 from a file, by parts: in a batch ComfyUI gives both prompts' timbres to the first."""
    side = FamilyBench(comfy, "ace15")
    side.settings |= {"steps": 8, "cfg": 3.0}
    side.plan = {"mode": mode}
    difference, report = side.compare()
    assert mode == "auto" or difference <= LIMIT
    assert any("the prompts of a step are not shared" in line for line in report["lines"]), report["lines"]
    assert all(step["way"] == "tokens" for step in report["steps"] if step["helpers"]), report["steps"]


def test_ace_step_with_the_negative_prompt_of_its_template_is_shared(comfy):
    """ConditioningZeroOut: ComfyUI then computes the prompts one by one, so each device can."""
    side = FamilyBench(comfy, "ace15_narrow")
    side.negative = side.graph.add("ConditioningZeroOut", conditioning=side.positive)
    side.settings |= {"steps": 6, "cfg": 3.0}
    difference, report = side.compare()
    assert difference <= LIMIT
    assert report["shared_calls"] >= 4 and report["lines"] == [], report["lines"]  # by its graph: two calls alone


def test_a_transformers_prompts_that_are_never_active_together_are_divided_by_tokens(bench):
    difference, report = never_together(bench("sd3")).compare()
    assert difference <= LIMIT
    ways = [step["way"] if step["helpers"] else "" for step in report["steps"]]
    assert ways.count("tokens") >= 6, report["lines"]  # each prompt's first step may be for looking at the network


def test_a_prompt_that_begins_later_is_shared_then(bench):
    side = bench("sd15", size=8)
    side.plan, side.devices = {"mode": "predict"}, ("same", "same")
    side.settings["steps"] = 8
    late = {"conditioning": side.negative, "start": 0.45, "end": 1.0}
    side.negative = side.graph.add("ConditioningSetTimestepRange", **late)
    _, report = side.compare()
    assert report["devices"] == ["cpu", "cpu (process 2)"]
    assert [loading["device"] for loading in report["loadings"]] == ["cpu (process 2)"]
    helped = [step["helpers"] for step in report["steps"]]
    assert helped[0] == 0 and 1 in helped[3:]


def test_no_second_device(bench):
    side = bench("sd3")
    side.devices = ()
    difference, report = side.compare()
    assert difference == 0.0
    assert_alone(report, "no second GPU was found on this machine")


@pytest.mark.parametrize("saved", ["cuda:7", "cuda:7 (RTX 3090, 24 GB)"])
def test_a_device_that_no_longer_exists(bench, saved):
    side = bench("sd3")
    side.devices = (saved,)
    difference, report = side.compare()
    assert difference == 0.0
    assert_alone(report, "the device cuda:7 is not on this machine (here are: same, cpu")


def test_a_missing_device_beside_one_that_is_there(bench):
    side = bench("sd3")
    side.devices = ("cuda:7", "same")
    difference, report = side.compare()
    assert difference <= LIMIT
    assert report["shared_calls"] == report["calls"]
    assert report["lines"] == ["the device cuda:7 is not on this machine (here are: same, cpu)"]


@pytest.mark.parametrize(
    "node, words",
    [
        ("TestSplitOfTheHost", "ComfyUI's own MultiGPU CFG Split is on this model, so Hybridiff does nothing"),
        ("TestAttentionPatch", "a node changes the network from inside (attn1_patch)"),
    ],
)
def test_a_model_that_cannot_cross(bench, node, words):
    side = bench("sd3")
    side.other_packs = "off"  # a worker could run the second's node too (test_by_graph)
    side.model = side.graph.add(node, model=side.model)
    difference, report = side.compare()
    assert difference == 0.0
    assert_alone(report, words)


def test_easycache_runs_inside_the_network(bench):
    side = bench("sd3")
    side.model = side.graph.add(
        "EasyCache", model=side.model, reuse_threshold=0.2, start_percent=0.15, end_percent=0.95, verbose=False
    )
    difference, report = side.compare()
    assert difference == 0.0
    assert_alone(report, "a node's code adds to the model while it samples (easycache)")  # by its own code, in each run


def test_the_hosts_own_split_without_a_second_gpu(bench):
    # it then does nothing, and leaves the model to us
    side = bench("sd3")
    side.model = side.graph.add("MultiGPU_WorkUnits", model=side.model, max_gpus=2)
    difference, report = side.compare()
    assert difference <= LIMIT
    assert_shared(report)


def test_a_model_file_that_is_gone_for_the_worker(bench):
    side = bench("sd3")
    side.model = side.graph.add("TestMissingFile", model=side.model)
    difference, report = side.compare()
    assert difference == 0.0
    assert report["shared_calls"] == 0
    (line,) = report["lines"]
    assert "sd3_depth4.safetensors.gone is not there for the worker" in line
    difference, report = bench("sd3").compare()  # and the worker lives on
    assert difference <= LIMIT
    assert_shared(report)


def test_a_model_file_that_was_written_anew(bench, comfy):
    folder = comfy.base / "models" / "diffusion_models"
    changing = folder / "changing.safetensors"
    shutil.copy(folder / "sd3_depth4.safetensors", changing)
    try:
        for changed in (False, True):
            side = bench("sd3")
            side.model = side.graph.add("UNETLoader", unet_name=changing.name, weight_dtype="default")
            difference, report = side.compare()
            assert difference <= LIMIT
            if changed:
                assert_alone(report, "changing.safetensors was changed after it was loaded; load it again")
            else:
                assert_shared(report)
            os.utime(changing, (1, 1))
    finally:
        changing.unlink()


def test_a_plan_of_another_version_is_refused_in_words(bench):
    side = bench("sd3")
    side.save(side.sampler("HybridiffKSampler", plan=side.graph.add("TestPlan", version=99)))
    with pytest.raises(Refused, match="the plan has version 99, this Hybridiff reads version 2"):
        side.comfy.run(side.graph.nodes)


@pytest.mark.parametrize("device", [3, [1]])
def test_a_device_of_the_wrong_type_is_refused(bench, device):
    side = bench("sd3")
    side.devices = (device,)
    side.save(side.sampler("HybridiffKSampler", **side.device_chain()))
    with pytest.raises(Refused):
        side.comfy.run(side.graph.nodes)


def test_a_mode_that_is_not_there_is_refused(bench):
    side = bench("sd3")
    side.save(side.sampler("HybridiffKSampler", plan=side.graph.add("HybridiffPlan", **plan_values(mode="warp"))))
    with pytest.raises(Refused, match="mode"):
        side.comfy.run(side.graph.nodes)


def workers(comfy) -> list[psutil.Process]:
    def is_worker(process):
        try:
            return process.cmdline()[-1:] and process.cmdline()[-1].endswith("worker.py")
        except psutil.Error:
            return False

    return [process for process in psutil.Process(comfy.process.pid).children() if is_worker(process)]


def at_work(comfy, before: dict, limit_s: float = 60.0) -> psutil.Process:
    """The worker that computes now; `before` is what workers had computed, as `computed` gives it."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        for worker in workers(comfy):
            with contextlib.suppress(psutil.NoSuchProcess):
                if worker.cpu_times().user > before.get(worker.pid, 0.0) + 0.3:
                    return worker
        time.sleep(0.01)
    raise AssertionError(f"no worker computed within {limit_s} s")


def computed(comfy) -> dict[int, float]:
    """Seconds of the processor by the workers' numbers; tests before may have left several."""
    return {worker.pid: worker.cpu_times().user for worker in workers(comfy)}


def test_a_worker_killed_in_the_run(bench):
    bench("sd3").compare()
    side = bench("sd3", size=48)
    side.settings["steps"] = 40  # over a second of work, also where a step is quick
    stock = side.save(side.sampler("KSampler"))
    ours = side.sampler("HybridiffKSampler", **side.device_chain())
    saved = side.save(ours)
    before = computed(side.comfy)
    prompt = side.comfy.queue(side.graph.nodes)
    at_work(side.comfy, before).kill()
    outputs = side.comfy.wait(prompt)["outputs"]
    (report,) = outputs[ours[0]]["hybridiff"]
    assert 0 < report["shared_calls"] < report["calls"] == 40
    (line,) = report["lines"]
    assert "killed by signal 9" in line and "finished the picture" in line
    assert (side.latent_of(outputs, stock) - side.latent_of(outputs, saved)).abs().max() <= LIMIT
    difference, report = bench("sd3").compare()
    assert difference <= LIMIT
    assert_shared(report)


def test_an_interrupt_leaves_the_worker_usable(bench):
    bench("sd3").compare()
    side = bench("sd3", size=48)
    side.settings["steps"] = 200
    side.save(side.sampler("HybridiffKSampler", **side.device_chain()))
    before = computed(side.comfy)
    prompt = side.comfy.queue(side.graph.nodes)
    worker = at_work(side.comfy, before)
    side.comfy.post("/interrupt", {})
    with pytest.raises(Refused, match="execution_interrupted"):
        side.comfy.wait(prompt, limit_s=10)
    difference, report = bench("sd3").compare()
    assert difference <= LIMIT
    assert_shared(report)
    assert worker.is_running()
