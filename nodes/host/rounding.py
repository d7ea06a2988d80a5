"""Weights that ComfyUI rounds by chance: where a LoRA lies on 8-bit or 4-bit weights.

The seed is a weight's name, and ComfyUI's two patchers name it differently. Under one patcher in one process and the
other in another, a picture would come from two networks.
"""

from __future__ import annotations

import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher

ROUNDED_BY_SEED = {getattr(torch, name) for name in ("float8_e4m3fn", "float8_e5m2") if hasattr(torch, name)}


def is_dynamic(patcher: ModelPatcher) -> bool:
    """Whether it is the patcher of dynamic VRAM."""
    return bool(getattr(patcher, "is_dynamic", lambda: False)())


def rounds_by_seed(patcher: ModelPatcher) -> bool:
    """Whether weights that are changed are rounded by a seed."""
    return any(_is_rounded(comfy.utils.get_attr(patcher.model, _name(key))) for key in patcher.patches)


def _name(key: object) -> str:
    return key if isinstance(key, str) else key[0]  # a part of a weight


def _is_rounded(weight: torch.Tensor) -> bool:
    # a class of ComfyUI's own is a quantised weight
    return weight.dtype in ROUNDED_BY_SEED or type(weight) not in (torch.Tensor, torch.nn.Parameter)
