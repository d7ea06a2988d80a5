"""What users, workflows and other nodes can get wrong: stock KSampler's result, or a refusal in one sentence."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch

from .comfy_server import MODELS, Refused
from .conftest import Bench
from .test_exact import LIMIT, assert_shared
from .test_fallbacks import assert_alone, workers

FALLING = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0]
MODES = {
    "exact": {"mode": "exact"},
    "predict": {"mode": "predict", "warmup": "fixed", "start_step": 3, "parallel_steps": 4},
    "pipeline": {"mode": "pipeline", "warmup_cap": 12, "parallel_steps": 50},
}


@pytest.fixture(scope="module", autouse=True)
def warm(comfy):
    Bench(comfy, "sd3").compare()


@pytest.fixture(autouse=True)
def nothing_is_lost(comfy, warm):
    """Whatever is put in, the server and its worker go on, and no code of ours fails from deep inside."""
    before = {worker.pid for worker in workers(comfy)}
    yield
    assert comfy.get("/system_stats")
    assert {worker.pid for worker in workers(comfy)} == before


def said(refusal: Refused) -> str:
    """A refusal's sentence: the node's own, or the server's about a widget."""
    answer = json.loads(str(refusal))
    if isinstance(answer, list):
        (error,) = (message for kind, message in answer if kind == "execution_error")
        return f"{error['exception_type']}: {error['exception_message'].strip()}"
    found = [error for node in answer["node_errors"].values() for error in node["errors"]]
    return "; ".join(f"{error['message']}: {error['details']}" for error in found)


def result_of(side: Bench, sampler: list) -> torch.Tensor | str:
    """The sampler's latent, or why there is none."""
    saved = side.save(sampler)
    try:
        return side.latent_of(side.comfy.run(side.graph.nodes, limit_s=60), saved)
    except Refused as refusal:
        return said(refusal)


def assert_same(expected: torch.Tensor | str, got: torch.Tensor | str) -> None:
    assert isinstance(expected, torch.Tensor) and isinstance(got, torch.Tensor), (expected, got)
    assert torch.allclose(expected, got, rtol=0.0, atol=LIMIT, equal_nan=True)


def ours(side: Bench, **more) -> torch.Tensor | str:
    return result_of(side, side.sampler("HybridiffKSampler", **{**side.device_chain(), **more}))


def sampled(bench, sigmas: list, plan: dict | None, sampler: str = "euler") -> torch.Tensor | str:
    """SamplerCustom over `sigmas`; with `plan`, on a model from our node."""
    side = bench("sd3")
    side.plan = plan
    add = side.graph.add
    model = add("HybridiffModel", model=side.model, **side.device_chain()) if plan else side.model
    latent = add(
        "SamplerCustom", model=model, add_noise=True, noise_seed=5, cfg=5.0, positive=side.positive,
        negative=side.negative, sampler=add("KSamplerSelect", sampler_name=sampler),
        sigmas=add("TestSigmas", text=json.dumps(sigmas)), latent_image=side.latent,
    )  # fmt: skip
    return result_of(side, latent)


# -- what stock takes


@pytest.mark.parametrize("mode", ["predict", "pipeline"])
@pytest.mark.parametrize(
    "sigmas",
    [
        [],
        [1.0],
        FALLING[::-1],
        [1.0, 0.9, 0.8, 0.9, 0.7, 0.6, 0.7, 0.5, 0.4, 0.3, 0.1, 0.0],
        [1.0, 0.9, float("nan"), 0.8, 0.7, 0.6, 0.5, 0.3, 0.0],
    ],
    ids=["none", "one", "rising", "up and down", "NaN"],
)
def test_sigmas_that_do_not_fall_give_stocks_result(bench, sigmas, mode):
    assert_same(sampled(bench, sigmas, None), sampled(bench, sigmas, MODES[mode]))


def test_sigmas_that_do_not_fall_are_named(bench, comfy):
    sampled(bench, FALLING[::-1], MODES["predict"])
    assert "the sigmas do not fall from step to step, so every step is exact" in comfy.tail()


