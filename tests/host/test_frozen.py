"""Where networks are cut, in the real host: with frozen inputs a pipeline must become exact.

Each family on two devices is a row of compat/test_models.py.
"""

from __future__ import annotations

import pytest

from ..tiers import full_but

LIMIT = 1e-4  # of the prediction and of eps, each at unit scale
CASES = ["sd3:3", "sd3:2:areas", "flux:3", "ltxv:3", "ltxav:2", "ltx2:3", "sd21:3", "sd21:4", "sdxl:3", "sd15:3"]
WRONG = ["sd3:2:wrong", "flux:2:wrong", "wan21:2:wrong", "stable_audio:2:wrong"]


def assert_it_becomes_exact(result: dict, devices: int) -> None:
    assert result["finite"]
    assert result["works"] == ["exact"] * 5 + ["pipeline"] * 11
    assert result["difference"] < LIMIT
    assert len(result["cuts"][0]["bounds"]) == devices


@pytest.mark.parametrize("case", full_but(CASES, "sd3:3", "sd3:2:areas", "sd15:3"))
def test_with_frozen_inputs_a_pipeline_becomes_exact(frozen, case):
    assert_it_becomes_exact(frozen(case), int(case.split(":")[1]))


@pytest.mark.parametrize("case", full_but(WRONG, "sd3:2:wrong"))
def test_a_wrong_cut_does_not_pass(frozen, case):
    assert frozen(case)["difference"] > 10 * LIMIT
