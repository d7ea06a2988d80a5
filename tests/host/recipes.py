"""Recipes that were changed on the way, given to the worker's side. Run by ComfyUI's own Python.

    python recipes.py COMFYUI_ROOT MODELS_FOLDER COUNT

Each of COUNT mutations of a real recipe and of a real run's conditioning must become a model, or a
refusal; with no import, no code run and no file read that the recipe could have named. Prints one
line of JSON: how often what came of it.
"""

from __future__ import annotations

import collections
import copy
import json
import os
import random
import sys
import uuid
from pathlib import Path

REFUSALS = (ValueError, FileNotFoundError)
JUNK = [
    None, True, -1, 10**400, 1.5, float("nan"), "", "os", "system", "__class__", "forward", "../../etc/passwd",
    [], [[]], {}, {"tuple": []}, {"dict": []}, {"dict": [["x", 1]]}, {"dict": [[[], 1]]}, {"set": [[]]},
    {"dtype": "float16"}, {"dtype": "Tensor"}, {"tensor": 0}, {"tensor": 10**6}, {"tensor": True}, {"uuid": "x"},
    {"kind": "CONDRegular", "of": None}, {"kind": "LoRAAdapter", "of": [1]}, {"kind": "Popen", "of": ["true"]},
    ["comfy.model_sampling", "torch"], ["comfy.model_sampling", "EPS"], ["os", "system"], ["builtins", "eval"],
    ["comfy_extras.nodes_model_advanced", "ModelSamplingSD3"], ["comfy_extras.nodes_model_advanced", "folder_paths"],
    "checkpoint", "diffusion_model", "weights", "model_sampling", "manual_cast_dtype", "diffusion_model.forward",
]  # fmt: skip


