"""Some items of a call's batch, computed by themselves: the conds with their rows alone, and when that is not the same.

A row of what a cond brings is the one that the host would give that batch item: it repeats what has fewer items than
the batch, and passes over what is more.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterator

import comfy.conds
import torch
from comfy.controlnet import ControlBase, T2IAdapter

from ...hybridiff_core import lines
from ...hybridiff_core.call import Rows
from . import options
from .conditioning import KINDS, Cond, Conds
from .control import CROSSING, chain, hint_of
from .control_networks import Features
from .foreign import of_the_host, replaced_methods

BY_ITEM = (comfy.conds.CONDRegular, comfy.conds.CONDNoiseShape, comfy.conds.CONDCrossAttn)
# whose forward takes the first half of a batch for one branch and the second for the other
READS_HALVES = {"comfy.ldm.hunyuan3dv2_1.hunyuandit"}

OF_ALL = {"sample_sigmas"}  # options that have nothing to do with the batch, whatever their length

# of adapters with a picture for each batch item: the latent's shape, and the features for it, the same in every step
_features: weakref.WeakKeyDictionary[T2IAdapter, tuple[torch.Size, dict]] = weakref.WeakKeyDictionary()


# -- whether


def undividable(model: torch.nn.Module, conds: Conds, model_options: dict, batch: int) -> str | None:
    """Why batch items cannot be computed apart from each other, in words for users; None where they can.

    `model` is the host's BaseModel, `conds` a list per branch, or None; `batch` is the number of the latent's items.
    """
    if type(model.diffusion_model).__module__ in READS_HALVES:
        return lines.BATCH_OF_HALVES()
    if model_options.get("context_handler") is not None:
        return lines.BATCH_IN_WINDOWS()
    for name, value in options.crossing(model_options.get("transformer_options", {})).items():
        if name not in OF_ALL and batch in _lengths(value):
            return lines.BATCH_UNCLEAR(name=name)
    seen: dict[int, str | None] = {}
    for cond in (cond for of_branch in conds for cond in of_branch or ()):
        for name, value in cond["model_conds"].items():
            if name == "num_video_frames":
                return lines.BATCH_OF_FRAMES()
            constant = type(value) is comfy.conds.CONDConstant and max(_lengths(value.cond), default=1) > 1
            if type(value) not in KINDS or constant:
                return lines.BATCH_UNCLEAR(name=name)
        for control in chain(cond.get("control")):
            if id(control) not in seen:
                seen[id(control)] = _reason_of(control)
            if reason := seen[id(control)]:
                return reason
            if _pictures(control) not in (1, batch):
                return lines.CONTROLNET_PICTURES()
    return None


def _lengths(value: object) -> Iterator[int]:
    """How many items each tensor in `value` has."""
    if isinstance(value, torch.Tensor) and value.ndim:
        yield len(value)
    elif isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _lengths(item)


def _reason_of(control: ControlBase) -> str | None:
    """Why nothing is known of a ControlNet, in words for users."""
    if type(control) is not T2IAdapter and CROSSING.get(type(control).__name__) is not type(control):
        return lines.CONTROLNET_OF_A_PACK(name=type(control).__name__)
    if replaced_methods(control) or not of_the_host(type(control).get_control):
        return lines.CONTROLNET_HAS_CODE()
    return None


# -- conds


def of_rows(conds: Conds, rows: Rows | None) -> list[list[Cond] | None]:
    """`conds` as they are for batch items `rows`; without rows all of them.

    What the host's get_area_and_mult gives of them for a batch of `rows` alone is these rows of what it gives of
    `conds` for the whole batch.
    """
    if rows is None:
        return list(conds)
    made: dict[int, ControlBase] = {}  # conds that share a control go on sharing it
    return [of_branch and [_cond(cond, rows, made) for cond in of_branch] for of_branch in conds]


def _cond(cond: Cond, rows: Rows, made: dict[int, ControlBase]) -> Cond:
    mine = {**cond, "model_conds": {name: _value(value, rows) for name, value in cond["model_conds"].items()}}
    if "mask" in cond:
        mine["mask"] = items(cond["mask"], rows)
    if cond.get("control") is not None:
        mine["control"] = _control(cond["control"], rows, made)
    return mine


def _value(value: comfy.conds.CONDRegular, rows: Rows) -> comfy.conds.CONDRegular:
    if type(value) in BY_ITEM:
        return type(value)(items(value.cond, rows))
    if type(value) is comfy.conds.CONDList:
        return type(value)([items(tensor, rows) for tensor in value.cond])
    return value


def items(tensor: torch.Tensor, rows: Rows) -> torch.Tensor:
    """What batch items `rows` get of `tensor` [items, ...], repeated to the batch; an only item stays one."""
    first, end, _ = rows
    if len(tensor) == 1:
        return tensor
    if end <= len(tensor):
        return tensor[first:end]
    return tensor[[i % len(tensor) for i in range(first, end)]]


# -- ControlNets


def of_first_call(conds: Conds) -> bool:
    """Whether the host keeps features for as many branches as its first call had: an adapter's of several pictures.

    They fit no call of fewer branches; `of_rows` gives features that do.
    """
    controls = [cond.get("control") for of_branch in conds for cond in of_branch or ()]
    links = [link for control in controls for link in chain(control)]
    several = any(isinstance(link, T2IAdapter) and _pictures(link) > 1 for link in links)
    return several and not any(map(_reason_of, links))


def let_go() -> None:
    """A run is over: what was made ready for its batch is on a device, and is wanted no more."""
    _features.clear()


def ready_hints(conds: Conds, x: torch.Tensor, timestep: torch.Tensor) -> None:
    """Make what ControlNets with a picture for each batch item need at x's size, where the host has not yet.

    x is the whole call's. A hint goes where the host keeps it until the run's end; rows are taken of it. On an area
    the host makes it for each call.
    """
    given = [cond for of_branch in conds for cond in of_branch or () if cond.get("control") is not None]
    for cond in sorted(given, key=lambda cond: cond.get("area") is not None):
        links = list(chain(cond["control"]))
        for link in links if any(_pictures(link) > 1 for link in links) else ():
            if cond.get("area") is not None:
                _features.pop(link, None)
            elif not isinstance(link, T2IAdapter):
                if not isinstance(link, Features) and link.cond_hint is None:
                    link.cond_hint = hint_of(link, x, timestep).cond_hint
            elif _pictures(link) > 1 and (link not in _features or _features[link][0] != x.shape):
                _features[link] = (x.shape, hint_of(link, x, timestep).control_input)


def _control(control: ControlBase, rows: Rows, made: dict[int, ControlBase]) -> ControlBase:
    """The chain with the rows of its hints. The network, and what the host set up for the run, are the same."""
    if id(control) in made:
        return made[id(control)]
    before = control.previous_controlnet
    mine_before = None if before is None else _control(before, rows, made)
    pictures = _pictures(control)
    if pictures == 1 and mine_before is before:
        mine = control
    elif pictures == 1:
        mine = copy.copy(control)
    elif isinstance(control, Features):
        mine = copy.copy(control)
        mine.features = _of_features(control.features, rows)
    elif isinstance(control, T2IAdapter) and control in _features:
        mine = Features(_of_features(_features[control][1], rows))
        control.copy_to(mine)
        mine.timestep_range = control.timestep_range
    else:
        mine = copy.copy(control)
        mine.cond_hint_original = items(control.cond_hint_original, rows)
        mine.extra_concat_orig = [items(extra, rows) for extra in control.extra_concat_orig]
        whole = isinstance(control, T2IAdapter) or control.cond_hint is None
        mine.cond_hint = None if whole else items(control.cond_hint, rows)
    if mine is not control:
        mine.previous_controlnet = mine_before
    made[id(control)] = mine
    return mine


def _of_features(features: dict, rows: Rows) -> dict:
    return {
        key: [None if feature is None else items(feature, rows) for feature in of_key]
        for key, of_key in features.items()
    }


def _pictures(control: ControlBase) -> int:
    if isinstance(control, Features):
        return max(_lengths(control.features), default=1)
    return len(control.cond_hint_original)
