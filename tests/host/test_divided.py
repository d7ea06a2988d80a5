"""CFG 1 on several devices: batch items and tokens, beside KSampler in a real ComfyUI. Exact in every model family."""

from __future__ import annotations

import pytest

from ..tiers import full
from .comfy_server import make_controls
from .conftest import FamilyBench, large
from .test_controls import with_control
from .test_exact import LIMIT

TWO, THREE, FOUR = ("same",), ("same", "cpu"), ("same", "cpu", "cpu")
# by tokens; a U-Net has none
FAMILIES = ["sd3", "sd35", "flux", "flux2", "wan21", "wan21_i2v", "wan22_5b", "wan22_i2v", "hunyuan_video", "ltxv"]
FAMILIES += ["krea2", "ltxav", "stable_audio", "pixart", "wan_vace", "wan_s2v"]
OFTEN = ("sd3", "flux", "wan21", "wan_vace")
LARGE = ["chroma", "qwen_image", "lumina2", "z_image", "auraflow", "ace15"]


def ways(report: dict) -> list[str]:
    """How each call was shared; "" for one that this process computed alone."""
    return [step["way"] if step["helpers"] else "" for step in report["steps"]]


def at_cfg_1(side, devices=TWO, **settings):
    side.devices = devices
    side.settings |= {"cfg": 1.0, **settings}
    return side


def compared_by_tokens(side) -> None:
    difference, report = side.compare()
    assert difference <= LIMIT
    assert set(ways(report)[1:]) == {"tokens"} and report["steps"][-1]["helpers"] == len(side.devices), report["lines"]


@pytest.mark.parametrize("family", [name if name in OFTEN else full(name) for name in FAMILIES])
def test_one_latent_is_divided_by_tokens(comfy, family):
    compared_by_tokens(at_cfg_1(FamilyBench(comfy, family)))


@pytest.mark.parametrize("what", ["a LoRA", "denoise 0.6", "a noise mask", "a reference latent"])
def test_what_graphs_have_is_divided_by_tokens(bench, comfy, what):
    side = at_cfg_1(FamilyBench(comfy, "flux") if "latent" in what else bench("sd3"), steps=6)
    add = side.graph.add
    match what:
        case "a LoRA":
            given = {"lora_name": "sd3_depth4.safetensors", "strength_model": 0.7}
            side.model = add("LoraLoaderModelOnly", model=side.model, **given)
        case "denoise 0.6":
            side.settings["denoise"] = 0.6
        case "a noise mask":
            side.latent = add("SetLatentNoiseMask", samples=side.latent, mask=add("TestMask", size=128))
        case "a reference latent":
            side.positive = add("ReferenceLatent", conditioning=side.positive, latent=side.latent)
    compared_by_tokens(side)


@pytest.mark.parametrize("end", [1.0, full(0.5)])
def test_a_prompt_with_a_controlnet_is_divided_by_tokens(bench, comfyui_root, end):
    make_controls(comfyui_root)
    difference, report = at_cfg_1(with_control(bench("sd3"), end_percent=end), steps=6).compare()
    assert difference <= LIMIT
    assert "tokens" in ways(report)[1:3] and ways(report)[-1] == "tokens", report["lines"]


@pytest.mark.full
def test_references_at_timestep_zero_are_divided_by_tokens(comfy):
    side = at_cfg_1(FamilyBench(comfy, "flux2"))
    referred = side.graph.add("ReferenceLatent", conditioning=side.positive, latent=side.latent)
    method = {"reference_latents_method": "index_timestep_zero"}
    side.positive = side.graph.add("FluxKontextMultiReferenceLatentMethod", conditioning=referred, **method)
    compared_by_tokens(side)


@pytest.mark.full
@large
@pytest.mark.parametrize("devices", [TWO, THREE], ids=["two", "three"])
@pytest.mark.parametrize("family", LARGE)
def test_a_large_network_is_divided_by_tokens(comfy, family, devices):
    compared_by_tokens(at_cfg_1(FamilyBench(comfy, family), devices))


@pytest.mark.parametrize("family", [full("sd3"), full("flux"), full("wan21")])
def test_three_devices_divide_one_latent(comfy, family):
    compared_by_tokens(at_cfg_1(FamilyBench(comfy, family), THREE))


def test_a_unet_with_one_image_says_that_it_has_no_tokens(bench):
    difference, report = at_cfg_1(bench("sd15", size=8)).compare()
    assert difference <= LIMIT and not report["shared_calls"]
    assert len(report["lines"]) == 1, report["lines"]


@pytest.mark.parametrize(("family", "batch"), [("sd15", 4), full("sd15", 3), full("sd3", 4)])
def test_a_batch_is_divided_by_its_images(bench, family, batch):
    side = at_cfg_1(bench(family, size=8 if family == "sd15" else 16, batch=batch))
    difference, report = side.compare()
    assert difference <= LIMIT
    assert set(ways(report)) == {"rows"}, report["lines"]


@pytest.mark.full
def test_the_odd_image_of_a_batch_is_divided_by_tokens(bench):
    difference, report = at_cfg_1(bench("sd3", batch=3)).compare()
    assert difference <= LIMIT
    assert set(ways(report)[1:]) == {"rows and tokens"}, report["lines"]


def test_four_devices_share_two_branches_of_two_images(bench):
    side = bench("sd15", size=8, batch=2)
    side.devices = FOUR
    difference, report = side.compare()
    assert difference <= LIMIT
    assert set(ways(report)) == {"rows"} and report["steps"][-1]["helpers"] == 3, report["lines"]


@pytest.mark.full
def test_four_devices_divide_two_branches_by_tokens(bench):
    side = bench("sd3")
    side.devices = FOUR
    difference, report = side.compare()
    assert difference <= LIMIT
    assert set(ways(report)[1:]) == {"tokens"} and report["steps"][-1]["helpers"] == 3, report["lines"]


def test_auto_shares_the_steps_that_it_computes(bench):
    side = at_cfg_1(bench("sd3"), steps=12)
    side.plan = {}  # auto
    _, report = side.compare()
    computed = [step for step in report["steps"] if step["work"] == "exact"]
    assert all(step["helpers"] for step in computed[1:]), report["lines"]
