"""Which of the three stages a step is in, found step by step; prints as one line a step and parses back."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from .discrepancy import is_flat
from .plan import HybridPlan
from .rules import FAR, NOISE_SHARE


class Stage(str, Enum):
    """The paper's three stages."""

    WARM_UP = "warm-up"
    PARALLELISM = "parallelism"
    FULLY_CONNECTING = "fully-connecting"


class Work(str, Enum):
    """What is done in a step."""

    EXACT = "exact"
    PREDICTED = "predicted"
    PIPELINE = "pipeline"
    ALTERNATING = "alternating"
    PAPER = "paper"


@dataclass(frozen=True)
class Line:
    """One step of a schedule. `rel_mae` and `error` are None where a step did not measure them."""

    step: int
    sigma: float
    stage: Stage
    work: Work
    rel_mae: float | None = None
    error: float | None = None

    def __str__(self) -> str:
        rel_mae, error = ("-" if value is None else f"{value:.5f}" for value in (self.rel_mae, self.error))
        return f"{self.step:4d} {self.sigma:10.5f} {self.stage.value:16} {self.work.value:11} {rel_mae:>8} {error:>8}"

    @classmethod
    def parse(cls, text: str) -> Line:
        """Undo `str`, to the digits printed. Raises ValueError."""
        step, sigma, stage, work, *measured = text.split()
        rel_mae, error = (None if value == "-" else float(value) for value in measured)
        return cls(int(step), float(sigma), Stage(stage), Work(work), rel_mae, error)