def test_sigmas_that_stay_for_a_step_are_shared_as_any(bench, comfy):
    sampled(bench, sorted([*FALLING, 0.5], reverse=True), {**MODES["predict"], "mode": "predict"})
    assert "predicted) shared by" in comfy.tail(600)


@pytest.mark.parametrize("mode", MODES)
def test_one_step(bench, mode):
    side = bench("sd3")
    side.settings["steps"] = 1
    side.plan = {**MODES[mode], "warmup": "slope"}
    difference, report = side.compare()
    assert difference <= LIMIT
    assert report["shared_calls"] == report["calls"] == 1


def test_no_steps_at_all(bench):
    for plan in (None, {"mode": "predict", "warmup": "fixed"}):
        side = bench("sd3")
        side.settings["denoise"] = 0.0
        side.plan = plan
        assert_same(result_of(side, side.sampler("KSampler")), ours(side))


def test_a_middle_longer_than_the_run_ends_with_it(bench):
    side = bench("sd3")
    side.plan = {"mode": "predict", "slope_window": 1000, "warmup_cap": 10000, "parallel_steps": 10000}
    difference, report = side.compare()
    assert difference <= LIMIT  # it never begins
    assert report["shared_calls"] == report["calls"] == 4


@pytest.mark.parametrize("mode, value", [*((mode, float("nan")) for mode in MODES), ("predict", float("inf"))])
def test_a_latent_with_nan_in_it(bench, mode, value):
    side = bench("sd3")
    side.settings["steps"] = 10
    side.latent = side.graph.add("TestSpoilt", latent=side.latent, value=value)
    side.plan = {**MODES[mode], "tolerance": 0.5}
    stock = side.save(side.sampler("KSampler"))
    sampler = side.sampler("HybridiffKSampler", **side.device_chain())
    saved = side.save(sampler)
    outputs = side.comfy.run(side.graph.nodes)
    assert_same(side.latent_of(outputs, stock), side.latent_of(outputs, saved))
    json.dumps(outputs[sampler[0]], allow_nan=False)  # a browser reads no NaN


@pytest.mark.parametrize("empty", ["positive", "negative"])
def test_an_empty_list_of_conds(bench, empty):
    side = bench("sd15", size=8)
    setattr(side, empty, side.graph.add("TestValue", text="[]"))
    difference, report = side.compare()
    assert difference <= LIMIT
    assert_alone(report, "ran on one device: there is only one prompt to compute, so there is nothing to share")


def test_an_empty_list_of_devices(bench):
    side = bench("sd3")
    side.plan = None
    side.device_chain = lambda: {"devices": side.graph.add("TestValue", text="[]")}
    difference, report = side.compare()
    assert difference == 0.0
    assert_alone(report, "no device was chosen to help")


# -- what nobody can take


def test_a_latent_of_another_models_channels(bench):
    sides = [bench("sd3"), bench("sd3")]
    for side in sides:
        side.latent = side.graph.add("TestLatent", seed=3, channels=5, size=16, batch=1)
    assert "expected input[2, 5, 16, 16] to have 16 channels" in result_of(sides[0], sides[0].sampler("KSampler"))
    words = "the latent has 5 channels, and this model takes 16; use an empty latent or a VAE made for this model"
    assert ours(sides[1]) == f"ValueError: {words}"
    difference, report = bench("sd3").compare()
    assert difference <= LIMIT
    assert_shared(report)


@pytest.mark.parametrize("node", ["HybridiffKSampler", "HybridiffModel"])
@pytest.mark.parametrize(
    "text, got",
    [("null", "NoneType"), ("3", "int"), ('"sd3"', "str"), ("[]", "list"), ("{}", "dict"), (None, "Module")],
)
def test_what_is_not_a_model(bench, node, text, got):
    side = bench("sd3")
    add = side.graph.add
    side.model = add("TestModelWithoutWeights") if text is None else add("TestValue", text=text)
    if node == "HybridiffModel":
        side.model = add("HybridiffModel", model=side.model)
    words = f"ValueError: expected a diffusion model, got {got}; connect the MODEL output of a model loader"
    assert (ours(side) if node == "HybridiffKSampler" else result_of(side, side.sampler("KSampler"))) == words


