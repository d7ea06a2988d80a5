"""Where each family's network is cut, in the real host: with frozen inputs a pipeline must become exact."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from .comfy_server import MODELS, PACK, python_of

LIMIT = 1e-4  # of the prediction and of eps, each at unit scale
SMALL = [
    "sd3:2", "sd3:3", "sd3:2:areas", "sd35:2", "flux:2", "flux:3", "flux2:2", "wan21:2", "wan21_i2v:2",
    "hunyuan_video:2", "ltxv:2", "ltxv:3", "sd21:2", "sd21:3", "sd21:4", "sdxl:2", "sdxl:3", "sdxl_refiner:2",
    "sd15_inpaint:2", "sd15:2", "sd15:3", "stable_audio:2",
]  # fmt: skip
LARGE = ["qwen_image:2", "chroma:2", "auraflow:2"]  # gigabytes of weights: the host fixes their width
WITHOUT_HOOK = ["krea2:2"]
WRONG = ["sd3:2:wrong", "flux:2:wrong", "wan21:2:wrong", "stable_audio:2:wrong"]


@pytest.fixture(scope="module")
def results(comfyui_root):
    large = LARGE if os.environ.get("HYBRIDIFF_LARGE_MODELS") == "1" else []
    done = subprocess.run(
        [
            python_of(comfyui_root), str(PACK / "tests" / "host" / "frozen.py"), str(comfyui_root), str(MODELS),
            *SMALL, *large, *WITHOUT_HOOK, *WRONG,
        ],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return {result["case"]: result for result in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("case", SMALL + LARGE)
def test_with_frozen_inputs_a_pipeline_becomes_exact(results, case):
    if case not in results:
        pytest.skip(
            "GIGABYTES OF WEIGHTS: set HYBRIDIFF_LARGE_MODELS=1 to test the cuts of Qwen-Image, Chroma, AuraFlow"
        )
    result = results[case]
    assert result["finite"]
    assert result["works"] == ["exact"] * 5 + ["pipeline"] * 11
    assert result["difference"] < LIMIT
    assert len(result["cuts"][0]["bounds"]) == int(case.split(":")[1])


@pytest.mark.parametrize("case", WITHOUT_HOOK)
def test_a_network_without_block_hooks_runs_whole_and_says_so(results, case):
    assert results[case]["works"] == ["exact"] * 16 and results[case]["difference"] < 1e-6
    assert any("the network cannot be cut" in line for line in results[case]["lines"])


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_cut_does_not_pass(results, case):
    assert results[case]["difference"] > 10 * LIMIT
