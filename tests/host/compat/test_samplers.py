"""Samplers and schedulers, beside stock KSampler."""

from __future__ import annotations

import pytest

SCHEDULERS = ("karras", "beta", "simple")


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("sampler", ["euler"])
def test_sampler(bench, row, sampler, scheduler):
    row.of("Samplers", f"{sampler}, {scheduler}")
    side = bench("sd3")
    side.settings |= {"sampler_name": sampler, "scheduler": scheduler, "steps": 4}
    row.compared(*side.compare())
