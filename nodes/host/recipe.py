"""A model as a recipe: plain data from which another process makes the same one.

The recipe names the loader that the host recorded (`cached_patcher_init`), or, where a node recorded
none, carries the weights themselves; and what was laid over the weights since: LoRA patches, a changed
model_sampling, a changed compute dtype. What has code in it cannot cross; `CannotCross` then says what
it is in words for users.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
import uuid
import weakref
from collections.abc import Sequence

import comfy.model_base
import comfy.model_detection
import comfy.model_sampling
import comfy.sd
import comfy.supported_models_base
import comfy.weight_adapter
import torch
from comfy.model_patcher import ModelPatcher

from ...hybridiff_core.plan import shown
from ...hybridiff_core.workers.wire import CannotCross, Kind
from .control import Networks, is_dense, take_weights, weights_of
from .foreign import MODULE_INTERNALS, changed_methods

CHECKPOINT, DIFFUSION_MODEL, WEIGHTS = "checkpoint", "diffusion_model", "weights"
PLAIN_OBJECT_PATCHES = ("manual_cast_dtype",)
# modules whose classes a model_sampling may be composed of; the second is imported on demand
SAMPLING_MODULES = ("comfy.model_sampling", "comfy_extras.nodes_model_advanced")
# a recipe's fields, and what its stamp and options may hold
FIELDS = {
    "loader": str,
    "path": str,
    "stamp": (tuple, type(None)),
    "options": dict,
    "weights": dict,
    "form": dict,
    "objects": dict,
    "force_cast_weights": bool,
    "patches": dict,
    "controls": list,
}
PLAIN = (bool, int, float, str, torch.dtype, type(None))

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
        raise CannotCross(f"another pack's code is around the model ({type(patcher).__name__})")
    if patcher.injections:
        raise CannotCross(f"{_names(patcher.injections)} changes the model while it runs")
    if patcher.weight_wrapper_patches:
        raise CannotCross("a node wraps the model's weights in code of its own")
    # what lies in the backup is another clone's, and the host takes it off before it samples with this one
    if changed := changed_methods(patcher.model, patcher.object_patches_backup):
        raise CannotCross(f"a node replaced the model's {changed} by code of its own")
    patches = {}
    for key, of_key in patcher.patches.items():
        for _, value, _, _, function in of_key:
            if function is not None or isinstance(value, list):
                raise CannotCross(f"the weight change on {key} has code in it (a model merge, for example)")
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
    raise CannotCross(f"the model comes from a loader that is not known here ({function.__qualname__})")


def _weights(patcher: ModelPatcher) -> dict:
    """The network's weights as they were loaded, without what the host has patched into them since."""
    model, unknown = patcher.model, "the node that loaded the model does not say how"
    config = getattr(model, "model_config", None)
    if not isinstance(model, comfy.model_base.BaseModel) or not isinstance(config, comfy.supported_models_base.BASE):
        raise CannotCross(f"{unknown}, and it is of another pack's class")
    weights = weights_of(model.diffusion_model, patcher, "diffusion_model.")
    if config.quant_config or not all(map(is_dense, weights.values())):
        raise CannotCross(f"{unknown}, and its weights have a special form (GGUF and the like)")
    form = _form(model)
    if config.custom_operations is not None or not all(name.startswith(("comfy.", "torch.")) for name in form["of"]):
        raise CannotCross(f"{unknown}, and it has code of another pack in it")
    told = comfy.model_detection.model_config_from_unet(dict(weights), "")
    if len(list(model.parameters())) > len(list(model.diffusion_model.parameters())):
        raise CannotCross(f"{unknown}, and it has weights beside the network's")
    if type(told) is not type(config) or {**told.unet_config, "dtype": None} != {**config.unet_config, "dtype": None}:
        raise CannotCross(f"{unknown}, and its weights do not tell its kind")
    options = {"dtype": config.unet_config.get("dtype"), "fp8_optimizations": bool(config.optimizations.get("fp8"))}
    return {"loader": WEIGHTS, "path": "", "stamp": None, "options": options, "weights": weights, "form": form}


