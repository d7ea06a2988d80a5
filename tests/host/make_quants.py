"""Make the test transformer in the quantised formats of ComfyUI's templates. Run by ComfyUI's own Python.

python make_quants.py COMFYUI_ROOT MODELS_FOLDER

Prints a line of JSON: for each format the file's name, or why this ComfyUI cannot make it.
"""

from __future__ import annotations

import json
import os
import sys

import torch

# the format, as files call it, its layout's name in the host, and how the host's own code quantises to it
FORMATS = {
    "fp8": ("float8_e4m3fn", "TensorCoreFP8E4M3Layout", {"scale": "recalculate"}),
    "int8": ("int8_tensorwise", "TensorWiseINT8Layout", {}),
    "int8_convrot": (
        "int8_tensorwise", "TensorWiseINT8Layout", {"per_channel": True, "convrot": True, "convrot_groupsize": 256},
    ),
    "nvfp4": ("nvfp4", "TensorCoreNVFP4Layout", {"scale": "recalculate"}),
    "mxfp8": ("mxfp8", "TensorCoreMXFP8Layout", {}),
}  # fmt: skip
IS_QUANTISED = (".mlp.fc1.weight", ".mlp.fc2.weight", ".attn.qkv.weight", ".attn.proj.weight")


def quantised(made: dict, name: str) -> dict:
    """The state dict with the blocks' matrices in the format `name`, as the host's files have it."""
    from comfy.quant_ops import QuantizedTensor

    algorithm, layout, given = FORMATS[name]
    told = {"format": algorithm, **{key: value for key, value in given.items() if key.startswith("convrot")}}
    found = dict(made)
    for key in [key for key in made if key.endswith(IS_QUANTISED)]:
        weight = QuantizedTensor.from_float(found.pop(key).float(), layout, **given)
        found |= weight.state_dict(key)
        found[key.removesuffix("weight") + "comfy_quant"] = torch.tensor(
            list(json.dumps(told).encode()), dtype=torch.uint8
        )
    return {key: value.contiguous() for key, value in found.items()}


def main(root: str, models: str) -> None:
    sys.path.insert(0, root)
    import comfy.cli_args

    comfy.cli_args.args.cpu = True
    from safetensors.torch import load_file, save_file

    folder, said = os.path.join(models, "diffusion_models"), {}
    made = load_file(os.path.join(folder, "sd3_depth4.safetensors"))
    for name in FORMATS:
        file = f"quant_sd3_{name}.safetensors"
        try:
            save_file(quantised(made, name), os.path.join(folder, file + ".part"))
            os.replace(os.path.join(folder, file + ".part"), os.path.join(folder, file))
            said[name] = file
        except Exception as error:  # noqa: BLE001 - told
            said[name] = f"{type(error).__name__}: {error}"
    print(json.dumps(said))


if __name__ == "__main__":
    with torch.inference_mode():
        main(*sys.argv[1:])
