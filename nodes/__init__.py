"""The pack's nodes."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from ..hybridiff_core.workers.reap import reap
from .compare import HybridiffCompare
from .devices import HybridiffDevices
from .host.unloading import hear_requests
from .plan import HybridiffPlan
from .report import HybridiffReport
from .sampler import HybridiffKSampler, HybridiffKSamplerAdvanced, HybridiffModel
from .words import HybridiffDemoWords


class HybridiffExtension(ComfyExtension):
    async def on_load(self) -> None:
        reap()
        hear_requests()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            HybridiffKSampler,
            HybridiffKSamplerAdvanced,
            HybridiffModel,
            HybridiffPlan,
            HybridiffDevices,
            HybridiffReport,
            HybridiffCompare,
            HybridiffDemoWords,
        ]