def _form(model: comfy.model_base.BaseModel) -> dict:
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
        raise CannotCross(
            f"the model's file {os.path.basename(path)} is outside ComfyUI's model folders; "
            "move it there, or name its folder in extra_model_paths.yaml"
        )
    try:
        status = os.stat(path)
    except OSError:
        return {"path": path, "stamp": None}  # the worker will say that it is gone
    stamp = (status.st_size, status.st_mtime_ns)
    if _first_seen.setdefault(patcher.model, stamp) != stamp:
        raise CannotCross(f"the model's file {os.path.basename(path)} was changed after it was loaded; load it again")
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
        else:
            raise CannotCross(f"a node replaced the model's {name}")
    return objects


def _sampling_to_plain(sampling: torch.nn.Module) -> dict:
    cls = type(sampling)
    bases = [cls] if _known(cls) else list(cls.__bases__)
    own = {name for name in vars(cls) if not (name.startswith("__") and name.endswith("__"))}
    if not _known(cls) and (own or not all(map(_known, bases))):
        raise CannotCross(f"the model's sampling is of a class that is not known here ({cls.__qualname__})")
    attributes = {name: value for name, value in vars(sampling).items() if name not in MODULE_INTERNALS}
    buffers = dict(sampling.named_buffers(recurse=False))
    return {"bases": [[b.__module__, b.__name__] for b in bases], "attributes": attributes, "buffers": buffers}


def _known(cls: type) -> bool:
    return cls.__module__ in SAMPLING_MODULES and "." not in cls.__qualname__


def _sampling_from_plain(plain: dict) -> torch.nn.Module:
    import comfy_extras.nodes_model_advanced as advanced

    if not isinstance(plain, dict) or not isinstance(plain["bases"], list):
        raise ValueError(f"not a model_sampling: {shown(plain)}")
    modules = dict(zip(SAMPLING_MODULES, (comfy.model_sampling, advanced)))
    bases = tuple(vars(modules[module])[name] for module, name in plain["bases"])
    if not all(isinstance(base, type) and _known(base) for base in bases):
        raise ValueError(f"not a model_sampling: {shown(plain['bases'])}")
    cls = type("ModelSampling", bases, {})
    if not issubclass(cls, torch.nn.Module):
        raise ValueError(f"not a model_sampling: {shown(plain['bases'])}")
    sampling = cls.__new__(cls)
    torch.nn.Module.__init__(sampling)
    for name, value in plain["buffers"].items():
        sampling.register_buffer(name, value)
    for name, value in plain["attributes"].items():
        if name in MODULE_INTERNALS or hasattr(cls, name):
            raise ValueError(f"not an attribute of a model_sampling: {shown(name)}")
        setattr(sampling, name, value)
    return sampling


def _give_back() -> None:
    """Return the old model's memory to the system.

    A model that ran is part of a cycle, and glibc keeps what is freed: with two models in turn a worker came to
    hold 2 GB for nothing.
    """
    gc.collect()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL("libc.so.6").malloc_trim(0)


