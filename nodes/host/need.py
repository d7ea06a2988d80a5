"""What a model takes in a worker, by the host's own estimates."""

from __future__ import annotations

from collections.abc import Sequence

import comfy.model_management
from comfy.model_patcher import ModelPatcher

from ...hybridiff_core.workers.memory import Need
from .loaders import WEIGHTS
from .recipe import name_of


def need_of(patcher: ModelPatcher, recipe: dict, shape: Sequence[int]) -> Need:
    """Bytes for the model of `recipe` and a forward of one cond, with a latent of this shape [batch, channels, ...]."""
    management = comfy.model_management
    # as load_models_gpu reckons: less than this is never left beside the weights
    least = management.minimum_inference_memory()
    forward = patcher.model.memory_required(list(shape)) + management.extra_reserved_memory()
    return Need(
        key=name_of(recipe),
        weights=patcher.model_size(),
        forward=int(max(least, forward)),
        # a patcher that pages weights in as they are needed leaves them in their file; the worker has such a one too
        mapped=getattr(patcher, "is_dynamic", bool)() and recipe["loader"] != WEIGHTS,
    )
