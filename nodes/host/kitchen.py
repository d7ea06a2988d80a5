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
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import comfy.model_sampling
import comfy.sd
import psutil
import torch
from comfy.model_patcher import ModelPatcher

from ...hybridiff_core import lines
from ...hybridiff_core.plan import shown
from .control_networks import Networks
from .foreign import MODULE_INTERNALS
from .loaders import CHECKPOINT, DIFFUSION_MODEL, GRAPH, PLAIN, WEIGHTS, form_of, lies_in
from .mapped import weights_assigned
from .recipe import SAMPLING_MODULES, knows_sampling
from .weights import is_dense, take_weights, with_quants

MODELS_KEPT = 4  # in memory, where there is room: two passes of two experts
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
    "graph": dict,
}


@dataclass
class Base:
    """A model as it was loaded, without what recipes lay over it."""

    recipe: list
    patcher: ModelPatcher
    weights: list[torch.Tensor]  # held, so that no other tensor comes to have their ids

    @property
    def on_device(self) -> int:
        """Bytes that come back into the system's memory when another model takes its place on the device."""
        return 0 if self.patcher.load_device.type == "cpu" else self.patcher.loaded_size()


class Kitchen:
    """Makes models from recipes, and keeps the last ones: what changed is laid on anew, not read again.

    Reads models from `folders` alone, by the loaders named here: a recipe comes from another process. Models in turn
    (two experts, base and refiner) stay, the last used longest, while `free` bytes of the system's memory would hold
    the next one too. `machine` is this one's name, where recipes come from another one.
    """

    def __init__(
        self,
        folders: Sequence[str],
        free: Callable[[], int] = lambda: psutil.virtual_memory().available,
        machine: str | None = None,
    ):
        self.folders, self.free, self.machine = folders, free, machine
        self.networks = Networks()
        self._bases: list[Base] = []  # in the order of their use
        self.refusals: list[str | None] = []  # why not, for each ControlNet of the last recipe
        self.account: dict = {}  # what the last recipe took, where it was by graph
        self._graphs: object = None  # the GraphKitchen, once there is a graph

    def make(self, recipe: dict) -> tuple[ModelPatcher, bool]:
        """The patcher for `recipe`, and whether its file had to be read. Raises FileNotFoundError, ValueError."""
        _check(recipe)
        objects = {name: _object(name, value) for name, value in recipe["objects"].items()}
        patches = {key: _list(value) for key, value in recipe["patches"].items()}
        self.refusals = self.networks.make(recipe["controls"])
        self.account = {}
        if recipe["loader"] == GRAPH:
            return self._by_graph(recipe["graph"])
        base, anew = self._base(recipe)
        patcher = base.patcher.clone()
        patcher.patches = patches
        patcher.force_cast_weights = recipe["force_cast_weights"]
        for name, value in objects.items():
            patcher.add_object_patch(name, value)
        patcher.patches_uuid = uuid.uuid4()  # a changed strength is another model to the host's loading
        return patcher, anew

    def _by_graph(self, graph: dict) -> tuple[ModelPatcher, bool]:
        if self._graphs is None:
            from .graph_kitchen import GraphKitchen  # brings the host's executor and server with it

            self._graphs = GraphKitchen(self.machine)
        self._graphs.check(graph)
        if not self._graphs.kin(graph):
            self._make_room(graph["size"])
        made = self._graphs.make(graph)
        self.account = vars(self._graphs.account)
        return made.clone(), bool(self.account["ran"])

    @property
    def held(self) -> list[torch.Tensor]:
        """The weights of the models that are kept, as they came."""
        return [weight for base in self._bases for weight in base.weights]

    def clear(self) -> None:
        """Let go of every model, and give its memory back."""
        self.networks, self._bases = Networks(), []
        if self._graphs:
            self._graphs.clear()
        _give_back()

    def _base(self, recipe: dict) -> tuple[Base, bool]:
        """The model under what the recipe lays over it, and whether it had to be made."""
        weights = recipe["weights"]
        key = [recipe[name] for name in ("loader", "path", "stamp", "options", "form")]
        key += [(name, id(weight)) for name, weight in weights.items()]
        known = next((base for base in self._bases if base.recipe == key), None)
        if known:
            self._bases.remove(known)
        else:
            self._make_room(_size(recipe))
        base = known or Base(key, self._load(recipe), list(weights.values()))
        self._bases.append(base)
        return base, not known

    def _make_room(self, size: int) -> None:
        """Let go of models until another one of `size` bytes has room."""
        of_graphs = self._graphs.made if self._graphs else []
        while kept := self._bases or of_graphs:
            few = len(self._bases) + len(of_graphs) < MODELS_KEPT
            if few and self.free() >= size + sum(one.on_device for one in (*self._bases, *of_graphs)):
                break
            del kept[0]
            _give_back()

    def _load(self, recipe: dict) -> ModelPatcher:
        with weights_assigned():
            if recipe["loader"] == WEIGHTS:
                patcher = _build(recipe["weights"], recipe["options"], recipe["form"])
            else:
                patcher = self._read(recipe["loader"], os.path.abspath(recipe["path"]), recipe["options"])
        if recipe["form"] and form_of(patcher.model) != recipe["form"]:
            raise ValueError(lines.WEIGHTS_MAKE_ANOTHER_MODEL())
        return patcher

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


def _size(recipe: dict) -> int:
    """How many bytes the recipe's model takes, about: those of its file or of its weights."""
    if recipe["loader"] == WEIGHTS:
        return sum(weight.nbytes for weight in recipe["weights"].values())
    try:
        return os.path.getsize(recipe["path"])
    except (OSError, ValueError):  # that there is no such file, the loading says
        return 0


def _build(weights: dict[str, torch.Tensor], options: dict, form: dict) -> ModelPatcher:
    """The host's own model around `weights`. Raises ValueError where they make none."""
    if options.keys() != {"dtype", "fp8_optimizations"}:
        raise ValueError(lines.WRONG_VALUE(what="the options of weights", value=shown(options)))
    try:
        state = with_quants(weights, form["quants"])
        patcher = comfy.sd.load_diffusion_model_state_dict(dict(state), model_options=options)
        take_weights(patcher.model.diffusion_model, state)
    except Exception as error:
        raise ValueError(lines.WEIGHTS_MAKE_NO_MODEL(kind=type(error).__name__)) from error
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
