"""A worker's life beside a real ComfyUI of its own."""

from __future__ import annotations

import signal

import psutil
import pytest

from .comfy_server import Comfy, make_models
from .conftest import Bench
from .test_exact import LIMIT, assert_shared
from .test_fallbacks import workers


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


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_comfyui(comfyui_root, tmp_path, end):
    make_models(comfyui_root)
    comfy = Comfy(comfyui_root, tmp_path / "base")
    try:
        side = Bench(comfy, "sd3")
        side.devices = ("same", "cpu")
        side.compare()
        found = workers(comfy)
        assert len(found) == 2
        comfy.process.send_signal(end)
        comfy.process.wait(20)
        gone, alive = psutil.wait_procs(found, timeout=5)
        assert not alive and len(gone) == 2
    finally:
        comfy.stop()
