"""The plan node: how one image is shared."""

from __future__ import annotations

from comfy_api.latest import io

from ..hybridiff_core.plan import MODES, PRESETS, RANGES, WARMUPS, HybridPlan
from ..hybridiff_core.rules import AUTO_TOLERANCE, LEAST_STEPS, PUBLISHED

CATEGORY = "sampling/hybridiff"
PLAN = io.Custom("HYBRIDIFF_PLAN")
DEFAULT = HybridPlan()
FOR_50 = "Given for a run of 50 steps and scaled to yours."


def _number(name: str, tooltip: str, step: float | None = None) -> io.Input:
    low, high = RANGES[name]
    if step is None:
        return io.Int.Input(name, default=getattr(DEFAULT, name), min=low, max=high, tooltip=tooltip)
    return io.Float.Input(
        name, default=getattr(DEFAULT, name), min=low, max=high, step=step, round=step, tooltip=tooltip
    )


class HybridiffPlan(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HybridiffPlan",
            display_name="Hybridiff Plan",
            category=CATEGORY,
            description="How Hybridiff shares one image between devices. Without this node it chooses by itself.",
            search_aliases=["multigpu", "parallel", "cfg", "hybrid parallel"],
            inputs=[
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    default=DEFAULT.mode,
                    tooltip="What happens in the middle of the run. exact: every step is computed whole, and the "
                    "picture is the one that KSampler makes. predict: some steps are foreseen from the ones before. "
                    "pipeline: each device runs a part of the network, on slightly old results of the others. "
                    "paper: as published, without guidance in the middle; for comparison. "
                    "auto: predict as much as the picture bears, by what is measured on the way; exact under "
                    f"{LEAST_STEPS} steps. "
                    "Of the fields below it uses tolerance alone, unless a preset is chosen.",
                ),
                io.Combo.Input(
                    "warmup",
                    options=list(WARMUPS),
                    default=DEFAULT.warmup,
                    tooltip="When the middle begins. slope: when the difference between the branches stops falling. "
                    "fixed: at start_step.",
                ),
                _number("start_step", "With warmup fixed: the first step of the middle, in your run's own steps."),
                _number("slope_window", f"With warmup slope: over how many steps the fall is measured (L). {FOR_50}"),
                _number(
                    "slope_threshold",
                    f"With warmup slope: the middle begins when the fall in a step is smaller (g). {FOR_50}",
                    0.00001,
                ),
                _number("warmup_cap", f"With warmup slope: the middle begins at the latest after this step. {FOR_50}"),
                _number(
                    "parallel_steps",
                    "How many steps the middle has (k). More is faster and further from KSampler's picture. "
                    f"0: as long as tolerance allows. {FOR_50} With warmup fixed: your run's own steps.",
                ),
                _number(
                    "tolerance",
                    "How far the picture may be off in all, as a share of it, by what is measured on the way; "
                    "beyond it steps are computed whole. 0: no such check; in auto without a preset, "
                    f"{AUTO_TOLERANCE:g}.",
                    0.001,
                ),
                _number(
                    "predict_stride",
                    "In the middle, every so many steps one is computed and the others are foreseen (m). "
                    "0: in predict as few as tolerance allows, every second one without it; in pipeline none is "
                    "foreseen.",
                ),
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default=DEFAULT.preset,
                    extra_dict={"hybridiff_presets": PUBLISHED},  # the browser fills the fields with them
                    tooltip="Published values in place of slope_window, slope_threshold, warmup_cap and "
                    "parallel_steps; or no middle at all. auto: no preset.",
                ),
            ],
            outputs=[PLAN.Output(display_name="plan")],
        )

    @classmethod
    def execute(cls, **values) -> io.NodeOutput:
        return io.NodeOutput(HybridPlan(**values).to_dict())
