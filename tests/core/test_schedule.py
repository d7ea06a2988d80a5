"""Schedules, compared as text, and what they are made of."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

from hybridiff_core.discrepancy import drop_per_step, is_flat, rel_mae
from hybridiff_core.plan import HybridPlan
from hybridiff_core.rules import NOISE_SHARE
from hybridiff_core.schedule import Schedule, Stage, Work, parse


def run(plan, curve, calls=None, earliest=2, errors=None):
    """A run of len(curve) steps in which every step measured its discrepancy; `calls` are the sigmas called."""
    sigmas = [float(len(curve) - i) for i in range(len(curve) + 1)]
    schedule = Schedule(plan, sigmas, earliest)
    for sigma in calls or sigmas[:-1]:
        step = schedule.locate(sigma)
        schedule.stage(step)
        schedule.note(step, Work.EXACT, curve[step], errors[step] if errors else None)
    return schedule


def stages(schedule):
    return "".join(line.stage.value[0] for line in schedule.lines())


def test_rel_mae_is_that_of_eps_and_the_mean_over_a_batch():
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    eps_c, eps_u, sigma = torch.tensor([[1.0, 3.0], [2.0, 2.0]]), torch.tensor([[2.0, 2.0], [2.0, 1.0]]), 0.5
    # mean|c - u| / mean|u|: 1 / 2 and 0.5 / 1.5
    assert rel_mae(x - sigma * eps_c, x - sigma * eps_u, x) == pytest.approx((1 / 2 + 1 / 3) / 2)


def test_the_slope_is_the_drop_per_step_over_the_window():
    assert drop_per_step([0.9, 0.5, 0.3], 2) == pytest.approx(0.3)
    assert drop_per_step([0.9, 0.5], 2) is None
    assert is_flat([0.5, 0.4], 1, 0.11) and not is_flat([0.5, 0.4], 1, 0.09)
    assert not is_flat([0.4, 0.5], 1, 1.0)  # it rises


def test_slope_rule_begins_after_the_first_flat_step_and_lasts_k():
    plan = HybridPlan(mode="pipeline", slope_window=10, slope_threshold=0.01, warmup_cap=50, parallel_steps=15)
    # for 10 steps: a window of 2, a slope of 0.05, a cap of 10, three steps
    schedule = run(plan, [1.0, 0.8, 0.6, 0.5, 0.48, 0.47, 0.46, 0.46, 0.5, 0.6])
    assert (schedule.used.window, schedule.used.cap, schedule.used.interval) == (2, 10, 3)
    assert schedule.used.slope == pytest.approx(0.05)
    # drops over 2 steps, a step: 0.2, 0.15, 0.06, 0.015 at step 5: tau1 = 5
    assert (schedule.tau1, schedule.tau2) == (5, 8)
    assert stages(schedule) == "wwwwwwpppf"


def test_the_cap_decides_where_the_curve_never_falls():
    plan = HybridPlan(mode="pipeline", warmup_cap=20, parallel_steps=10)
    schedule = run(plan, [0.1 * (i + 1) for i in range(10)])
    assert schedule.tau1 == 4 and stages(schedule) == "wwwwwppfff"


def test_the_papers_numbers_are_for_50_steps():
    used = HybridPlan(preset="SDXL (paper)").for_run(50)
    assert (used.window, used.slope, used.cap, used.interval) == (12, pytest.approx(0.4e-3), 15, 5)
    used = HybridPlan(preset="SD3 (paper)").for_run(25)
    assert (used.window, used.slope, used.cap, used.interval) == (8, pytest.approx(0.2e-3), 20, 2)


@pytest.mark.parametrize(
    ("start", "k", "expected"),
    [(4, 3, "wwwwpppfff"), (4, 1, "wwwwpfffff"), (4, 6, "wwwwpppppp"), (9, 1, "wwwwwwwwwp"), (1, 2, "wwppffffff")],
)
def test_fixed_boundaries_are_the_runs_own_steps(start, k, expected):
    plan = HybridPlan(mode="predict", warmup="fixed", start_step=start, parallel_steps=k)
    assert stages(run(plan, [0.5] * 10)) == expected  # the last case waits for two exact steps


def test_a_fixed_stage_beyond_the_run_is_refused():
    plan = HybridPlan(mode="predict", warmup="fixed", start_step=8, parallel_steps=5)
    with pytest.raises(ValueError, match="start_step 8 and parallel_steps 5 go beyond the run's 10 steps"):
        plan.for_run(10)
    replace(plan, mode="exact").for_run(10)  # has no stage that could go beyond


def test_calls_within_a_step_share_its_stage():
    plan = HybridPlan(mode="predict", warmup="fixed", start_step=3, parallel_steps=2)
    sigmas = [6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0]
    midpoints = [sigma for a, b in itertools.pairwise(sigmas) for sigma in (a, (a + b) / 2)]
    schedule = Schedule(plan, sigmas)
    assert [schedule.locate(sigma) for sigma in midpoints] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_heuns_second_call_belongs_to_the_step_before():
    sigmas = [6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0]
    calls = [6.0, 5.0, 5.0, 4.0, 4.0, 3.0, 3.0, 2.0, 2.0, 1.0, 1.0]
    schedule = Schedule(HybridPlan(), sigmas)
    # at the first step it cannot be told from a step of its own
    assert [schedule.locate(sigma) for sigma in calls] == [0, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5]


def test_part_of_a_schedule_counts_what_is_run():
    assert Schedule(HybridPlan(), [3.0, 2.0, 1.0, 0.0]).steps == 3


def run_with_errors(errors, tolerance, work=Work.PREDICTED, **how):
    """The stages and works of a flow of equal steps, in which each step measures what `errors` says."""
    plan = HybridPlan(mode="predict", warmup="fixed", start_step=3, parallel_steps=0, tolerance=tolerance)
    steps = len(errors)
    sigmas = [1 - i / steps for i in range(steps + 1)]
    schedule, works = Schedule(plan, sigmas, **{"flow": True, **how}), ""
    for step, sigma in enumerate(sigmas[:-1]):
        stage = schedule.stage(schedule.locate(sigma))
        done = work if stage is Stage.PARALLELISM and schedule.affords(step) else Work.EXACT
        works += "-" if done is Work.EXACT else "p"
        schedule.note(step, done, 0.5, errors[step] if done is Work.EXACT else None)
    return stages(schedule), works, schedule.off


def test_the_tolerance_decides_when_to_enter_and_how_far_the_picture_may_be_off():
    # a step is a tenth of the way: 0.09 is a part of 0.009, and three of them are 0.0156 off
    errors = [None, None, 0.14, 0.14, 0.09, 0.09, 0.09, 0.09, 0.09, 0.09]
    found, works, off = run_with_errors(errors, 0.013, Work.PIPELINE)
    # not at steps 3 and 4: one alone would be too much
    assert (found, works) == ("wwwwwpppff", "-----pp---") and off == pytest.approx(0.009 * 2**0.5)
    how = {"tolerance": 0.0157, "work": Work.PIPELINE}
    assert run_with_errors(errors, **how)[1] == "---p------"  # 0.014 is spent at once, and 0.0166 would be too much
    assert run_with_errors(errors, **how, weight=2.0)[1] == "-" * 10


def test_predicted_steps_in_a_row_are_off_in_one_direction():
    errors = [None, None, *[0.09] * 8]
    # parts of 0.009: two in a row are 0.018 off, and with one more, apart from them, 0.0201
    assert run_with_errors(errors, 0.0179)[1:] == ("---p-p-p--", pytest.approx(0.009 * 3**0.5))
    assert run_with_errors(errors, 0.0181)[1:] == ("---pp-----", pytest.approx(0.018))


@pytest.mark.parametrize("k", [0, 6])
def test_the_last_two_steps_are_computed_where_only_the_tolerance_ends_the_stage(k):
    how = {"mode": "predict", "parallel_steps": k, "tolerance": 0.5}
    plans = [HybridPlan(**how, warmup="fixed", start_step=4), HybridPlan(**how, warmup_cap=15)]
    if not k:
        plans.append(HybridPlan())
    for plan in plans:
        errors = [None, None, 0.3] + [1e-3] * 7  # beyond FAR at first: so late a begin does not move the end
        assert stages(run(plan, [0.5] * 10, errors=errors))[-2:] == ("pp" if k and plan.warmup == "fixed" else "ff")


def test_an_error_expected_of_a_step_counts_in_place_of_the_one_measured_last():
    plan = HybridPlan(mode="predict", warmup="fixed", start_step=1, parallel_steps=0, tolerance=0.01)
    schedule = Schedule(plan, [1 - i / 10 for i in range(11)], flow=True)
    schedule.note(0, Work.EXACT, error=0.05)
    schedule.expect(3, 0.11)
    schedule.expect(4, 0.02)
    schedule.expect(5, None)
    assert [schedule.affords(step) for step in (2, 3, 4, 5)] == [True, False, True, True]
    schedule.note(4, Work.PREDICTED)
    assert schedule.off == pytest.approx(0.002)


def test_what_is_measured_on_the_way_counts():
    errors = [None, None, 0.01, 0.01, 0.01, 0.3, 0.01, 0.01, 0.01, 0.01]

    def stops(work):
        plan = HybridPlan(mode="predict", warmup="fixed", start_step=3, parallel_steps=0, tolerance=0.5)
        schedule = Schedule(plan, [1 - i / 10 for i in range(11)], flow=True)
        afforded = []
        for step in range(10):
            schedule.stage(step)
            afforded.append(schedule.affords(step))
            schedule.note(step, work, 0.5, errors[step])
        return afforded

    # however much may be spent, an error beyond FAR says that nothing is known; step 6 follows 5's
    assert stops(Work.EXACT) == [False] * 3 + [True] * 3 + [False] + [True] * 3


def test_a_part_goes_by_the_change_of_sigma():
    plan = HybridPlan(mode="predict", warmup="fixed", start_step=1, parallel_steps=0, tolerance=0.01)
    for flow, off in ((False, NOISE_SHARE * 0.1 * 2), (True, 0.1 * 2)):
        schedule = Schedule(plan, [9.0, 3.0, 1.0, 0.0], flow=flow)
        schedule.note(0, Work.EXACT, 0.5, 0.1)
        schedule.note(1, Work.PREDICTED)
        assert schedule.off == pytest.approx(off)


def test_where_early_steps_are_dear_the_tolerance_is_to_be_had_bit_by_bit():
    errors = [None, None, *[0.15] * 13]
    part = 0.15 / 15
    # four steps are within the tolerance; a model that is no flow has a tenth of it (squared) for each step of ten
    how = {"work": Work.PIPELINE}
    assert run_with_errors(errors, 2.05 * part, **how)[1] == "---pppp--------"
    # noise beside a picture a hundredth as large: sigma is above 1, and a step's part NOISE_SHARE
    how |= {"flow": False, "scale": 100.0}
    assert run_with_errors(errors, 2.05 * part * NOISE_SHARE * 100, **how)[1] == "-----p-p--p-p--"


def test_a_schedule_prints_a_line_a_step_and_parses_back():
    plan = HybridPlan(mode="predict", warmup="fixed", start_step=2, parallel_steps=1)
    schedule = Schedule(plan, [3.0, 2.0, 1.0, 0.5, 0.0])
    for step, (sigma, work, rel, error) in enumerate(
        [(3.0, Work.EXACT, 0.5, None), (2.0, Work.EXACT, 0.25, 0.125), (1.0, Work.PREDICTED, None, None),
         (0.5, Work.EXACT, 0.2, 0.01)]
    ):  # fmt: skip
        schedule.stage(schedule.locate(sigma))
        schedule.note(step, work, rel, error)
    assert str(schedule) == (
        "   0    3.00000 warm-up          exact        0.50000        -\n"
        "   1    2.00000 warm-up          exact        0.25000  0.12500\n"
        "   2    1.00000 parallelism      predicted          -        -\n"
        "   3    0.50000 fully-connecting exact        0.20000  0.01000"
    )
    assert parse(str(schedule)) == schedule.lines()
    assert schedule.lines()[2].stage is Stage.PARALLELISM
    with pytest.raises(ValueError):
        parse("0 3.0 lunch exact - -")
