"""The report node: what happened in a run, as a picture and as text."""

from __future__ import annotations

import numpy
import torch
from comfy_api.latest import io

from ..hybridiff_core.account import table, timeline
from .figure import figure
from .plan import CATEGORY

REPORT = io.Custom("HYBRIDIFF_REPORT")


class HybridiffReport(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HybridiffReport",
            display_name="Hybridiff Report",
            category=CATEGORY,
            description="What happened in a run: its time, what each device did, and why something was not shared. "
            "Changes nothing.",
            search_aliases=["multigpu", "two gpus", "parallel", "cfg", "hybridiff", "timing", "benchmark", "speed up"],
            is_output_node=True,
            inputs=[
                REPORT.Input("report", tooltip="From a Hybridiff KSampler. Reading it takes no time of the run's own.")
            ],
            outputs=[
                io.Image.Output(display_name="IMAGE", tooltip="The run's picture, as the sampler node shows it."),
                io.String.Output(display_name="STRING", tooltip="Time, gain, stages, bytes moved, reasons."),
            ],
        )

    @classmethod
    def execute(cls, report: dict) -> io.NodeOutput:
        if not isinstance(report, dict) or not report.get("steps"):
            raise ValueError("the report has no steps; connect the report of a Hybridiff KSampler that sampled")
        view = timeline(report)
        drawn = numpy.asarray(figure(view), dtype=numpy.float32) / 255.0
        return io.NodeOutput(torch.from_numpy(drawn)[None], table(report), ui={"hybridiff_view": [view]})
