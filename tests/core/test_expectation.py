"""What auto expects of a step, and that it keeps to its tolerance where the right answer is known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch

from hybridiff_core.engine import Engine
from hybridiff_core.modes.expectation import Expectation, Noise
from hybridiff_core.modes.outcome import outcome
from hybridiff_core.plan import HybridPlan
from hybridiff_core.report import RunReport
from hybridiff_core.rules import AUTO_TOLERANCE, MOST_GROWTH, NEAR
from hybridiff_core.schedule import Schedule, Work
from hybridiff_core.setting import Setting
from hybridiff_core.share import Unit

SIDE, PARTS, SPREAD = 12, 6, 0.3  # of the pictures; of the mixture; of a part's variance in the whole


# -- what is expected


def test_levels_are_a_logarithm_where_there_is_much_noise():
    noise = Noise()
    assert noise.level(100.0) - noise.level(50.0) == pytest.approx(math.log(2), abs=1e-3)
    assert noise.level(0.01) == pytest.approx(0.01, abs=1e-6)
    assert Noise(flow=True).level(0.5) == Noise().level(1.0)  # as much noise as picture
    assert Noise(scale=2.0).level(1.0) == Noise().level(2.0)
    assert Noise(flow=True).told(0.9) == 1.0 and noise.told(3.0) == pytest.approx(10**-0.5)


def test_an_error_is_expected_to_grow_as_the_last_ones_did():
    known = Expectation(Noise(flow=True))
    sigmas = [math.sinh(level) / (1 + math.sinh(level)) for level in (1.5, 1.25, 1.0, 0.75, 0.5)]
    assert known.at(sigmas[0], 1.0) is None
    known.note(sigmas[0], 0.01, 1.0)
    assert known.at(sigmas[1], 2.0) == pytest.approx(0.02)  # in proportion to the product of the distances
    known.note(sigmas[1], 0.02, 1.0)
    assert known.at(sigmas[2], 1.0) == pytest.approx(0.04)
    assert known.at(sigmas[3], 1.0) == pytest.approx(0.08)
    known.note(sigmas[2], 0.005, 1.0)  # a low one counts half, by its logarithm; what grew may grow on
    assert known.at(sigmas[3], 1.0) == pytest.approx(0.02)
    known.note(sigmas[3], 1.0, 1.0)
    assert known.at(sigmas[4], 1.0) == pytest.approx(MOST_GROWTH)


def test_nothing_is_expected_far_from_a_measured_error():
    known = Expectation(Noise())
    known.note(100.0, 1e-6, 1.0)
    assert known.at(100.0 / math.exp(0.95 * NEAR), 1.0) < 1e-4
    assert known.at(100.0 / math.exp(1.05 * NEAR), 1.0) == math.inf
    assert known.at(90.0, 0.0) == math.inf  # the model's time does not tell it from a computed step


def test_nothing_is_expected_far_below_a_measured_error_where_there_is_little_noise():
    """The trained transformer under zero-SNR, exponential, 12 steps: 0.1377 off where 0.0538 was expected."""
    known = Expectation(Noise())
    known.note(2.2502, 0.0208, 1.0)
    known.note(0.7592, 0.0559, 1.0)
    assert known.at(0.4, 1.0) < 0.1
    assert known.at(0.2562, 1.0) == math.inf
    flow = Expectation(Noise(flow=True))  # whose error is that of its velocity
    flow.note(0.3, 0.01, 1.0)
    assert flow.at(0.1, 1.0) == pytest.approx(0.01)


# -- networks whose answer is known: the mean of the pictures that a latent may have come from


def karras(steps: int, low: float, high: float) -> list[float]:
    """The published schedule (arXiv 2206.00364, eq. 5, rho 7)."""
    ramp = [high ** (1 / 7) + i / (steps - 1) * (low ** (1 / 7) - high ** (1 / 7)) for i in range(steps)]
    return [value**7 for value in ramp] + [0.0]


def exponential(steps: int, low: float, high: float) -> list[float]:
    return [high * (low / high) ** (i / (steps - 1)) for i in range(steps)] + [0.0]


def discrete(zero: bool) -> torch.Tensor:
    """SD's 1,000 noise levels; with `zero` none of the picture is left in the last (arXiv 2305.08891)."""
    kept = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2).cumprod(0).sqrt()
    if zero:
        kept = (kept - kept[-1]) * kept[0] / (kept[0] - kept[-1])
        kept[-1] = 4.8973451890853435e-08**0.5
    return (1 - kept**2).sqrt() / kept


def place_in(levels: torch.Tensor) -> Callable[[float], float]:
    return lambda sigma: float((levels.log() - math.log(sigma)).abs().argmin())


def edm(sigma: float) -> float:
    return 0.25 * math.log(sigma)


def continuous_v(sigma: float) -> float:
    return 2 * math.atan(sigma) / math.pi


