"""What a model takes in a worker, by the host's own estimates."""

from __future__ import annotations

from collections.abc import Sequence

import comfy.model_management
from comfy.model_patcher import ModelPatcher

from ...hybridiff_core.workers.memory import Need
from .loaders import GRAPH, WEIGHTS
from .recipe import name_of

CLOSE = 0.02  # two sizes that differ by less are of the same weights in the same type


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
        mapped=_stays_in_its_file(patcher, recipe),
    )


def _stays_in_its_file(patcher: ModelPatcher, recipe: dict) -> bool:
    """Whether a worker leaves the weights in their file: it takes them as they are, but where they are cast.

    A patcher that pages them in as they are needed never copies them.
    """
    if recipe["loader"] in (WEIGHTS, GRAPH):
        return False
    if getattr(patcher, "is_dynamic", bool)():
        return True
    # of a file with nothing but these weights, the size tells whether they are cast (a checkpoint has more in it)
    in_file = (recipe["stamp"] or (0,))[0]
    return abs(in_file - patcher.model_size()) < CLOSE * in_file
