"""The plan node: how one image is shared."""

from __future__ import annotations

from comfy_api.latest import io

from ..hybridiff_core.plan import MODES, HybridPlan

CATEGORY = "sampling/hybridiff"
PLAN = io.Custom("HYBRIDIFF_PLAN")


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
                    default="auto",
                    tooltip="auto: the best mode measured so far, today the same as exact. "
                    "exact: every step whole, shared by the devices; close to twice as fast with two, "
                    "and the picture is the one that KSampler makes.",
                ),
            ],
            outputs=[PLAN.Output(display_name="plan")],
        )

    @classmethod
    def execute(cls, mode: str) -> io.NodeOutput:
        return io.NodeOutput(HybridPlan(mode=mode).to_dict())
