"""Weights in the quantised formats of ComfyUI's templates, with and without a LoRA, on two devices beside stock.

The judge is the comparison that each run makes of a worker's first results, and the latent.
"""

from __future__ import annotations

import json
import subprocess

import pytest

from ...tiers import full
from ..comfy_server import MODELS, PACK, Refused, make_models, python_of
from .conftest import compared, without

FORMATS = {
    "fp8": "fp8, scaled",
    "int8": "int8, a scale for each tensor",
    "int8_convrot": "int8, rotated (convrot)",
    "nvfp4": "nvfp4",
    "mxfp8": "mxfp8",
}
LORA = "sd3_depth4.safetensors"
# they round each value that comes in to one of 255, so the least difference in a sum shows: KSampler's own latent moves
# by 4e-3 where its prompts are computed one after the other, and as much where the noise moves by a millionth
COARSE = ("int8", "int8_convrot")
CASES = [(name, lora) for lora in (False, True) for name in FORMATS]


@pytest.fixture(scope="module")
def files(comfyui_root):
    """The formats' files, or why this ComfyUI cannot make one."""
    make_models(comfyui_root)
    script = PACK / "tests" / "host" / "make_quants.py"
    command = [python_of(comfyui_root), str(script), str(comfyui_root), str(MODELS)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def side_of(bench, file: str, lora: bool, cfg: float):
    side = bench("sd3")
    side.settings |= {"steps": 4, "cfg": cfg}
    plain = without(side)  # in half precision: another picture
    side.model = side.graph.add("UNETLoader", unet_name=file, weight_dtype="default")
    if lora:
        side.model = side.graph.add("LoraLoaderModelOnly", model=side.model, lora_name=LORA, strength_model=0.8)
    return side, plain


@pytest.mark.parametrize(("name", "lora"), [full(*case) if case != ("int8_convrot", True) else case for case in CASES])
def test_a_format(bench, row, files, name, lora):
    row.of("Weight formats", f"{FORMATS[name]}{', and LoRA' if lora else ''}")
    if not files[name].endswith(".safetensors"):
        row.left_out(f"this ComfyUI has no such format: {files[name]}")
        row.cell("tokens", "-")
        return
    side, plain = side_of(bench, files[name], lora, 5.0)
    try:
        difference, report = compared(side, plain)
    except Refused as refused:
        row.left_out(f"ComfyUI cannot compute it on the CPU: {str(refused)[-200:]}")
        row.cell("tokens", "-")
        return
    if name in COARSE:
        assert report["shared_calls"] == 0 and report["lines"][0].startswith("the prompts of a step are not shared")
    else:
        assert report["shared_calls"] == 4, report["lines"]
    row.compared(difference, report)
    side, plain = side_of(bench, files[name], lora, 1.0)
    one_branch, report = compared(side, plain)
    ways = {step["way"] for step in report["steps"] if step["helpers"]}
    row.cell("tokens", f"yes, {one_branch:.0e}" if ways == {"tokens"} else f"no: {'; '.join(report['lines'])}")


def test_a_coarse_format_in_auto(bench, row, files):
    row.of("Weight formats", f"{FORMATS['int8_convrot']}, auto")
    side, plain = side_of(bench, files["int8_convrot"], False, 5.0)
    side.settings["steps"], side.plan = 10, {}
    difference, report = compared(side, plain)
    assert report["shared_calls"] >= 8 and not any("prompts of a step" in line for line in report["lines"]), report
    row.compared(difference, report, "within auto's tolerance", 2e-2)
