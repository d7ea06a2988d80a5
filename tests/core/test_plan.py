import dataclasses

import pytest

from hybridiff_core.plan import HybridPlan
from hybridiff_core.rules import AUTO_START, AUTO_TOLERANCE, LAST_STEPS, PUBLISHED


def test_default_round_trip():
    plan = HybridPlan()
    assert HybridPlan.from_dict(plan.to_dict()) == plan
    assert next(field.name for field in dataclasses.fields(plan)) == "mode"


def test_a_published_preset_stands_in_for_the_values():
    plan = HybridPlan(preset="SDXL (paper)", slope_window=3, parallel_steps=40, warmup="fixed").effective
    assert {name: getattr(plan, name) for name in PUBLISHED["SDXL (paper)"]} == PUBLISHED["SDXL (paper)"]
    assert plan.warmup == "slope"
    assert HybridPlan(preset="exact only").effective.mode == "exact"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"mode": "fast"}, "mode is 'fast'; use one of auto, exact, pipeline, predict, paper"),
        ({"version": 99}, "version 99"),
        ({"warmup": "late"}, "warmup is 'late'"),
        ({"slope_threshold": float("nan")}, "slope_threshold is nan; use 0.0 to 1.0"),
        ({"slope_window": 0}, "slope_window is 0; use 1 to 1000"),
        ({"start_step": float("nan")}, "start_step is nan; use 1 to 10000"),
        ({"warmup_cap": 10**400}, "warmup_cap is 1000"),
        ({"parallel_steps": 2.5}, "parallel_steps is 2.5; use a whole number"),
        ({"tolerance": "much"}, "tolerance is 'much'; use a number"),
        ({"start_step": True}, "start_step is True; use a whole number"),
        ({"mode": "pipeline", "parallel_steps": 0}, "parallel_steps is 0 and tolerance is 0"),
        ({"mode": "predict", "predict_stride": 1}, "mode is 'predict' and predict_stride is 1"),
        ({"mode": "paper", "predict_stride": 2}, "mode is 'paper' and predict_stride is 2"),
        ({"mode": "pipeline", "preset": "exact only"}, "preset is 'exact only' and mode is 'pipeline'"),
        ({"mode": "exact", "preset": "SD3 (paper)"}, "preset is 'SD3 (paper)' and mode is 'exact'"),
    ],
)
def test_what_cannot_be_is_refused_by_name(values, words):
    with pytest.raises(ValueError, match=words.replace("(", r"\(").replace(")", r"\)")):
        HybridPlan.from_dict({**HybridPlan().to_dict(), **values})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (None, "expected a plan, got NoneType"),
        ({"mode": "auto"}, "expected a plan"),
        ({"version": 2, "speed": 11}, "unknown fields speed"),
    ],
)
def test_what_is_not_a_plan_is_refused(values, words):
    with pytest.raises(ValueError, match=words):
        HybridPlan.from_dict(values)


def test_auto_has_its_own_numbers_and_takes_the_tolerance():
    used = HybridPlan(warmup="fixed", start_step=90, parallel_steps=90).for_run(20)
    assert (used.start, used.interval, used.tolerance) == (AUTO_START, 20 - AUTO_START - LAST_STEPS, AUTO_TOLERANCE)
    assert HybridPlan(tolerance=0.002).for_run(20).tolerance == 0.002
    assert HybridPlan(preset="SDXL (paper)").for_run(50).interval == 5
