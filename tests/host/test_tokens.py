"""A forward divided by tokens, in the real host with threads as devices: equal to the whole one.

The devices' parts are unequal, and the numbers of tokens are not multiples of theirs.
"""

from __future__ import annotations

import functools

import pytest

from hybridiff_core import lines

from ..tiers import full, full_but
from .asked import Asked
from .comfy_server import PACK
from .conftest import large

LIMIT = 1e-5  # of the prediction and of what the network put out, each at unit scale
OFTEN = ("sd3:3:odd", "flux:2:halves2", "wan21:3:odd", "krea2:2", "wan22_5b:2:inpaint")
CASES = [
    "sd3:3:odd", "sd3:2:batch", "sd35:3:odd:halves3", "flux:2:halves2", "flux:3:odd:mask", "flux:2:two_references",
    "flux2:3:odd", "flux2:2:reference", "wan21:3:odd", "wan21:2:frames", "wan21_i2v:2", "wan22_5b:2:inpaint",
    "wan22_5b:3:odd:inpaint:frames", "wan22_i2v:2:odd", "hunyuan_video:2:mask", "hunyuan_video:3:odd:mask:halves2",
    "ltxv:3:odd", "ltxv:2:inpaint", "ltxav:2", "ltxav:2:sound", "ltxav:3:sound:inpaint:odd", "stable_audio:2",
    "krea2:2", "krea2:3:odd:batch", "sd3:2:kernel", "flux:2:bf16", "wan22_5b:2:inpaint:bf16",
    "hunyuan_video:2:mask:fp16", "pixart:2", "flux2:2:reference:zero", "flux2:3:odd:reference:zero:bf16",
    "krea2:2:reference:zero", "kandinsky5:3:odd",
]  # fmt: skip
LARGE = [
    "chroma:2", "qwen_image:3:odd", "qwen_image:2:mask:halves2", "qwen_image:2:reference", "lumina2:2", "z_image:2",
    "z_image:3:odd", "auraflow:2",
]  # fmt: skip
NOT = {
    "sd15:2": lines.UNET_HAS_NO_TOKENS(),
    "sdxl:2": lines.UNET_HAS_NO_TOKENS(),
}
WRONG = ["flux:2:wrong", "wan21:2:wrong", "ltxav:2:sound:wrong", "krea2:2:wrong", "sd3:2:missing", "flux:2:missing"]
# without their models: text-to-image and video networks that are no family of families.py
NETWORKS = ["anima", "boogu", "cogvideo", "cosmos_predict2_video", "hunyuan3d", "ideogram4", "joyimage", "lens_mask",
            "mage_flow_mask", "omnigen2", "wan_bernini", "wan_camera", "wan_scail2", "wan_vace", "wan_s2v", "wan_humo",
            "hidream", "stable_audio_3", "ace15", "ernie", "qwen_zero", "minimax_h3", "seedvr2",
            "hidream_o1"]  # fmt: skip
# the same with ComfyUI's own patches in them (token_patches.py)
PATCHED = ["z_image_control", "qwen_diffsynth", "wan_talk", "anima_lllite"]
NETWORKS_NOT = {"hunyuan3d_21": lines.NO_BLOCK_HOOK()}


@pytest.fixture(scope="module")
def network(comfyui_root):
    """What token_networks.py finds of a network: network("anima")."""
    asked = Asked(comfyui_root, PACK / "tests" / "host" / "token_networks.py")
    yield functools.cache(asked.ask)
    asked.close()


def assert_it_is_exact(result: dict) -> None:
    if "missing" in result:
        pytest.skip(f"this ComfyUI has no {result['missing']}")
    assert result["reason"] is None
    assert result["forms"] and result["finite"]
    assert result["looked"] == 0
    assert result["difference"] < LIMIT


@pytest.mark.parametrize(
    "case", [*full_but(CASES, *OFTEN), *(pytest.param(case, marks=[large, pytest.mark.full]) for case in LARGE)]
)
def test_the_parts_are_the_whole(token_split, case):
    assert_it_is_exact(token_split(case))


@pytest.mark.parametrize("name", full_but(NETWORKS, "anima", "wan_vace"))
def test_the_parts_of_other_networks_are_the_whole(network, name):
    assert_it_is_exact(network(name))


@pytest.mark.parametrize("name", full_but(PATCHED, "z_image_control"))
def test_patches_inside_a_network_are_asked_for_all_tokens(network, name):
    result = network(name)
    assert_it_is_exact(result)
    assert result["acts"] > 0.01


@pytest.mark.parametrize("case", full_but(WRONG, "flux:2:wrong", "sd3:2:missing"))
def test_what_is_sliced_wrongly_does_not_pass(token_split, case):
    assert token_split(case)["difference"] > 100 * LIMIT


@pytest.mark.parametrize("case", full_but(NOT, "sd15:2"))
def test_why_a_network_is_not_divided(token_split, case):
    result = token_split(case)
    assert result["reason"] == NOT[case]
    assert result["looked"] == 0 and not result["forms"]


@pytest.mark.full
@pytest.mark.parametrize("name", NETWORKS_NOT)
def test_why_another_network_is_not_divided(network, name):
    result = network(name)
    assert result["reason"] == NETWORKS_NOT[name]
    assert result["looked"] == 0  # nor does looking change what the network gives


@pytest.mark.parametrize("name", ["krea2", full("pixart"), full("flux"), full("sd3")])
def test_block_hooks_change_nothing_for_others(token_split, name):
    """Neither the recipe nor the fingerprint, from which caches and comparisons are told, nor a picture."""
    found = token_split(f"{name}:1:offered")
    assert found["told"] == 1
    assert found["same"] == [True] * 3
    assert bool(found["offered"]) == (name != "sd3")
    assert found["left"] == []
