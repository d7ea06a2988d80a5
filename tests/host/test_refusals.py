"""What cannot be shared is found before a worker starts, and what need not be refused is shared."""

from __future__ import annotations

import time

import pytest

from .comfy_server import Comfy, make_models
from .conftest import Bench
from .test_exact import LIMIT, assert_shared
from .test_fallbacks import assert_alone, workers


@pytest.fixture(scope="module")
def own_server(comfyui_root, tmp_path_factory):
    make_models(comfyui_root)
    server = Comfy(comfyui_root, tmp_path_factory.mktemp("untouched") / "base")
    yield server
    server.stop()


@pytest.fixture
def untouched(own_server):
    """A server without a worker, on which this test's run may start none."""
    yield own_server
    for worker in workers(own_server):  # one that should not be there is not the next test's fault
        worker.kill()
        worker.wait(10)


def assert_no_worker(comfy: Comfy) -> None:
    time.sleep(0.5)  # a start is in the background
    assert workers(comfy) == []


def hooked(side: Bench) -> None:
    """A LoRA on each prompt, so that none can be sent."""
    add = side.graph.add
    hooks = add("CreateHookLoraModelOnly", lora_name="sd3_depth4.safetensors", strength_model=0.8)
    for name in ("positive", "negative"):
        given = {"cond_NEW": getattr(side, name), "strength": 1.0, "set_cond_area": "default", "hooks": hooks}
        setattr(side, name, add("ConditioningSetProperties", **given))


HOOKS = "every prompt has something that cannot be sent to another device: a LoRA or other change on the prompt (hooks)"


@pytest.mark.parametrize(
    "what, words",
    [
        ("attention", "a node chose this model's attention function, and no code is sent to a second process"),
        ("wrong", "a node put code of its own into scale_x, and it is not in the second process"),
    ],
)
def test_options_with_code_are_found_before_a_worker_starts(untouched, what, words):
    side = Bench(untouched, "sd3")
    side.other_packs = "off"
    side.model = side.graph.add("TestOptions", model=side.model, what=what)
    difference, report = side.compare()
    assert difference == 0.0
    assert_alone(report, f"ran on one device: {words}")
    assert_no_worker(untouched)


def test_where_no_prompt_can_be_sent_no_worker_starts(untouched):
    side = Bench(untouched, "sd3")
    hooked(side)
    difference, report = side.compare()
    assert difference == 0.0
    assert_alone(report, f"ran on one device: {HOOKS}")
    assert_no_worker(untouched)


def test_where_no_prompt_can_be_sent_steps_are_predicted_as_on_one_device(untouched):
    reports, latents = [], []
    for devices in (("cuda:7",), ("same",)):
        side = Bench(untouched, "sd3")
        hooked(side)
        side.devices, side.plan = devices, {"mode": "predict", "start_step": 3, "warmup": "fixed", "parallel_steps": 8}
        side.settings |= {"steps": 14, "seed": 8}
        ours = side.sampler("HybridiffKSampler", **side.device_chain())
        saved = side.save(ours)
        outputs = untouched.run(side.graph.nodes)
        reports.append(outputs[ours[0]]["hybridiff"][0])
        latents.append(side.latent_of(outputs, saved))
    works = [[step["work"] for step in report["steps"]] for report in reports]
    assert works[0] == works[1] and works[1].count("predicted") > 0
    assert [report["mode"] for report in reports] == ["predict", "predict"]
    assert (latents[0] - latents[1]).abs().max() == 0.0
    assert any(HOOKS in line for line in reports[1]["lines"])
    assert_no_worker(untouched)


def test_a_run_that_predicts_nothing_alone_says_exact(untouched):
    side = Bench(untouched, "sd3")
    hooked(side)
    side.plan = {"mode": "auto"}
    _, report = side.compare()
    assert report["mode"] == "exact"
    assert_no_worker(untouched)


