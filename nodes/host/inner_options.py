"""The options of a model that was made by its graph, as a worker computes with them."""

from __future__ import annotations

import comfy.sampler_helpers
import comfy.samplers
from comfy.model_patcher import ModelPatcher, create_model_options_clone

from .content import OUTER_WRAPPERS

INNER = ("transformer_options", "model_function_wrapper")


def prepared(patcher: ModelPatcher, own: dict, conds: dict[str, list[dict]]) -> dict:
    """The options `own` of `patcher` as the host's sampling has them, but for what is around the calls of the network.

    That, and what makes one prediction of a call's, stays with ComfyUI's process. `conds` is a list of conds by name.
    """
    own = create_model_options_clone(own)
    options = {"transformer_options": {}, **{name: own[name] for name in INNER if name in own}}
    comfy.sampler_helpers.prepare_model_patcher(patcher, conds, options)
    wrappers = options["transformer_options"].get("wrappers", {})
    for kind in OUTER_WRAPPERS:
        wrappers.pop(kind, None)
    return options


def to_device(options: dict, patcher: ModelPatcher) -> None:
    """What code in `options` wants to have on the device, as the host's sampling puts it there."""
    comfy.samplers.cast_to_load_options(options, device=patcher.load_device, dtype=patcher.model_dtype())


def laid(options: dict, told: dict) -> dict:
    """A run's plain transformer_options `told` over `options`."""
    return {**options, "transformer_options": {**options["transformer_options"], **told}}
