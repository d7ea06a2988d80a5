"""How a model was loaded, as plain data: by one of ComfyUI's own loaders, or by its weights."""

from __future__ import annotations

import contextlib
import json
import os
import weakref
from collections.abc import Callable, Sequence

import comfy.model_base
import comfy.model_detection
import comfy.sd
import comfy.supported_models_base
import comfy.utils
import safetensors
import torch
from comfy.model_patcher import ModelPatcher

from ...hybridiff_core import lines
from ...hybridiff_core.workers.wire import CannotCross
from .weights import QUANT, alike, is_dense, quants_of, weights_of, with_quants

CHECKPOINT, DIFFUSION_MODEL, WEIGHTS = "checkpoint", "diffusion_model", "weights"
GRAPH = "graph"  # by none of these: by the nodes that made the model (graph.py)
PLAIN = (bool, int, float, str, torch.dtype, type(None))  # of a loader's options

# what a model's file was like when its model was first sampled here
_first_seen: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
# whether the file that another pack's loader read holds the model's weights
_from_file: weakref.WeakKeyDictionary[torch.nn.Module, bool] = weakref.WeakKeyDictionary()


class FileChanged(CannotCross):
    """The model's file is another one now, so nobody can make the same model."""


def require_unchanged(patcher: ModelPatcher) -> None:
    """Raise FileChanged where a file that the model's loader recorded is another one now."""
    for given in (patcher.cached_patcher_init or ((), ()))[1]:
        if isinstance(given, str) and os.path.isfile(given):
            with contextlib.suppress(OSError):
                _require_first_seen(patcher, os.path.abspath(given))


def loader_of(patcher: ModelPatcher) -> dict:
    """The part of a recipe from which the model without patches is made. Raises CannotCross."""
    made_by = patcher.cached_patcher_init
    if made_by is None:
        return _by_weights(patcher, None, ())
    function, arguments = made_by[0], made_by[1]
    if function is comfy.sd.load_checkpoint_guess_config:
        return {"loader": CHECKPOINT, **_file(patcher, arguments[0]), "options": arguments[6]}
    if function is getattr(comfy.sd, "load_checkpoint_guess_config_model_only", None):  # ComfyUI before 0.23
        return {"loader": CHECKPOINT, **_file(patcher, arguments[0]), "options": arguments[2]}
    if function is comfy.sd.load_diffusion_model:
        return {"loader": DIFFUSION_MODEL, **_file(patcher, arguments[0]), "options": arguments[1]}
    return _by_weights(patcher, function, arguments)


def _by_weights(patcher: ModelPatcher, function: Callable | None, arguments: Sequence) -> dict:
    """The network's weights as they were loaded, without what the host has patched into them since.

    Where another pack's loader recorded `function` and `arguments`, and these name a file that the weights are from,
    the file in their place.
    """
    model = patcher.model
    config = getattr(model, "model_config", None)
    if not isinstance(model, comfy.model_base.BaseModel) or not isinstance(config, comfy.supported_models_base.BASE):
        raise CannotCross(lines.LOADED_AS_A_CLASS_OF_A_PACK())
    weights, quants = weights_of(model.diffusion_model, patcher, "diffusion_model."), quants_of(model.diffusion_model)
    if not all(map(is_dense, weights.values())):
        raise CannotCross(lines.LOADED_IN_A_SPECIAL_FORM())
    form = form_of(model)
    if config.custom_operations is not None or not all(name.startswith(("comfy.", "torch.")) for name in form["of"]):
        raise CannotCross(lines.LOADED_WITH_CODE())
    if len(list(model.parameters())) > len(list(model.diffusion_model.parameters())):
        raise CannotCross(lines.LOADED_WITH_MORE_WEIGHTS())
    if file := _file_in(patcher, arguments, with_quants(weights, quants)):
        return {**file, "form": form}
    told = comfy.model_detection.model_config_from_unet(with_quants(weights, quants), "")
    if type(told) is not type(config) or {**told.unet_config, "dtype": None} != {**config.unet_config, "dtype": None}:
        raise CannotCross(lines.LOADED_KIND_UNCLEAR())
    options = {"dtype": config.unet_config.get("dtype"), "fp8_optimizations": bool(config.optimizations.get("fp8"))}
    return {"loader": WEIGHTS, "path": "", "stamp": None, "options": options, "weights": weights, "form": form}


