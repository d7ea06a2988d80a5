"""Exact stages equal stock KSampler, through the HTTP API of a real ComfyUI."""

from __future__ import annotations

import itertools

import pytest

from ..tiers import full
from .conftest import LIMIT

SAMPLERS = ["euler", "dpmpp_2m", "dpmpp_2m_sde", "heun", "uni_pc", "lcm", "ddim"]
SCHEDULERS = ["karras", "normal", "sgm_uniform"]
# of the others every change tests each sampler with one scheduler (compat/test_samplers.py)
OFTEN = [("dpmpp_2m", "karras"), ("heun", "normal"), ("dpmpp_2m_sde", "sgm_uniform")]
PAIRS = [*OFTEN, *(full(*pair) for pair in itertools.product(SAMPLERS, SCHEDULERS) if pair not in OFTEN)]


def assert_shared(report: dict, calls: int | None = None) -> None:
    """Every denoiser call of the run was computed by two devices."""
    assert report["lines"] == []
    assert report["shared_calls"] == report["calls"] > 0
    if calls is not None:
        assert report["calls"] == calls


@pytest.mark.parametrize(("sampler", "scheduler"), PAIRS)
def test_sd3_equals_stock(bench, sampler, scheduler):
    side_by_side = bench("sd3")
    # heun's last step divides the host's rounding of x - denoised by its smallest sigma: finer steps, less of it
    steps = 20 if sampler == "heun" else 12
    side_by_side.settings |= {"sampler_name": sampler, "scheduler": scheduler, "steps": steps}
    difference, report = side_by_side.compare()
    assert difference <= LIMIT
    assert_shared(report)


@pytest.mark.parametrize(("sampler", "scheduler"), PAIRS)
def test_sd15_unet_equals_stock(bench, sampler, scheduler):
    side_by_side = bench("sd15", size=8)
    steps = 8 if sampler == "heun" else 5
    side_by_side.settings |= {"sampler_name": sampler, "scheduler": scheduler, "steps": steps}
    difference, report = side_by_side.compare()
    assert difference <= LIMIT
    assert_shared(report)
