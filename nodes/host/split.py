"""The way to cut a model of ComfyUI's."""

from __future__ import annotations

import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

from ...hybridiff_core.split import Pass
from .split_dit import DitSplit
from .split_unet import UnetSplit


def splitter_for(network: torch.nn.Module) -> DitSplit | UnetSplit:
    """The splitter for a model's network; one that offers no hook shows no blocks."""
    return UnetSplit(network) if isinstance(network, UNetModel) else DitSplit()


def hooked(model_options: dict, splitter: DitSplit | UnetSplit, through: Pass) -> dict:
    """`model_options` with which the next forward asks `through` at each block."""
    options = model_options.get("transformer_options", {})
    return {**model_options, "transformer_options": {**options, **splitter.hooks(through)}}