def mean_of(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """E[picture | x] for Gaussians with a picture's spectrum; x [1, coefficients]."""
    away = x - MEANS
    weights = (-0.5 * (away.square() / (VARIANCE + sigma**2)).sum(-1)).softmax(-1)
    return (weights[:, None] * (MEANS + VARIANCE / (VARIANCE + sigma**2) * away)).sum(0, keepdim=True)


def _mixture() -> tuple[torch.Tensor, torch.Tensor]:
    side = torch.arange(float(SIDE))
    power = (1 / (1 + torch.hypot(side[:, None], side[None])) ** 2).flatten().repeat(4)
    power /= power.mean()
    means = torch.randn(PARTS, len(power), generator=torch.Generator().manual_seed(1)) * power.sqrt()
    return means * (1 - SPREAD) ** 0.5, power * SPREAD


MEANS, VARIANCE = _mixture()
LEVELS = {zero: discrete(zero) for zero in (False, True)}


def euler(sigmas: list[float], denoised: Callable[[torch.Tensor, float], torch.Tensor]) -> torch.Tensor:
    noise = torch.randn(1, MEANS.shape[1], generator=torch.Generator().manual_seed(0))
    x = noise * math.hypot(1.0, sigmas[0])
    for sigma, after in itertools.pairwise(sigmas):
        x = x + (x - denoised(x, sigma)) / sigma * (after - sigma)
    return x


def by_auto(sigmas: list[float], time: Callable[[float], float], tolerance: float = 0.0) -> tuple[float, Engine]:
    """How far auto's latent is off, as a share of the exact one, and its engine."""
    plan = HybridPlan(tolerance=tolerance)
    engine = Engine([], RunReport("auto", ["cpu"]), Setting(plan, sigmas, time=time, first_order=True))

    def denoised(x: torch.Tensor, sigma: float) -> torch.Tensor:
        given = torch.tensor([sigma], dtype=torch.float64)
        return engine.step(x, given, [Unit(0, 0)], lambda units, through=None: {0: mean_of(x, sigma)}, None)[0]

    exact, close = euler(sigmas, mean_of), euler(sigmas, denoised)
    engine.conclude()
    return ((close - exact).norm() / exact.norm()).item(), engine


SAMPLINGS = {
    "EDM 700, karras, 12": (karras(12, 0.002, 700.0), edm),
    "EDM 700, karras, 20": (karras(20, 0.002, 700.0), edm),
    "EDM 500, karras, 12": (karras(12, 0.002, 500.0), edm),
    "EDM 500, karras, 20": (karras(20, 0.002, 500.0), edm),
    "EDM 120, karras, 20": (karras(20, 0.002, 120.0), edm),
    "EDM 80, exponential, 12": (exponential(12, 0.002, 80.0), edm),
    "zero-SNR, karras, 20": (karras(20, 0.0292, 4518.76), place_in(LEVELS[True])),
    "eps, karras, 12": (karras(12, 0.0292, 14.6146), place_in(LEVELS[False])),
    "eps, karras, 20": (karras(20, 0.0292, 14.6146), place_in(LEVELS[False])),
    "continuous v 500, exponential, 20": (exponential(20, 0.03, 500.0), continuous_v),
}


@pytest.mark.parametrize("name", SAMPLINGS)
def test_auto_keeps_to_its_tolerance_where_the_answer_is_known(name):
    off, _ = by_auto(*SAMPLINGS[name])
    assert off <= 1.2 * AUTO_TOLERANCE


def test_auto_predicts_where_it_knows():
    predicted = [
        sum(step.work == "predicted" for step in by_auto(*SAMPLINGS[name])[1].report.steps)
        for name in ("EDM 500, karras, 20", "eps, karras, 20")
    ]
    assert predicted[0] >= 2 and predicted[1] >= 4


# -- what is said of it


def test_a_line_says_how_many_steps_were_predicted():
    _, engine = by_auto(*SAMPLINGS["eps, karras, 20"])
    count = [step.work for step in engine.report.steps].count("predicted")
    assert engine.report.lines == [f"{count} of 20 steps predicted"]


def test_a_line_says_why_none_was_predicted():
    _, engine = by_auto(*SAMPLINGS["eps, karras, 12"], tolerance=1e-5)
    (line,) = engine.report.lines
    assert line.startswith("0 of 12 steps predicted: the best of them would be ")
    assert line.endswith(" times as far off as the tolerance of 1e-05 allows")
    schedule = Schedule(HybridPlan(), [1000.0, 100.0, 10.0, 1.0, 0.0])
    for step in range(4):
        schedule.stage(step)
        schedule.expect(step, math.inf)
        schedule.affords(step)
        schedule.note(step, Work.EXACT)
    assert outcome(schedule, "predict") == [
        "0 of 4 steps predicted: the sampler's steps are too far apart to predict one from those before it"
    ]


def test_what_turns_out_beyond_the_tolerance_ends_it_with_a_line(monkeypatch):
    sigmas, time = karras(20, 0.0292, 14.6146), place_in(LEVELS[False])
    jumps = mean_of

    def jump(x, sigma):  # another picture from sigma 0.5 on
        return jumps(x, sigma) + (1.0 if sigma < 0.5 else 0.0)

    monkeypatch.setitem(globals(), "mean_of", jump)
    _, engine = by_auto(sigmas, time)
    works = [step.work for step in engine.report.steps]
    found = [line for line in engine.report.lines if "as measured after them" in line]
    assert len(found) == 1 and "and the tolerance is 0.01" in found[0]
    said = int(found[0].split("from step ")[1].split()[0])
    assert works[said - 1] == "predicted" and set(works[said:]) == {"exact"}
    assert engine.schedule.off > AUTO_TOLERANCE


def test_beside_a_line_that_every_step_is_exact_nothing_is_said():
    schedule = Schedule(HybridPlan(), [3.0, 2.0, 1.0, 0.0])
    for step in range(3):
        schedule.stage(step)
        schedule.note(step, Work.EXACT)
    assert outcome(schedule, "exact") == []
    assert outcome(schedule, "predict") == ["0 of 3 steps predicted: how far off they would be could not be measured"]
    schedule = Schedule(HybridPlan(), [3.0, 2.0, 1.0, 0.0])
    for step, work in enumerate((Work.EXACT, Work.ALTERNATING, Work.PREDICTED)):
        schedule.stage(step)
        schedule.note(step, work)
    assert outcome(schedule, "pipeline") == ["1 of 3 steps in the mode pipeline", "1 of 3 steps predicted"]