class Schedule:
    """A run's schedule: `sigmas` are the sampler's, one more than there are steps, falling.

    `earliest` is the first step that may be in the parallelism stage: what a mode needs to know
    comes from the steps before. `noise` has sigma itself, where `sigmas` only number levels. `flow`
    says that sigma is a flow's time, `weight` how much of what a step is off the sampler makes of it (1 where
    the next step takes some back), and `scale` how large noise is at sigma 1 beside a picture. Raises ValueError
    where the plan does not fit the run.

    With a tolerance, a step may be left out or run on old features only while what such steps are
    off together stays within it. A step's part is the error expected of it, or else measured last,
    times the step's change of sigma: by that the latent is off, and later steps do not take it back
    (docs/benchmarks). Parts add up as their squares do, but for those of predicted steps in a row, which
    are told by the same values and so are off in one direction. What a step turned out to be off, by the
    errors measured after it, takes the place of what was expected; beyond the tolerance, nothing more is
    affordable. Where sigma is not a flow's, the first steps are the dearest by far, so the tolerance is to
    be had bit by bit, in proportion to the stage's steps.
    """

    def __init__(
        self,
        plan: HybridPlan,
        sigmas: Sequence[float],
        earliest: int = 2,
        noise: Sequence[float] | None = None,
        flow: bool = False,
        weight: float = 1.0,
        scale: float = 1.0,
    ):
        self.sigmas = [float(sigma) for sigma in sigmas]
        self.noise = list(noise or self.sigmas)
        self.steps = len(self.sigmas) - 1
        self.used = plan.for_run(self.steps)
        self.earliest, self.flow, self.weight, self.scale = earliest, flow, weight, scale
        self.tau1: int | None = None
        self.tau2: int | None = None
        self.error: float | None = None
        self.nearest_miss: float | None = None  # of steps that were not affordable: how many times too far off
        self.curve: dict[int, float] = {}
        self._errors: dict[int, float] = {}
        self._expected: dict[int, float] = {}
        self._parts: dict[int, float] = {}
        self._stages: dict[int, Stage] = {}
        self._works: dict[int, Work] = {}
        self._calls_at: dict[int, int] = {}
        self._step = 0

    def locate(self, sigma: float) -> int:
        """The sampler's step that a call at `sigma` belongs to; to be asked once a call, in their order.

        A call between two steps' sigmas belongs to the earlier step. A sampler that calls twice at
        a step's sigma (heun) made the first of the two for the step before.
        """
        falling = [-value for value in self.sigmas]
        slack = 1e-5 * max(sigma, 1e-8)
        index = min(max(bisect.bisect_right(falling, -(sigma - slack)) - 1, 0), self.steps - 1)
        if abs(self.sigmas[index] - sigma) <= 2 * slack:
            times = self._calls_at[index] = self._calls_at.get(index, 0) + 1
            if times == 1 and index > 1 and self._calls_at.get(1, 0) > 1:
                index -= 1
        self._step = max(self._step, index)
        return self._step

    @property
    def before(self) -> float:
        """The highest sigma that a sampler still comes back to: where the step before the last call's began."""
        return self.sigmas[self._step - 1] if self._step > 1 else math.inf  # noise may be added at a step's begin

    def stage(self, step: int) -> Stage:
        """The stage of `step`, decided when it is first asked for and kept."""
        if step not in self._stages:
            self._stages[step] = self._decide(step)
        return self._stages[step]

    def _decide(self, step: int) -> Stage:
        if self.tau1 is None and self._warm(step):
            self.tau1 = step - 1
            self.tau2 = min(self.tau1 + self.used.interval, self.steps - 1 - self.used.last)
        if self.tau1 is None:
            return Stage.WARM_UP
        return Stage.PARALLELISM if step <= self.tau2 else Stage.FULLY_CONNECTING

    def _warm(self, step: int) -> bool:
        """Whether the stage may begin with `step`: what was measured up to the step before says so."""
        if step < self.earliest or not self.affords(step):
            return False
        if self.used.start is not None:
            return step >= self.used.start
        curve = [self.curve[t] for t in sorted(self.curve)]
        return step - 1 >= self.used.cap or is_flat(curve, self.used.window, self.used.slope)

    def expect(self, step: int, error: float | None) -> None:
        """Say how far `step` would be off if it were not computed, where that is known; to be asked for after."""
        if error is not None:
            self._expected[step] = error

    def revise(self, step: int, error: float | None) -> None:
        """Say how far `step`, which was not computed, turned out to be off; None where that is not known."""
        if error is not None:
            self._expected[step] = error
            self._parts[step] = self._part(step)

    @property
    def off(self) -> float:
        """How far the picture is off by the steps that were not computed exactly, as a share of it."""
        return self._together(self._parts)

    def affords(self, step: int) -> bool:
        """Whether `step` may be left out or run on old features, by the error expected of it or measured last."""
        if self.used.tolerance == 0:
            return True
        error = self._likely(step)
        if error is None:
            return False
        allowed = self.used.tolerance * math.sqrt(self._share_of_stage(step))
        times = max(self.weight * error / FAR, self._together({**self._parts, step: self._part(step)}) / allowed)
        if times > 1.0:
            self.nearest_miss = min(times, self.nearest_miss or math.inf)
        return times <= 1.0

    def _likely(self, step: int) -> float | None:
        return self._expected.get(step, self.error)

    def _part(self, step: int) -> float:
        """How far `step` will put the picture off, as a share of it, if it is not computed exactly."""
        before, after = self.noise[step : step + 2]
        moved = self.scale * abs(before - after)
        if not self.flow:
            moved *= NOISE_SHARE * max(1.0, 2.0 / (1.0 + self.scale * after))
        return self.weight * self._likely(step) * moved

    def _together(self, parts: Mapping[int, float]) -> float:
        """How far steps put the picture off together; predicted ones in a row are off in one direction."""
        found: list[float] = []
        for step in sorted(parts):
            if self._works.get(step - 1) is Work.PREDICTED:
                found[-1] += parts[step]
            else:
                found.append(parts[step])
        return math.hypot(*found)

    def _share_of_stage(self, step: int) -> float:
        """How much of the tolerance, squared, may be used up to `step`."""
        if self.flow or self.tau1 is None:
            return 1.0
        return min(1.0, (step - self.tau1) / max(1, self.tau2 - self.tau1))

    def note(self, step: int, work: Work, rel_mae: float | None = None, error: float | None = None) -> None:
        """Take down what a call of `step` did and measured. A step's first discrepancy is the one that counts."""
        if step not in self._works and work is not Work.EXACT:
            self._parts[step] = self._part(step) if self.error is not None else 0.0
        self._works.setdefault(step, work)
        if rel_mae is not None:
            self.curve.setdefault(step, rel_mae)
        if error is not None:
            self.error = error
            self._errors[step] = error

    def lines(self) -> list[Line]:
        """What was done so far, a line a step."""
        return [
            Line(step, self.sigmas[step], self._stages[step], work, self.curve.get(step), self._errors.get(step))
            for step, work in sorted(self._works.items())
        ]

    def __str__(self) -> str:
        return "\n".join(map(str, self.lines()))


def parse(text: str) -> list[Line]:
    """The lines of a printed schedule. Raises ValueError."""
    return [Line.parse(line) for line in text.splitlines() if line.strip()]
