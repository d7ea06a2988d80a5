"""The plan node: how one image is shared."""

from __future__ import annotations

from comfy_api.latest import io

from ..hybridiff_core.plan import MODES, PRESETS, RANGES, WARMUPS, HybridPlan
from ..hybridiff_core.rules import AUTO_TOLERANCE, LEAST_STEPS, PUBLISHED

CATEGORY = "model/sampling/hybridiff"  # beside the host's own samplers
PLAN = io.Custom("HYBRIDIFF_PLAN")
DEFAULT = HybridPlan()
FOR_50 = "Given for a run of 50 steps and scaled to yours."


def _number(name: str, words: str, tooltip: str, step: float | None = None, advanced: bool = True) -> io.Input:
    low, high = RANGES[name]
    given = {
        "display_name": words, "default": getattr(DEFAULT, name), "min": low, "max": high, "tooltip": tooltip,
        "advanced": advanced,
    }  # fmt: skip
    return io.Int.Input(name, **given) if step is None else io.Float.Input(name, step=step, round=step, **given)


class HybridiffPlan(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HybridiffPlan",
            display_name="Hybridiff Plan",
            category=CATEGORY,
            description="For experts: how the steps of a run are computed. A sampler without it goes by its picture "
            "widget.",
            search_aliases=[
                "multigpu",
                "two gpus",
                "parallel",
                "cfg",
                "hybrid parallel",
                "hybridiff",
                "pipeline",
                "predict steps",
            ],
            inputs=[
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    default=DEFAULT.mode,
                    tooltip="What happens in the middle of the run. exact: every step is computed whole, and the "
                    "picture is the one that KSampler makes. predict: some steps are predicted from the ones before. "
                    "pipeline: each device runs a part of the network, on slightly old results of the others. "
                    "paper: as published, without guidance in the middle; for comparison. "
                    "auto: predict as many steps as tolerance allows, by what is measured on the way; exact under "
                    f"{LEAST_STEPS} steps. "
                    "Of the fields below it uses tolerance alone, unless a preset is chosen.",
                ),
                io.Combo.Input(
                    "warmup",
                    options=list(WARMUPS),
                    default=DEFAULT.warmup,
                    display_name="middle begins by",
                    advanced=True,
                    tooltip="When the middle begins (the paper's tau1). slope: when the difference between the "
                    "branches stops falling. fixed: at the first step of the middle.",
                ),
                _number(
                    "start_step",
                    "fixed: first step of the middle",
                    "With fixed: the first step of the middle (tau1 + 1), in your run's own steps.",
                ),
                _number(
                    "slope_window",
                    "slope: measured over steps (L)",
                    f"With slope: over how many steps the fall is measured (the paper's L). {FOR_50}",
                ),
                _number(
                    "slope_threshold",
                    "slope: least fall a step (g)",
                    f"With slope: the middle begins when the fall in a step is smaller (the paper's g). {FOR_50}",
                    0.00001,
                ),
                _number(
                    "warmup_cap",
                    "slope: at the latest after step (tau_cap)",
                    f"With slope: the middle begins at the latest after this step (the paper's tau_cap). {FOR_50}",
                ),
                _number(
                    "parallel_steps",
                    "length of the middle (k)",
                    "How many steps the middle has (the paper's k). More is faster and further from KSampler's "
                    f"picture. 0: as long as tolerance allows. {FOR_50} With fixed: your run's own steps.",
                ),
                _number(
                    "tolerance",
                    "tolerance",
                    "How far the picture may be off in all, as a share of it, by what is measured on the way; "
                    "beyond it steps are computed whole. 0: no such check; in auto without a preset, "
                    f"{AUTO_TOLERANCE:g}.",
                    0.001,
                    advanced=False,
                ),
                _number(
                    "predict_stride",
                    "compute one step in (m)",
                    "In the middle, every so many steps one is computed and the others are predicted (m). "
                    "0: in predict as few as tolerance allows, every second one without it; in pipeline none is "
                    "predicted.",
                ),
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default=DEFAULT.preset,
                    # the browser fills the fields with the presets, and gives predict auto's tolerance after a drag
                    extra_dict={"hybridiff_presets": PUBLISHED, "hybridiff_tolerance": AUTO_TOLERANCE},
                    tooltip="Published values in place of L, g, tau_cap and k; or no middle at all. auto: no preset.",
                ),
            ],
            outputs=[PLAN.Output(display_name="plan")],
        )

    @classmethod
    def execute(cls, **values) -> io.NodeOutput:
        return io.NodeOutput(HybridPlan(**values).to_dict())
