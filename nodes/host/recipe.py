"""A model as a recipe: plain data from which another process makes the same one.

The recipe names the loader that the host recorded (`cached_patcher_init`), or, where a node recorded
none, carries the weights themselves; and what was laid over the weights since: LoRA patches, a changed
model_sampling, a changed compute dtype. What has code in it cannot cross; `CannotCross` then says what
it is in words for users.
"""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Sequence

import comfy.model_base
import comfy.model_detection
import comfy.model_management
import comfy.sd
import comfy.supported_models_base
import comfy.weight_adapter
import torch
from comfy.model_patcher import ModelPatcher

from ...hybridiff_core import lines
from ...hybridiff_core.workers.wire import CannotCross, Kind
from .foreign import MODULE_INTERNALS, changed_methods

CHECKPOINT, DIFFUSION_MODEL, WEIGHTS = "checkpoint", "diffusion_model", "weights"
PLAIN_OBJECT_PATCHES = ("manual_cast_dtype",)
# used before and after the network, by ComfyUI's process alone
OWN_OBJECT_PATCHES = ("latent_format", "extra_conds")
# modules whose classes a model_sampling may be composed of; the second is imported on demand
SAMPLING_MODULES = ("comfy.model_sampling", "comfy_extras.nodes_model_advanced")

# what a model's file was like when its model was first sampled here
_first_seen: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()

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
    loader = _loader(patcher)
    objects = _objects(patcher)
    if loader["loader"] == WEIGHTS:  # they do not tell it: a file has more in it than weights
        objects["model_sampling"] = _sampling_to_plain(patcher.get_model_object("model_sampling"))
    return {
        "weights": {},
        "form": {},
        **loader,
        "objects": objects,
        "force_cast_weights": bool(patcher.force_cast_weights),
        "patches": patches,
        "controls": list(controls),
    }


def name_of(recipe: dict) -> str:
    """What tells the recipe's model from others, whatever is laid over its weights."""
    return repr([recipe[key] for key in ("loader", "path", "stamp", "form")])


def _loader(patcher: ModelPatcher) -> dict:
    made_by = patcher.cached_patcher_init
    if made_by is None:
        return _weights(patcher)
    function, arguments = made_by[0], made_by[1]
    if function is comfy.sd.load_checkpoint_guess_config:
        return {"loader": CHECKPOINT, **_file(patcher, arguments[0]), "options": arguments[6]}
    if function is getattr(comfy.sd, "load_checkpoint_guess_config_model_only", None):  # ComfyUI before 0.23
        return {"loader": CHECKPOINT, **_file(patcher, arguments[0]), "options": arguments[2]}
    if function is comfy.sd.load_diffusion_model:
        return {"loader": DIFFUSION_MODEL, **_file(patcher, arguments[0]), "options": arguments[1]}
    raise CannotCross(lines.UNKNOWN_LOADER(name=function.__qualname__))


def _weights(patcher: ModelPatcher) -> dict:
    """The network's weights as they were loaded, without what the host has patched into them since."""
    model = patcher.model
    config = getattr(model, "model_config", None)
    if not isinstance(model, comfy.model_base.BaseModel) or not isinstance(config, comfy.supported_models_base.BASE):
        raise CannotCross(lines.LOADED_AS_A_CLASS_OF_A_PACK())
    weights = weights_of(model.diffusion_model, patcher, "diffusion_model.")
    if config.quant_config or not all(map(is_dense, weights.values())):
        raise CannotCross(lines.LOADED_IN_A_SPECIAL_FORM())
    form = form_of(model)
    if config.custom_operations is not None or not all(name.startswith(("comfy.", "torch.")) for name in form["of"]):
        raise CannotCross(lines.LOADED_WITH_CODE())
    told = comfy.model_detection.model_config_from_unet(dict(weights), "")
    if len(list(model.parameters())) > len(list(model.diffusion_model.parameters())):
        raise CannotCross(lines.LOADED_WITH_MORE_WEIGHTS())
    if type(told) is not type(config) or {**told.unet_config, "dtype": None} != {**config.unet_config, "dtype": None}:
        raise CannotCross(lines.LOADED_KIND_UNCLEAR())
    options = {"dtype": config.unet_config.get("dtype"), "fp8_optimizations": bool(config.optimizations.get("fp8"))}
    return {"loader": WEIGHTS, "path": "", "stamp": None, "options": options, "weights": weights, "form": form}