@pytest.mark.parametrize(
    "values, words",
    [
        ({"slope_threshold": float("nan")}, "ValueError: slope_threshold is nan; use 0.0 to 1.0"),
        ({"tolerance": float("nan")}, "ValueError: tolerance is nan; use 0.0 to 1.0"),
        ({"tolerance": float("inf")}, "bigger than max of 1.0: tolerance"),
        ({"start_step": float("nan")}, "INT value: start_step, nan"),
        ({"start_step": 0}, "smaller than min of 1: start_step"),
        ({"slope_window": 10**30}, "bigger than max of 1000: slope_window"),
        ({"mode": "pipeline", "preset": "exact only"}, "ValueError: preset is 'exact only' and mode is 'pipeline'"),
        ({"mode": "predict", "parallel_steps": 0}, "ValueError: parallel_steps is 0 and tolerance is 0"),
        (
            {"mode": "predict", "warmup": "fixed", "start_step": 3, "parallel_steps": 5},
            "ValueError: start_step 3 and parallel_steps 5 go beyond the run's 4 steps; lower one of them, or set",
        ),
    ],
)
def test_a_plan_that_cannot_be(bench, values, words):
    side = bench("sd3")
    side.plan = values
    assert words in ours(side)


@pytest.mark.parametrize(
    "given, words",
    [
        (3, "expected a plan, got int; connect the output of a Hybridiff Plan node"),
        (["same"], "expected a plan, got list; connect the output of a Hybridiff Plan node"),
        ({}, "expected a plan, got dict; connect the output of a Hybridiff Plan node"),
        ({"version": 2, "start_step": float("nan")}, "start_step is nan; use 1 to 10000"),
        ({"version": 2, "start_step": float("inf")}, "start_step is inf; use 1 to 10000"),
        ({"version": 2, "tolerance": 10**400}, f"tolerance is {10**56}...; use 0.0 to 1.0"),
        ({"version": 2, "mode": ["auto"]}, "mode is ['auto']; use one of auto, exact, pipeline, predict, paper"),
    ],
)
def test_a_plan_input_linked_to_something_else(bench, given, words):
    side = bench("sd3")
    assert ours(side, plan=side.graph.add("TestValue", text=json.dumps(given))) == f"ValueError: {words}"


@pytest.mark.parametrize(
    "given, shown",
    [(3, "3"), ("same", "'same'"), ({}, "{}"), ([["same"]], "[['same']]"), (["a\nb"], r"['a\nb']")],
)
@pytest.mark.parametrize("node", ["HybridiffKSampler", "HybridiffDevices"])
def test_a_devices_input_linked_to_something_else(bench, node, given, shown):
    side = bench("sd3")
    devices = side.graph.add("TestValue", text=json.dumps(given))
    if node == "HybridiffDevices":
        devices = side.graph.add(node, device="same", devices=devices)
    words = f"ValueError: expected devices, got {shown}; connect the output of a Hybridiff Devices node"
    assert ours(side, devices=devices) == words


@pytest.mark.parametrize("kind", ["plan", "devices"])
def test_a_latent_linked_to_an_input_of_ours(bench, kind):
    side = bench("sd3")
    assert f"{kind}, received_type(LATENT) mismatch input_type(HYBRIDIFF_{kind.upper()})" in ours(
        side, **{kind: side.latent}
    )


@pytest.mark.parametrize("given, words", [('"same"', None), ("3", "device is 3"), (None, "device is None")])
def test_a_device_chosen_by_a_link(bench, given, words):
    side = bench("sd3")
    device = None if given is None else side.graph.add("TestValue", text=given)
    result = ours(side, devices=side.graph.add("HybridiffDevices", device=device))
    if words is None:
        assert isinstance(result, torch.Tensor)
    else:
        assert result == f"ValueError: {words}; use one of auto, same, cpu"


