"""A model from its recipe (recipe.py), in a worker.

A recipe comes from another process: all of it is checked, and what is made of it is ComfyUI's own.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
import uuid
from collections.abc import Sequence

import comfy.model_sampling
import comfy.sd
import torch
from comfy.model_patcher import ModelPatcher

from ...hybridiff_core import lines
from ...hybridiff_core.plan import shown
from .control_networks import Networks
from .foreign import MODULE_INTERNALS
from .mapped import weights_assigned
from .recipe import (
    CHECKPOINT,
    DIFFUSION_MODEL,
    SAMPLING_MODULES,
    WEIGHTS,
    form_of,
    is_dense,
    knows_sampling,
    lies_in,
    take_weights,
)

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
        _check(recipe)
        weights = recipe["weights"]
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
            with weights_assigned():
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

    def clear(self) -> None:
        """Let go of every model, and give its memory back."""
        self.networks, self._base, self._base_recipe, self._base_weights = Networks(), None, None, []
        _give_back()

    def _read(self, loader: str, path: str, options: dict) -> ModelPatcher:
        if loader not in (CHECKPOINT, DIFFUSION_MODEL):
            raise ValueError(lines.WRONG_VALUE(what="a loader", value=shown(loader)))
        if not lies_in(path, self.folders):
            raise ValueError(lines.WORKER_FILE_OUTSIDE(path=path))
        if not os.path.isfile(path):
            raise FileNotFoundError(lines.WORKER_FILE_GONE(path=path))
        if loader == DIFFUSION_MODEL:
            return comfy.sd.load_diffusion_model(path, model_options=options)
        return comfy.sd.load_checkpoint_guess_config(
            path, output_vae=False, output_clip=False, output_clipvision=False, model_options=options
        )[0]


def _check(recipe: dict) -> None:
    """Raise ValueError where this is no recipe."""
    if not isinstance(recipe, dict) or recipe.keys() != FIELDS.keys():
        raise ValueError(lines.WRONG_VALUE(what="a recipe", value=shown(recipe)))
    for name, kind in FIELDS.items():
        if not isinstance(recipe[name], kind):
            raise ValueError(lines.WRONG_VALUE(what=f"a recipe's {name}", value=shown(recipe[name])))
    plain = (*(recipe["stamp"] or ()), *recipe["options"].values())
    if not all(isinstance(value, PLAIN) for value in plain):
        raise ValueError(lines.WRONG_VALUE(what="a file's stamp and a loader's options", value=shown(plain)))
    if not all(map(is_dense, recipe["weights"].values())):
        raise ValueError(lines.WRONG_VALUE(what="a model's weights", value=shown(list(recipe["weights"]))))


def _build(weights: dict[str, torch.Tensor], options: dict, form: dict) -> ModelPatcher:
    """The host's own model around `weights`. Raises ValueError where it is not of this form."""
    if options.keys() != {"dtype", "fp8_optimizations"}:
        raise ValueError(lines.WRONG_VALUE(what="the options of weights", value=shown(options)))
    try:
        patcher = comfy.sd.load_diffusion_model_state_dict(dict(weights), model_options=options)
        take_weights(patcher.model.diffusion_model, weights)
    except Exception as error:
        raise ValueError(lines.WEIGHTS_MAKE_NO_MODEL(kind=type(error).__name__)) from error
    if form_of(patcher.model) != form:
        raise ValueError(lines.WEIGHTS_MAKE_ANOTHER_MODEL())
    return patcher


def _object(name: str, value: object) -> object:
    """The object that replaces the model's `name`, from its plain form. Raises ValueError."""
    if name == "manual_cast_dtype" and isinstance(value, (torch.dtype, type(None))):
        return value
    if name != "model_sampling":
        raise ValueError(lines.WRONG_VALUE(what=f"what can replace a model's {shown(name)}", value=shown(value)))
    try:
        return _sampling_from_plain(value)
    except (TypeError, LookupError, AttributeError) as error:
        raise ValueError(lines.WRONG_VALUE(what="a model_sampling", value=repr(error))) from error


def _list(value: object) -> list:
    if not isinstance(value, list):
        raise ValueError(lines.WRONG_VALUE(what="a list of weight changes", value=shown(value)))
    return list(value)


def _sampling_from_plain(plain: dict) -> torch.nn.Module:
    import comfy_extras.nodes_model_advanced as advanced

    if not isinstance(plain, dict) or not isinstance(plain["bases"], list):
        raise ValueError(lines.WRONG_VALUE(what="a model_sampling", value=shown(plain)))
    modules = dict(zip(SAMPLING_MODULES, (comfy.model_sampling, advanced)))
    bases = tuple(vars(modules[module])[name] for module, name in plain["bases"])
    if not all(isinstance(base, type) and knows_sampling(base) for base in bases):
        raise ValueError(lines.WRONG_VALUE(what="a model_sampling", value=shown(plain["bases"])))
    cls = type("ModelSampling", bases, {})
    if not issubclass(cls, torch.nn.Module):
        raise ValueError(lines.WRONG_VALUE(what="a model_sampling", value=shown(plain["bases"])))
    sampling = cls.__new__(cls)
    torch.nn.Module.__init__(sampling)
    for name, value in plain["buffers"].items():
        sampling.register_buffer(name, value)
    for name, value in plain["attributes"].items():
        if name in MODULE_INTERNALS or hasattr(cls, name):
            raise ValueError(lines.WRONG_VALUE(what="an attribute of a model_sampling", value=shown(name)))
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
