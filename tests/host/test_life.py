"""A worker's life beside a real ComfyUI of its own."""

from __future__ import annotations

from benchmarks.interrupts import interrupt_runs

from .comfy_server import Comfy, make_models
from .conftest import Bench
from .test_exact import LIMIT, assert_shared


def test_flags_that_change_numbers_reach_the_worker(comfyui_root, tmp_path):
    make_models(comfyui_root)
    comfy = Comfy(comfyui_root, tmp_path / "base", flags=("--bf16-unet", "--use-pytorch-cross-attention"))
    try:
        difference, report = Bench(comfy, "sd3").compare()
    finally:
        comfy.stop()
    assert_shared(report, calls=4)
    # here the weights are rounded to bfloat16; a worker without the flag would keep them in float32, 1e-3 away
    assert "model weight dtype torch.bfloat16" in comfy.log.read_text()
    assert difference <= LIMIT


def test_ten_interrupts_at_random_moments(comfy):
    result = interrupt_runs(comfy, 10, seed=1, size=32)
    assert not result["faults"]
    # the step under way may end; a second one may not begin
    assert max(row["steps_after"] for row in result["rows"]) <= 1