def form_of(model: comfy.model_base.BaseModel) -> dict:
    """What a model that is made again from weights must have in common with this one; not the type computed in."""
    parts = (model, model.model_config, *model.diffusion_model.modules())
    of = {(type(part).__module__, type(part).__qualname__) for part in parts}
    return {
        # a set of operations for each way to cast: comfy.ops has Linear and the like in all of them
        "of": sorted({f"{module}.{name.split('.')[-1] if module == 'comfy.ops' else name}" for module, name in of}),
        "config": dict(model.model_config.unet_config),
    }


def _file(patcher: ModelPatcher, path: str) -> dict:
    """The model's file, known by its size and time too: it may be written anew under the same name."""
    path = os.path.abspath(path)
    if not lies_in(path, model_folders()):
        raise CannotCross(lines.FILE_OUTSIDE_FOLDERS(file=os.path.basename(path)))
    try:
        status = os.stat(path)
    except OSError:
        return {"path": path, "stamp": None}  # the worker will say that it is gone
    stamp = (status.st_size, status.st_mtime_ns)
    if _first_seen.setdefault(patcher.model, stamp) != stamp:
        raise CannotCross(lines.FILE_CHANGED(file=os.path.basename(path)))
    return {"path": path, "stamp": stamp}


def model_folders() -> list[str]:
    """The folders that this ComfyUI reads models from, extra_model_paths.yaml's too."""
    import folder_paths  # not in a worker, which is told

    kinds = folder_paths.folder_names_and_paths
    return sorted({os.path.abspath(folder) for kind in kinds if kind != "custom_nodes" for folder in kinds[kind][0]})


def lies_in(path: str, folders: Sequence[str]) -> bool:
    """Whether the absolute `path` is under one of `folders` by name; what is there may be a link to elsewhere."""
    return any(os.path.normcase(path).startswith(os.path.normcase(os.path.join(folder, ""))) for folder in folders)


def _objects(patcher: ModelPatcher) -> dict:
    objects = {}
    for name, value in patcher.object_patches.items():
        if name == "model_sampling":
            objects[name] = _sampling_to_plain(value)
        elif name in PLAIN_OBJECT_PATCHES:
            objects[name] = value
        elif name not in OWN_OBJECT_PATCHES:
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


def weights_of(network: torch.nn.Module, patcher: ModelPatcher | None = None, prefix: str = "") -> dict:
    """The state dict as it was loaded, with the module's own tensors, which stay the same objects from run to run.

    Patches of `patcher`'s clones may lie on the weights, until the host samples with another one; `prefix` is where
    `network` is in the patcher's model.
    """
    own = {**dict(network.named_parameters(remove_duplicate=False)), **dict(network.named_buffers())}
    whole = network if patcher is None else patcher.model
    loaded = [one.model for one in comfy.model_management.current_loaded_models]
    before = {}
    for one in (*loaded, patcher):
        if one is not None and one.model is whole:
            before |= {key: weight for key, (weight, _) in one.hook_backup.items()}
            before |= getattr(one, "backup_buffers", {})
            before |= {key: kept.weight for key, kept in one.backup.items()}
    return {key: before.get(prefix + key, own[key]) for key in network.state_dict() if key in own}


def take_weights(network: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Make `weights` the network's own: all of them, and no others. Raises LookupError, RuntimeError."""
    own = network.state_dict()
    placed = {key: weight.to(own[key].device, own[key].dtype) for key, weight in weights.items()}
    network.load_state_dict(placed, assign=True)


def is_dense(tensor: object) -> bool:
    """Whether it is a plain tensor with all of its values in it."""
    return type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.layout == torch.strided and not tensor.is_meta