def test_prompts_that_are_never_active_together_start_no_worker(untouched):
    side = Bench(untouched, "sd15", size=8)
    side.settings["steps"] = 8
    for name, start, end in (("positive", 0.0, 0.45), ("negative", 0.46, 1.0)):
        timed = {"conditioning": getattr(side, name), "start": start, "end": end}
        setattr(side, name, side.graph.add("ConditioningSetTimestepRange", **timed))
    difference, report = side.compare()
    assert difference == 0.0
    assert_alone(report, "where only one prompt is active, there is nothing to share")
    assert_no_worker(untouched)


@pytest.mark.parametrize("way", ["calc_function_of_its_own", "one_by_one"])
def test_a_node_that_asks_in_its_own_way_starts_no_worker(untouched, way):
    side = Bench(untouched, "sd15", size=8)
    side.model = side.graph.add("TestOtherPack", model=side.model, way=way)
    difference, report = side.compare()
    assert difference == 0.0 and report["shared_calls"] == 0
    assert_no_worker(untouched)


def of_two_models(side: Bench, other: list) -> float:
    """Ideogram 4's graph, a guider of two models with a prompt for each: how far off it is with Hybridiff."""
    add = side.graph.add
    noise, sampler = add("RandomNoise", noise_seed=5), add("KSamplerSelect", sampler_name="euler")
    sigmas = add("BasicScheduler", model=side.model, scheduler="simple", steps=3, denoise=1.0)
    saved = []
    for model in (side.model, add("HybridiffModel", model=side.model, **side.device_chain())):
        given = {"positive": side.positive, "negative": side.negative, "cfg": 4.0}
        guider = add("DualModelGuider", model=model, model_negative=other, **given)
        given = {"guider": guider, "sampler": sampler, "sigmas": sigmas, "latent_image": side.latent}
        saved.append(side.save(add("SamplerCustomAdvanced", noise=noise, **given)))
    return side.difference(side.comfy.run(side.graph.nodes), *saved)


def test_a_unet_that_is_asked_for_one_branch_starts_no_worker(untouched):
    side = Bench(untouched, "sd15", size=8)
    other = side.graph.add("ModelSamplingDiscrete", model=side.model, sampling="eps", zsnr=False)
    assert of_two_models(side, other) == 0.0
    assert "ran on one device" in untouched.tail(2000)
    assert_no_worker(untouched)


# -- shared


def test_options_that_no_network_reads_do_not_cross(bench):
    """As RES4LYF's samplers put them there for their own use."""
    side = bench("sd3")
    side.model = side.graph.add("TestOptions", model=side.model, what="unread")
    difference, report = side.compare()
    assert difference <= LIMIT
    assert_shared(report)


def test_lazycache_is_around_the_network(bench):
    side = bench("sd3")
    side.settings["steps"] = 8
    given = {"reuse_threshold": 0.5, "start_percent": 0.15, "end_percent": 0.95, "verbose": False}
    side.model = side.graph.add("LazyCache", model=side.model, **given)
    difference, report = side.compare()
    assert difference <= LIMIT
    assert report["lines"] == [] and 0 < report["calls"] == report["shared_calls"]


@pytest.mark.parametrize("what", ["extra_conds", "latent_format"])
def test_what_is_used_in_this_process_alone_may_be_replaced(bench, what):
    """As IC-Light's and Playground's nodes do."""
    side = bench("sd3")
    plain = side.save(side.sampler("KSampler"))
    side.model = side.graph.add("TestOwnObjects", model=side.model, what=what)
    stock, ours = side.save(side.sampler("KSampler")), side.sampler("HybridiffKSampler", **side.device_chain())
    saved = side.save(ours)
    outputs = side.comfy.run(side.graph.nodes)
    (report,) = outputs[ours[0]]["hybridiff"]
    assert_shared(report)
    assert side.difference(outputs, stock, saved) <= LIMIT < 1e-3 < side.difference(outputs, plain, stock)


def test_a_transformers_branches_that_are_asked_for_one_by_one_are_divided_by_tokens(bench):
    side = bench("sd3")
    side.model = side.graph.add("TestOtherPack", model=side.model, way="one_by_one")
    difference, report = side.compare()
    assert difference <= LIMIT
    assert {step["way"] for step in report["steps"] if step["helpers"]} == {"tokens"}, report["lines"]