class Kitchen:
    """Makes models from recipes, and keeps the last one: what changed is laid on anew, not read again.

    Reads models from `folders` alone, by the loaders named here: a recipe comes from another process.
    """

    def __init__(self, folders: Sequence[str]) -> None:
        self.folders = folders
        self.networks = Networks()
        self._base: ModelPatcher | None = None
        self._base_recipe: object = None
        self._base_weights: list[torch.Tensor] = []  # held, so that no other tensor comes to have their ids
        self.refusals: list[str | None] = []  # why not, for each ControlNet of the last recipe

    def make(self, recipe: dict) -> tuple[ModelPatcher, bool]:
        """The patcher for `recipe`, and whether its file had to be read. Raises FileNotFoundError, ValueError."""
        if not isinstance(recipe, dict) or recipe.keys() != FIELDS.keys():
            raise ValueError(f"not a recipe: {shown(recipe)}")
        for name, kind in FIELDS.items():
            if not isinstance(recipe[name], kind):
                raise ValueError(f"not a recipe's {name}: {shown(recipe[name])}")
        plain = (*(recipe["stamp"] or ()), *recipe["options"].values())
        if not all(isinstance(value, PLAIN) for value in plain):
            raise ValueError(f"not a file's stamp and a loader's options: {shown(plain)}")
        weights = recipe["weights"]
        if not all(map(is_dense, weights.values())):
            raise ValueError("not a model's weights")
        objects = {name: _object(name, value) for name, value in recipe["objects"].items()}
        patches = {key: _list(value) for key, value in recipe["patches"].items()}
        base_recipe = [recipe[name] for name in ("loader", "path", "stamp", "options", "form")]
        base_recipe += [(key, id(weight)) for key, weight in weights.items()]
        self.refusals = self.networks.make(recipe["controls"])
        anew = self._base_recipe != base_recipe
        if anew:
            self._base = self._base_recipe = None
            self._base_weights = []
            _give_back()
            if recipe["loader"] == WEIGHTS:
                self._base = _build(weights, recipe["options"], recipe["form"])
            else:
                self._base = self._read(recipe["loader"], os.path.abspath(recipe["path"]), recipe["options"])
            self._base_recipe, self._base_weights = base_recipe, list(weights.values())
        patcher = self._base.clone()
        patcher.patches = patches
        patcher.force_cast_weights = recipe["force_cast_weights"]
        for name, value in objects.items():
            patcher.add_object_patch(name, value)
        patcher.patches_uuid = uuid.uuid4()  # a changed strength is another model to the host's loading
        return patcher, anew

    def _read(self, loader: str, path: str, options: dict) -> ModelPatcher:
        if loader not in (CHECKPOINT, DIFFUSION_MODEL):
            raise ValueError(f"unknown loader {shown(loader)}")
        if not lies_in(path, self.folders):
            raise ValueError(f"the model file {path} is outside ComfyUI's model folders")
        if not os.path.isfile(path):
            raise FileNotFoundError(f"the model file {path} is not there for the worker")
        if loader == DIFFUSION_MODEL:
            return comfy.sd.load_diffusion_model(path, model_options=options)
        return comfy.sd.load_checkpoint_guess_config(
            path, output_vae=False, output_clip=False, output_clipvision=False, model_options=options
        )[0]


def _build(weights: dict[str, torch.Tensor], options: dict, form: dict) -> ModelPatcher:
    """The host's own model around `weights`. Raises ValueError where it is not of this form."""
    if options.keys() != {"dtype", "fp8_optimizations"}:
        raise ValueError(f"not the options of weights: {shown(options)}")
    try:
        patcher = comfy.sd.load_diffusion_model_state_dict(dict(weights), model_options=options)
        take_weights(patcher.model.diffusion_model, weights)
    except Exception as error:
        raise ValueError(f"no model can be made from the weights: {type(error).__name__}") from error
    if _form(patcher.model) != form:
        raise ValueError("the model made from the weights is of another kind than ComfyUI's")
    return patcher


def _object(name: str, value: object) -> object:
    """The object that replaces the model's `name`, from its plain form. Raises ValueError."""
    if name == "manual_cast_dtype" and isinstance(value, (torch.dtype, type(None))):
        return value
    if name != "model_sampling":
        raise ValueError(f"nothing that can replace a model's {shown(name)}: {shown(value)}")
    try:
        return _sampling_from_plain(value)
    except (TypeError, LookupError, AttributeError) as error:
        raise ValueError(f"not a model_sampling: {error!r}") from error


def _list(value: object) -> list:
    if not isinstance(value, list):
        raise ValueError(f"not a list of weight changes: {shown(value)}")
    return list(value)


def _names(injections: dict) -> str:
    return "an extension" if None in injections else ", ".join(map(str, injections))