def places(value: object, path: tuple = ()):
    """Every place in a JSON value, by the keys that lead to it."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def changed(value: object, choose: random.Random) -> object:
    """`value` with one to three places replaced, dropped or doubled."""
    for _ in range(choose.randint(1, 3)):
        value = copy.deepcopy(value)
        path = choose.choice(list(places(value)))
        if not path:
            return copy.deepcopy(choose.choice(JUNK))
        *way, last = path
        parent = value
        for key in way:
            parent = parent[key]
        match choose.randrange(4):
            case 0 if isinstance(parent, dict):
                parent[choose.choice(["tuple", "dict", "kind", "of", "x"])] = parent.pop(last)
            case 0 | 1:
                del parent[last]
            case 2 if isinstance(parent, list):
                parent.insert(last, copy.deepcopy(choose.choice(parent)))
            case _:
                parent[last] = copy.deepcopy(choose.choice(JUNK))
    return value


def refuse_weights(kitchen, right: dict) -> None:
    """A recipe of weights is made as it is, and not from others, nor into another kind of model."""
    import torch

    name, weight = next(reversed(right["weights"].items()))
    without = {key: value for key, value in right["weights"].items() if key != name}
    kind = "another kind than ComfyUI's"
    for wrong, words in (
        ({}, None),
        ({"weights": without}, "no model can be made"),
        ({"weights": {**right["weights"], "x": weight}}, "no model can be made"),
        ({"weights": {**right["weights"], name: weight[:1]}}, "no model can be made"),
        ({"weights": {}}, "no model can be made"),
        ({"weights": {name: "x"}}, "not a model's weights"),
        ({"options": {"custom_operations": "x"}}, "not the options"),
        ({"form": {**right["form"], "cast": torch.float16}}, kind),
        ({"form": {**right["form"], "quants": {"joint_blocks.0.x_block.mlp.fc1": "x"}}}, "no model can be made"),
        ({"form": {}}, "no model can be made"),
        ({"form": {**right["form"], "of": right["form"]["of"][1:]}}, kind),
        ({"form": {**right["form"], "config": {**right["form"]["config"], "depth": 9}}}, kind),
        ({"options": {**right["options"], "dtype": torch.bfloat16}}, kind),
    ):
        try:
            kitchen.Kitchen([]).make({**right, **wrong})
        except ValueError as error:
            assert words and words in str(error), (wrong.keys(), error)
        else:
            assert words is None, f"{wrong.keys()} was taken"


def main(root: str, models: str, count: int) -> dict:
    import families
    from frozen import enter

    enter(root)
    import comfy.model_sampling
    import comfy.sd
    import comfy_extras.nodes_model_advanced as advanced
    import torch
    from comfy.model_patcher import ModelPatcher
    from hybridiff_pack.hybridiff_core.workers.ledger import Ledger
    from hybridiff_pack.hybridiff_core.workers.wire import decode
    from hybridiff_pack.nodes.host import conditioning, control_networks, kitchen, loaders, recipe

    path = os.path.join(models, "diffusion_models", "sd3_depth4.safetensors")
    model = families.load(path, families.FAMILIES["sd3"])
    lora = comfy.utils.load_torch_file(os.path.join(models, "loras", "sd3_depth4.safetensors"))
    model, _ = comfy.sd.load_lora_for_models(model, None, lora, 0.5, 0.0)
    (model,) = advanced.ModelSamplingSD3().patch(model, 2.0)
    kinds = conditioning.KINDS | recipe.ADAPTER_KINDS
    conds = [[{
        "area": (2, 2, 0, 0), "strength": 1.0, "mask": torch.ones(1, 4, 4), "uuid": uuid.uuid4(),
        "model_conds": {cls.__name__: cls([torch.ones(1, 2)]) for cls in conditioning.KINDS},
    }]]  # fmt: skip
    run = {"conds": conds, "options": {"sample_sigmas": torch.ones(2)}, "shape": (1, 16, 16, 16)}
    some = {"zero_convs.0.0.weight": torch.ones(2, 2, 1, 1), "input_hint_block.0.weight": torch.ones(2, 3, 3, 3)}
    networks = [
        {"kind": "ControlLora", "weights": {"lora_controlnet": torch.zeros(1)}, "dtype": None, "average": False},
        {"kind": "ControlNet", "weights": some, "dtype": torch.float32, "average": True},
    ]
    right = recipe.recipe_of(model, networks)
    unrecorded = model.clone()
    unrecorded.cached_patcher_init = None
    bare = recipe.recipe_of(unrecorded)
    assert bare["loader"] == loaders.WEIGHTS and not bare["path"] and bare["weights"]
    refuse_weights(kitchen, bare)
    parcels = [Ledger(False).pack(value, kinds) for value in (right, bare, run)]
    kitchen._sampling_from_plain(right["objects"]["model_sampling"])  # what is imported on demand
    known = set(kinds) | {
        ModelPatcher, torch.Tensor, torch.nn.Parameter, torch.dtype, uuid.UUID, type(None),
        bool, int, float, str, list, tuple, set, dict,
    }  # fmt: skip

    read = []

    def load(path: str, model_options: dict):
        read.append(path)
        return comfy_model

    for made in ({"kind": "Popen"}, {"weights": {"x": "y"}}, {"dtype": "float32"}, {"more": 1}):
        try:
            control_networks.Networks().make([{**networks[0], **made}])
        except ValueError as error:
            assert "not a ControlNet" in str(error), error
        else:
            raise AssertionError(f"{made} was taken")
    comfy_model = model.clone()
    comfy.sd.load_diffusion_model = load
    comfy.sd.load_diffusion_model_state_dict = lambda weights, model_options: comfy_model.clone()
    comfy.sd.load_checkpoint_guess_config = lambda path, model_options, **_: [load(path, model_options)]
    repr(torch.ones(1)), str(ValueError(torch.ones(2, 2, requires_grad=True)))  # torch imports for it
    kitchen._give_back = lambda: None  # takes long, and happens at every other model
    cook = kitchen.Kitchen([os.path.dirname(path)], free=lambda: 0)  # one that reads no file
    modules = set(sys.modules)
    watched = {"import", "exec", "compile", "open", "os.system", "subprocess.Popen", "os.exec", "os.remove"}
    happened: list[str] = []
    watching = False

    def audit(event: str, arguments: tuple) -> None:
        if watching and event in watched:
            happened.append(f"{event} {arguments[:1]}")

    sys.addaudithook(audit)

    def classes(value: object):
        yield type(value)
        if isinstance(value, dict):
            for item in (*value, *value.values()):
                yield from classes(item)
        elif isinstance(value, (list, tuple, set)):
            for item in value:
                yield from classes(item)

    choose, came = random.Random(0), collections.Counter()
    for number in range(count):
        which = 2 if number % 3 == 0 else number % 8 == 1
        parcel, what = parcels[which], "run" if which == 2 else "recipe"
        value, tensors = changed(parcel.value, choose), dict(parcel.tensors)
        watching = True
        try:
            decoded = decode(value, tensors.__getitem__, kinds)
            if what == "recipe":
                made, _ = cook.make(decoded)
                assert isinstance(made, ModelPatcher)
                for name, replaced in made.object_patches.items():
                    assert name == "model_sampling" or replaced is None or isinstance(replaced, torch.dtype)
            came[f"{what} made"] += 1
        except REFUSALS as error:
            came[f"{what} {type(error).__name__}"] += 1
            continue
        except Exception as error:
            raise AssertionError(f"{value}") from error
        finally:
            watching = False
        assert set(classes(decoded)) <= known, set(classes(decoded)) - known
    assert not happened, happened[:5]
    assert set(sys.modules) == modules, set(sys.modules) - modules
    assert set(read) == {path}, set(read)
    folder = os.path.dirname(path)
    for wrong, words in (
        ({"path": __file__}, "outside ComfyUI's model folders"),
        ({"path": os.path.join(folder, "..", "loras", "sd3_depth4.safetensors")}, "outside ComfyUI's model folders"),
        ({"path": folder + "_2/x.safetensors"}, "outside ComfyUI's model folders"),
        ({"path": path + ".gone"}, "is not there for the worker"),
        ({"loader": "os.system"}, "not a loader: 'os.system'"),
        ({"objects": {"diffusion_model.forward": 1}}, "can replace a model's 'diffusion_model.forward'"),
    ):
        try:
            kitchen.Kitchen([folder]).make({**right, **wrong})
        except REFUSALS as error:
            assert words in str(error), error
        else:
            raise AssertionError(f"{wrong} was taken")
    return came


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent)
    import families
    import frozen

    frozen.families = families
    print(json.dumps(main(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
