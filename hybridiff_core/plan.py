"""What the user asked for: the plan, plain and checked."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace

from .rules import AUTO_START, AUTO_TOLERANCE, LAST_STEPS, PAPER_STEPS, PUBLISHED

PLAN_VERSION = 2
MODES = ("auto", "exact", "pipeline", "predict", "paper")
WARMUPS = ("slope", "fixed")
PRESETS = ("auto", "SDXL (paper)", "SD3 (paper)", "exact only")
RANGES = {
    "start_step": (1, 10000),
    "slope_window": (1, 1000),
    "slope_threshold": (0.0, 1.0),
    "warmup_cap": (1, 10000),
    "parallel_steps": (0, 10000),
    "tolerance": (0.0, 1.0),
    "predict_stride": (0, 16),
}


def shown(value: object) -> str:
    """`value` as an error names it: on one line, and short."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


@dataclass(frozen=True)
class Thresholds:
    """The plan's numbers for one run: `window` L, `slope` g, `cap`, first stage step `start`, `interval` k."""

    window: int
    slope: float
    cap: int
    start: int | None
    interval: int
    tolerance: float
    last: int = 0  # how many steps at the end are in no stage, however late it begins


@dataclass(frozen=True)
class HybridPlan:
    """How one image is shared between devices.

    `mode`: how the parallelism stage is run; "exact" has none. `warmup`: whether that stage begins
    by the slope rule (`slope_window` L, `slope_threshold` g, at the latest at `warmup_cap`; given
    for 50 steps and scaled to the run, as is `parallel_steps`) or, "fixed", at `start_step` of the
    run's own steps, `parallel_steps` taken as they are. `parallel_steps` k: its length, 0 for as
    long as the tolerance allows, but for the last LAST_STEPS steps. `tolerance`: how far all steps
    that are not computed exactly may put the picture off together, as a share of it, by the errors
    measured on the way (schedule.py); 0 for no such check. auto has its own values for all of
    these, but for a tolerance that is given. `predict_stride` m: every m-th step of the stage is
    computed and the others predicted; 0 for none but in predict, where it is as many as the
    tolerance allows (modes/predict.py), 2 without one.
    `preset`: published values in place of those given. `version` is the plan format.

    Raises ValueError naming the field, its value and the way out.
    """

    mode: str = "auto"
    version: int = PLAN_VERSION
    warmup: str = "slope"
    start_step: int = 10
    slope_window: int = 12
    slope_threshold: float = 0.4e-3
    warmup_cap: int = 15
    parallel_steps: int = 20
    tolerance: float = 0.0
    predict_stride: int = 0
    preset: str = "auto"

    def __post_init__(self) -> None:
        if self.version != PLAN_VERSION:
            raise ValueError(
                f"the plan has version {shown(self.version)}, this Hybridiff reads version {PLAN_VERSION}; "
                "make the plan again with this release's Hybridiff Plan node"
            )
        for name, choices in (("mode", MODES), ("warmup", WARMUPS), ("preset", PRESETS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {shown(getattr(self, name))}; use one of {', '.join(choices)}")
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            whole = isinstance(low, int)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if number and not low <= value <= high:  # nor is NaN
                raise ValueError(f"{name} is {shown(value)}; use {low} to {high}")
            if not number or (whole and value != int(value)):
                raise ValueError(f"{name} is {shown(value)}; use a {'whole ' if whole else ''}number")
        if self.preset == "exact only" and self.mode not in ("auto", "exact"):
            raise ValueError(f"preset is 'exact only' and mode is {self.mode!r}; choose one of preset and mode anew")
        if self.preset in PUBLISHED and self.mode == "exact":
            raise ValueError(f"preset is {self.preset!r} and mode is 'exact'; choose one of preset and mode anew")
        if self.mode in ("pipeline", "predict", "paper") and self.parallel_steps == 0 and self.tolerance == 0:
            raise ValueError(
                "parallel_steps is 0 and tolerance is 0, so nothing ends the stage; set one of them above 0"
            )
        if self.mode == "predict" and self.predict_stride == 1:
            raise ValueError("mode is 'predict' and predict_stride is 1, so no step is predicted; use 2 or more, or 0")
        if self.mode == "paper" and self.predict_stride > 1:
            raise ValueError(
                f"mode is 'paper' and predict_stride is {self.predict_stride}, which the paper does not have; use 0"
            )

    @property
    def effective(self) -> HybridPlan:
        """The plan with its preset's values filled in."""
        if self.preset == "exact only":
            return replace(self, mode="exact", preset="auto")
        if self.preset in PUBLISHED:
            return replace(self, warmup="slope", preset="auto", **PUBLISHED[self.preset])
        return self

    @property
    def tolerated(self) -> float:
        """How far predictions may be off, as a share: auto's own tolerance where none is given."""
        return self.tolerance or AUTO_TOLERANCE

    def for_run(self, steps: int) -> Thresholds:
        """The numbers for a run of `steps` steps.

        Raises ValueError where there are none, and where a fixed stage does not lie within them.
        """
        if steps < 1:
            raise ValueError(f"the run has {steps} steps; use at least 1")
        plan = self.effective
        if self.mode == "auto" and self.preset == "auto":
            start = min(AUTO_START, steps - 1)
            interval = max(1, steps - start - LAST_STEPS)
            return Thresholds(0, 0.0, 0, start, interval, self.tolerated, LAST_STEPS)
        last = 0 if plan.parallel_steps else LAST_STEPS
        if plan.warmup == "fixed":
            if plan.start_step + max(plan.parallel_steps, 1) > steps and plan.mode != "exact":
                raise ValueError(
                    f"start_step {plan.start_step} and parallel_steps {plan.parallel_steps} go beyond the run's "
                    f"{steps} steps; lower one of them, or set warmup to slope"
                )
            interval = plan.parallel_steps or max(1, steps - plan.start_step - LAST_STEPS)
            return Thresholds(0, 0.0, 0, plan.start_step, interval, plan.tolerance, last)
        scale = steps / PAPER_STEPS
        return Thresholds(
            window=max(1, round(plan.slope_window * scale)),
            slope=plan.slope_threshold / scale,
            cap=max(1, round(plan.warmup_cap * scale)),
            start=None,
            interval=max(1, round(plan.parallel_steps * scale)) if plan.parallel_steps else steps,
            tolerance=plan.tolerance,
            last=last,
        )

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: object) -> HybridPlan:
        """Read what `to_dict` wrote. Raises ValueError where it is something else."""
        if not isinstance(values, dict) or "version" not in values:
            raise ValueError(
                f"expected a plan, got {type(values).__name__}; connect the output of a Hybridiff Plan node"
            )
        cls(version=values["version"])
        unknown = sorted(str(key) for key in values if key not in {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"the plan has unknown fields {', '.join(unknown)[:60]}; make it again with this release")
        return cls(**values)
