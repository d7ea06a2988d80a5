"""What code and objects of other nodes are in a model: to see whether they are still those that its node put there."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP, merge_nested_dicts

from . import block_hooks
from .foreign import MODULE_INTERNALS, replaced_methods
from .host_call import KEY
from .options import MADE_ANEW, READ, STATE, is_message

Leaves = dict[tuple, object]

OURS = (KEY, block_hooks.KEY)
# wrappers that run in this process alone, around the calls that a worker is given
OUTER_WRAPPERS = (
    WrappersMP.OUTER_SAMPLE,
    WrappersMP.PREPARE_SAMPLING,
    WrappersMP.SAMPLER_SAMPLE,
    WrappersMP.PREDICT_NOISE,
    WrappersMP.CALC_COND_BATCH,
)
ON_MODEL, PATCHES = "model", "patches"  # the first of what is not in the options; the weights' changes
_numbers = itertools.count(1)
_known: deque[tuple[int, Leaves]] = deque(maxlen=8)  # held: an id would be another object's later
PLAIN = (bool, int, float, str, bytes, type(None))


def of_model(patcher: ModelPatcher) -> Leaves:
    """All that nodes put into `patcher` and its model, by where it stands; what this pack put there is left out."""
    options = patcher.model_options
    inner = dict(options.get("transformer_options", {}))
    for name in ("wrappers", "callbacks"):  # as the host merges them where a sampling begins
        inner[name] = merge_nested_dicts(inner.get(name, {}), getattr(patcher, name, {}))
    leaves = of_options({**options, "transformer_options": inner})
    own: Leaves = {(PATCHES,): patcher.patches_uuid, ("force_cast_weights",): bool(patcher.force_cast_weights)}
    for name, value in patcher.object_patches.items():
        if not block_hooks.is_offered(value):
            own[("object", name)] = value
    for name in ("injections", "weight_wrapper_patches", "hook_patches"):
        own |= _tree((name,), getattr(patcher, name, {}))
    for name, models in getattr(patcher, "additional_models", {}).items():
        own[("models", name)] = tuple(model.clone_base_uuid for model in models)
    # what lies in the backup is another clone's, and the host takes it off before it samples with this one
    own |= _hung(patcher.model, patcher.object_patches_backup)
    return leaves | {(ON_MODEL, *where): value for where, value in own.items()}


def of_options(model_options: dict) -> Leaves:
    """What of `model_options` a network, or code inside it, is given."""
    leaves: Leaves = {}
    if "model_function_wrapper" in model_options:
        leaves[("wrapper",)] = model_options["model_function_wrapper"]
    for name, value in model_options.get("transformer_options", {}).items():
        if name in ("wrappers", "callbacks"):
            for kind, by_key in value.items():
                if kind not in OUTER_WRAPPERS:
                    leaves |= _tree((name, kind), {key: found for key, found in by_key.items() if key not in OURS})
        elif name in STATE or not (name in READ or name in MADE_ANEW or name in OURS or is_message(name, value)):
            leaves |= _tree((name,), value)
    return leaves


def changed(before: Leaves, now: Leaves) -> str | None:
    """Where two of these differ, in a word; None where they do not."""
    for where in {**before, **now}:
        if where not in before or where not in now or not _same(before[where], now[where]):
            return " ".join(str(part) for part in where[where[0] == ON_MODEL :][:2])
    return None


def in_options(leaves: Leaves) -> Leaves:
    """The part of `of_model`'s that `of_options` gives of its options."""
    return {where: value for where, value in leaves.items() if where[0] != ON_MODEL}


def serial(leaves: Leaves) -> int:
    """A number for just these objects: the same where they are met again, for the last few."""
    number = next((number for number, known in _known if changed(known, leaves) is None), None)
    if number is None:
        number = next(_numbers)
        _known.append((number, leaves))
    return number


def _tree(where: tuple, value: object) -> Leaves:
    if type(value) is dict and value:
        items: Iterator = iter(value.items())
    elif type(value) in (list, tuple) and value:
        items = iter(enumerate(value))
    else:
        return {} if value in ({}, []) else {where: value}
    found: Leaves = {}
    for key, item in items:
        found |= _tree((*where, key), item)
    return found


def _same(one: object, other: object) -> bool:
    return one is other or (not callable(one) and _equal(one, other))


def _equal(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor) or type(one) is not type(other):
        return False
    try:
        return bool(one == other)
    except Exception:  # noqa: BLE001 - an object of any pack's
        return False


def _hung(model: torch.nn.Module, but: object) -> Leaves:
    """What stands in the place of methods in `model`, or hangs onto its modules."""
    found: Leaves = {}
    for path, module in model.named_modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            if hooks:
                found[("hooks", path, len(found))] = tuple(hooks.values())
        if not (vars(module).keys() - MODULE_INTERNALS):
            continue
        for name in replaced_methods(module):
            where = f"{path}.{name}".lstrip(".")
            if where not in but and not block_hooks.is_offered(vars(module)[name]):
                found[("method", where)] = vars(module)[name]
    return found
