"""A model as a recipe: plain data from which another process makes the same one.

The recipe says how the model was loaded (loaders.py), and what was laid over its weights since: LoRA
patches, a changed model_sampling, a changed compute dtype. What has code in it cannot cross; `CannotCross`
then says what it is in words for users.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import comfy.model_management
import comfy.weight_adapter
import torch
from comfy.model_patcher import ModelPatcher

from ...hybridiff_core import lines
from ...hybridiff_core.workers.wire import CannotCross, Kind
from .block_hooks import is_offered
from .foreign import MODULE_INTERNALS, changed_methods
from .loaders import GRAPH, loader_of

PLAIN_OBJECT_PATCHES = ("manual_cast_dtype",)
# used before and after the network, by ComfyUI's process alone
OWN_OBJECT_PATCHES = ("latent_format", "extra_conds")
# modules whose classes a model_sampling may be composed of; the second is imported on demand
SAMPLING_MODULES = ("comfy.model_sampling", "comfy_extras.nodes_model_advanced")

ADAPTER_KINDS = {
    # loaded_keys is only what the LoRA file was read by; the weights are all that is computed with
    cls: Kind(cls.__name__, lambda adapter: adapter.weights, lambda weights, cls=cls: cls(set(), weights))
    for cls in comfy.weight_adapter.adapters
}


def recipe_of(patcher: ModelPatcher, controls: Sequence[dict] = ()) -> dict:
    """The recipe for `patcher`'s model, and for the `controls` that conds bring. Raises CannotCross."""
    if type(patcher).__module__ != ModelPatcher.__module__:
        raise CannotCross(lines.PATCHER_OF_A_PACK(name=type(patcher).__name__))
    if patcher.injections:
        raise CannotCross(lines.MODEL_INJECTED(names=_names(patcher.injections)))
    if patcher.weight_wrapper_patches:
        raise CannotCross(lines.WEIGHTS_WRAPPED())
    # what lies in the backup is another clone's, and the host takes it off before it samples with this one
    if changed := changed_methods(patcher.model, patcher.object_patches_backup):
        raise CannotCross(lines.MODEL_CODE_REPLACED(name=changed))
    patches = {}
    for key, of_key in patcher.patches.items():
        for _, value, _, _, function in of_key:
            if function is not None or isinstance(value, list):
                raise CannotCross(lines.WEIGHT_CHANGE_HAS_CODE(key=key))
        patches[key] = list(of_key)
    loader = loader_of(patcher)
    objects = _objects(patcher)
    if loader.get("form"):  # weights do not tell it, and another pack's loader may have set it
        objects["model_sampling"] = _sampling_to_plain(patcher.get_model_object("model_sampling"))
    return {
        "weights": {},
        "form": {},
        **loader,
        "objects": objects,
        "force_cast_weights": bool(patcher.force_cast_weights),
        "patches": patches,
        "controls": list(controls),
        "graph": {},
    }


def name_of(recipe: dict) -> str:
    """What tells the recipe's model from others, whatever is laid over its weights."""
    if recipe["loader"] == GRAPH:  # and whatever numbers its nodes were given
        nodes = recipe["graph"]["nodes"].values()
        named = ([value for value in node["inputs"].values() if isinstance(value, (str, list))] for node in nodes)
        return repr([(node["class_type"], *values) for node, values in zip(nodes, named)])
    return repr([recipe[key] for key in ("loader", "path", "stamp", "form")])


def _objects(patcher: ModelPatcher) -> dict:
    objects = {}
    for name, value in patcher.object_patches.items():
        if name == "model_sampling":
            objects[name] = _sampling_to_plain(value)
        elif name in PLAIN_OBJECT_PATCHES:
            objects[name] = value
        elif name not in OWN_OBJECT_PATCHES and not is_offered(value):
            raise CannotCross(lines.MODEL_REPLACED(name=name))
    return objects


def _sampling_to_plain(sampling: torch.nn.Module) -> dict:
    cls = type(sampling)
    bases = [cls] if knows_sampling(cls) else list(cls.__bases__)
    own = {name for name in vars(cls) if not (name.startswith("__") and name.endswith("__"))}
    if not knows_sampling(cls) and (own or not all(map(knows_sampling, bases))):
        raise CannotCross(lines.UNKNOWN_SAMPLING(name=cls.__qualname__))
    attributes = {name: value for name, value in vars(sampling).items() if name not in MODULE_INTERNALS}
    buffers = dict(sampling.named_buffers(recurse=False))
    named = [[sampling_module(base), base.__name__] for base in bases]
    return {"bases": named, "attributes": attributes, "buffers": buffers}


def knows_sampling(cls: type) -> bool:
    """Whether a model_sampling of this class, or composed of it, can be made again."""
    return sampling_module(cls) is not None and "." not in cls.__qualname__


def sampling_module(cls: type) -> str | None:
    """Which of SAMPLING_MODULES the class is from; None for another's.

    ComfyUI imports its extra nodes by their files, under names that are their paths.
    """
    if cls.__module__ in SAMPLING_MODULES:
        return cls.__module__
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    root = os.path.dirname(os.path.dirname(os.path.abspath(comfy.model_management.__file__)))
    of_extras = os.path.join(root, *SAMPLING_MODULES[1].split(".")) + ".py"
    return SAMPLING_MODULES[1] if file and os.path.abspath(file) == of_extras else None


def _names(injections: dict) -> str:
    return lines.AN_EXTENSION() if None in injections else ", ".join(map(str, injections))
