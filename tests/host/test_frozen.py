"""Where each family's network is cut, in the real host: with frozen inputs a pipeline must become exact."""

from __future__ import annotations

import os

import pytest

LIMIT = 1e-4  # of the prediction and of eps, each at unit scale
SMALL = [
    "sd3:2", "sd3:3", "sd3:2:areas", "sd35:2", "flux:2", "flux:3", "flux2:2", "wan21:2", "wan21_i2v:2",
    "hunyuan_video:2", "ltxv:2", "ltxv:3", "sd21:2", "sd21:3", "sd21:4", "sdxl:2", "sdxl:3", "sdxl_refiner:2",
    "sd15_inpaint:2", "sd15:2", "sd15:3", "stable_audio:2",
]  # fmt: skip
LARGE = ["qwen_image:2", "chroma:2", "auraflow:2"]  # gigabytes of weights: the host fixes their width
WITHOUT_HOOK = ["krea2:2"]
WRONG = ["sd3:2:wrong", "flux:2:wrong", "wan21:2:wrong", "stable_audio:2:wrong"]


@pytest.mark.parametrize("case", SMALL + LARGE)
def test_with_frozen_inputs_a_pipeline_becomes_exact(frozen, case):
    if case in LARGE and os.environ.get("HYBRIDIFF_LARGE_MODELS") != "1":
        pytest.skip("gigabytes of weights (HYBRIDIFF_LARGE_MODELS=1 sh dev/test.sh --all)")
    result = frozen(case)
    assert result["finite"]
    assert result["works"] == ["exact"] * 5 + ["pipeline"] * 11
    assert result["difference"] < LIMIT
    assert len(result["cuts"][0]["bounds"]) == int(case.split(":")[1])


@pytest.mark.parametrize("case", WITHOUT_HOOK)
def test_a_network_without_block_hooks_runs_whole_and_says_so(frozen, case):
    result = frozen(case)
    assert result["works"] == ["exact"] * 16 and result["difference"] < 1e-6
    assert any("the network cannot be cut" in line for line in result["lines"])


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_cut_does_not_pass(frozen, case):
    assert frozen(case)["difference"] > 10 * LIMIT