def form_of(model: comfy.model_base.BaseModel) -> dict:
    """What a model that is made again must have in common with this one; not the type computed in."""
    parts = (model, model.model_config, *model.diffusion_model.modules())
    of = {(type(part).__module__, type(part).__qualname__) for part in parts}
    return {
        # a set of operations for each way to cast: comfy.ops has Linear and the like in all of them
        "of": sorted({f"{module}.{name.split('.')[-1] if module == 'comfy.ops' else name}" for module, name in of}),
        "config": dict(model.model_config.unet_config),
        "quants": quants_of(model.diffusion_model),
    }


# -- files


def _file(patcher: ModelPatcher, path: str) -> dict:
    """The model's file, known by its size and time too: it may be written anew under the same name."""
    path = os.path.abspath(path)
    if not lies_in(path, model_folders()):
        raise CannotCross(lines.FILE_OUTSIDE_FOLDERS(file=os.path.basename(path)))
    if not os.path.exists(path):
        return {"path": path, "stamp": None}  # the worker will say that it is gone
    return {"path": path, "stamp": _require_first_seen(patcher, path)}


def _require_first_seen(patcher: ModelPatcher, path: str) -> tuple[int, int]:
    """What the file is known by. Raises FileChanged where it is not what it was when the model was first sampled."""
    status = os.stat(path)
    stamp = (status.st_size, status.st_mtime_ns)
    if _first_seen.setdefault(patcher.model, {}).setdefault(path, stamp) != stamp:
        raise FileChanged(lines.FILE_CHANGED(file=os.path.basename(path)))
    return stamp


def _file_in(patcher: ModelPatcher, arguments: Sequence, state: dict[str, torch.Tensor]) -> dict | None:
    """The file and options with which ComfyUI's own loader makes what another pack's made of `arguments`; or None.

    That is where they are one file in ComfyUI's folders, plain options and nothing else, and the model's `state` is
    what the file holds.
    """
    paths = [value for value in arguments if isinstance(value, str)]
    options = [value for value in arguments if isinstance(value, dict)]
    plain = all(isinstance(value, PLAIN) for given in options for value in given.values())
    rest = [value for value in arguments if not isinstance(value, (str, dict, bool, type(None)))]
    if len(paths) != 1 or len(options) > 1 or not plain or rest or not paths[0].endswith(".safetensors"):
        return None
    path = os.path.abspath(paths[0])
    if not os.path.isfile(path) or not lies_in(path, model_folders()):
        return None
    if patcher.model not in _from_file:
        _from_file[patcher.model] = _holds(path, state)
    if not _from_file[patcher.model]:
        return None
    return {"loader": DIFFUSION_MODEL, **_file(patcher, path), "options": dict(*options)}


def _holds(path: str, state: dict[str, torch.Tensor]) -> bool:
    """Whether ComfyUI's loader reads `state` from the file: each tensor that is in either, by a sample of its values.

    A file with other names, which the host changes when it loads, does not count.
    """
    convert = getattr(comfy.utils, "convert_old_quants", lambda state, prefix, metadata: (state, metadata))
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no dict; nothing is read yet
        found, metadata = convert(found, "", metadata=metadata)
        prefix = comfy.model_detection.unet_prefix_from_state_dict(found)
        found = comfy.utils.state_dict_prefix_replace(dict(found), {prefix: ""}, filter_keys=True) or found
    except (safetensors.SafetensorError, OSError, ValueError, RuntimeError, AttributeError):
        return False
    same = {True: lambda a, b: _read(a) == _read(b), False: alike}
    return found.keys() == state.keys() and all(
        same[key.endswith(QUANT)](found[key], tensor) for key, tensor in state.items()
    )


def _read(quant: torch.Tensor) -> object:
    return json.loads(bytes(quant.tolist()))


def model_folders() -> list[str]:
    """The folders that this ComfyUI reads models from, extra_model_paths.yaml's too."""
    import folder_paths  # not in a worker, which is told

    kinds = folder_paths.folder_names_and_paths
    return sorted({os.path.abspath(folder) for kind in kinds if kind != "custom_nodes" for folder in kinds[kind][0]})


def lies_in(path: str, folders: Sequence[str]) -> bool:
    """Whether the absolute `path` is under one of `folders` by name; what is there may be a link to elsewhere."""
    return any(os.path.normcase(path).startswith(os.path.normcase(os.path.join(folder, ""))) for folder in folders)
