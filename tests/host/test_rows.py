"""Batch items computed apart and put together are the whole batch, in the real host, here and by a worker."""

from __future__ import annotations

import functools

import pytest

from ..tiers import full_but
from .asked import Asked
from .comfy_server import PACK, make_controls, make_models

LIMIT = 1e-6  # of what the sampler is given, as a share of it
OF_OUTPUT = 1e-5  # of what the network puts out: of it, x - denoised has more rounding
NARROW = "sd15_narrow"
CASES = [
    f"{NARROW}:4:5:plain", f"{NARROW}:4:1:plain", f"{NARROW}:3:5:masks", f"{NARROW}:4:5:masks", f"{NARROW}:4:5:areas",
    f"{NARROW}:4:5:prompts", f"{NARROW}:3:5:prompts", f"{NARROW}:4:1:more_prompts", f"{NARROW}:4:5:image",
    f"{NARROW}:4:5:noise_mask", "sd15_inpaint:4:5:concat", "sd15_inpaint:3:5:noise_mask", "sd15_inpaint:4:1:concat",
    "sdxl:3:5:prompts", "sdxl:4:1:plain",
    "sd3:4:5:plain", "sd3:3:1:masks", "sd3:4:5:image", "sd35:4:5:prompts",
    "flux:4:1:reference", "flux:3:5:prompts", "flux:4:1:image", "flux2:3:1:plain",
    "wan21:3:5:plain", "wan21:4:1:prompts", "wan21_i2v:2:5:plain", "wan22_5b:3:5:noise_mask", "wan22_5b:2:1:noise_mask",
    "ltxv:3:5:noise_mask", "ltxav:2:5:plain", "hunyuan_video:3:1:prompts", "stable_audio:3:5:plain",
]  # fmt: skip
CONTROLS = [
    f"{NARROW}:4:5:control", f"{NARROW}:4:5:controls", f"{NARROW}:3:1:controls", f"{NARROW}:4:5:two_controls",
    f"{NARROW}:4:5:lora", "sd15:4:5:adapter", "sd15:4:5:adapters", "sd15:3:1:adapters",
    "sd3:4:1:sd3_control", "sd3:4:5:sd3_controls", "sd3:3:5:sd35_controls",
]  # fmt: skip
WRONG = [
    f"{NARROW}:4:5:masks:wrong", f"{NARROW}:4:5:prompts:wrong", "sd15_inpaint:4:5:concat:wrong",
    f"{NARROW}:4:5:controls:wrong", "sd15:4:5:adapters:wrong", "wan22_5b:3:5:noise_mask:wrong",
]  # fmt: skip
SOME = (f"{NARROW}:4:1:plain", f"{NARROW}:3:5:masks", "flux:3:5:prompts", "wan22_5b:2:1:noise_mask")


@pytest.fixture(scope="module")
def apart(comfyui_root):
    """What apart.py finds of a case: apart("sd3:4:5:plain")."""
    make_models(comfyui_root)
    make_controls(comfyui_root)
    asked = Asked(comfyui_root, PACK / "tests" / "host" / "apart.py")
    yield functools.cache(asked.ask)
    asked.close()


def assert_the_same(result: dict) -> None:
    assert result["finite"] and result["calls"] >= 2
    assert result["reasons"] == [None] * 2
    assert result["by_workers"] > 0 or ":1:" in result["case"]
    assert result["difference"] <= LIMIT and result["of_output"] <= OF_OUTPUT


@pytest.mark.parametrize("case", full_but(CASES, *SOME))
def test_rows_put_together_are_the_whole_batch(apart, case):
    assert_the_same(apart(case))


@pytest.mark.parametrize("case", full_but(CONTROLS, f"{NARROW}:4:5:controls", "sd15:3:1:adapters"))
def test_rows_of_controlnets_hints(apart, case):
    assert_the_same(apart(case))


@pytest.mark.parametrize("case", full_but(WRONG, f"{NARROW}:4:5:masks:wrong"))
def test_wrong_rows_do_not_pass(apart, case):
    assert apart(case)["of_output"] > 10 * OF_OUTPUT


def test_hints_of_another_count_are_not_divided(apart):
    result = apart(f"{NARROW}:4:5:some_controls")
    assert result["difference"] is None
    assert result["reasons"] == ["a ControlNet with another number of pictures than the latent has"] * 2


def test_what_cannot_be_divided(apart):
    assert apart("reasons") == {
        "plain": None,
        "frames": "a model whose batch is the frames of one video",
        "halves": "a network that takes the two halves of its batch for pairs",
        "windows": "context windows, which may divide the batch themselves",
        "a constant of one": None,
        "a constant of each": "the value ref_audio: which part of it belongs to which image is not known",
        "a constant of unknown rows": "the value coords: which part of it belongs to which image is not known",
        "an option of each": "the value audio_embeds: which part of it belongs to which image is not known",
        "sigmas of a run": None,
        "a pack's value": "the value theirs: which part of it belongs to which image is not known",
        "a pack's control": "a ControlNet of another pack (Theirs)",
        "no branch": None,
    }