WRONG = {
    "text": "no such value",
    "empty": "",
    "list": [1],
    "link to nowhere": ["nowhere", 0],
    "wrapped list": {"__value__": [1]},
    "object": {"a": 1},
    "null": None,
    "infinity": float("inf"),
    "huge": 10**400,
    "negative": -(10**30),
    "digits": "9" * 5000,
}
WIDGETS = {"INT", "FLOAT", "COMBO"}


@pytest.mark.parametrize(
    "node",
    ["HybridiffKSampler", "HybridiffKSamplerAdvanced", "HybridiffPlan", "HybridiffDevices"],
)
def test_a_widget_of_the_wrong_type(bench, comfy, node):
    """Straight through the API, each widget with each wrong value: refused before anything runs, and by name."""
    info = comfy.get("/object_info")[node]["input"]["required"]
    kinds = {name: "COMBO" if isinstance(spec[0], list) else spec[0] for name, spec in info.items()}
    widgets = [name for name, kind in kinds.items() if kind in WIDGETS]
    assert len(widgets) == {"HybridiffPlan": 10, "HybridiffDevices": 1}.get(node, 6 if node[-1] == "r" else 9)
    side = bench("sd3")
    chain = side.device_chain()
    if node == "HybridiffKSamplerAdvanced":
        settings = {name: value for name, value in side.settings.items() if name not in ("seed", "denoise")}
        sampler = side.graph.add(
            node, model=side.model, positive=side.positive, negative=side.negative, latent_image=side.latent,
            add_noise="enable", noise_seed=1, start_at_step=0, end_at_step=9, return_with_leftover_noise="disable",
            **settings, **chain,
        )  # fmt: skip
    else:
        sampler = side.sampler("HybridiffKSampler", **chain)
    side.save(sampler)
    target = {"HybridiffPlan": chain.get("plan"), "HybridiffDevices": chain.get("devices")}.get(node, sampler)[0]
    right = dict(side.graph.nodes[target]["inputs"])
    for widget in widgets:
        for what, value in WRONG.items():
            if widget == "device" and what in ("text", "empty", "null"):
                continue  # the run does without it, or refuses it
            side.graph.nodes[target]["inputs"] = {**right, widget: value}
            with pytest.raises(Refused) as refused:
                comfy.queue(side.graph.nodes)
            words = said(refused.value)
            assert words and (widget in words or what == "link to nowhere"), (widget, what, words)
            assert "hybridiff" not in words and "Traceback" not in words


# -- where a model may be


def test_a_model_outside_the_model_folders(bench, comfy, tmp_path):
    outside = tmp_path / "elsewhere.safetensors"
    shutil.copy(MODELS / "diffusion_models" / "sd3_depth4.safetensors", outside)
    folder = comfy.base / "models" / "diffusion_models"
    for path in (outside, os.path.join(folder, os.path.relpath(outside, os.path.realpath(folder)))):
        side = bench("sd3")
        side.model = side.graph.add("TestModelAt", path=str(path))
        side.other_packs = "off"
        difference, report = side.compare()
        assert difference == 0.0
        assert_alone(report, "the model's file elsewhere.safetensors is outside ComfyUI's model folders; move it there")


def test_a_model_that_is_a_link_to_another_disk(bench, comfy, tmp_path):
    outside = tmp_path / "elsewhere.safetensors"
    shutil.copy(MODELS / "diffusion_models" / "sd3_depth4.safetensors", outside)
    link = comfy.base / "models" / "diffusion_models" / f"link_{os.getpid()}.safetensors"
    link.symlink_to(outside)
    try:
        side = bench("sd3")
        side.model = side.graph.add("TestModelAt", path=str(link))
        difference, report = side.compare()
    finally:
        link.unlink()
    assert difference <= LIMIT
    assert_shared(report)
