"""Make the host tests' models: seeded random weights in the true formats. Run by ComfyUI's own Python.

python make_models.py COMFYUI_ROOT MODELS_FOLDER
"""

import math
import os
import sys

import torch

SD15_UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320, "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4], "num_heads": 8, "use_spatial_transformer": True, "context_dim": 768,
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1, "legacy": False,
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0], "use_linear_in_transformer": False,
}  # fmt: skip
# every level as wide as the first and half as deep: the host knows the family, and a step takes an eighth of the time
SD15_NARROW = {
    **SD15_UNET, "channel_mult": [1, 1, 1, 1], "num_res_blocks": [1, 1, 1, 1], "transformer_depth": [1, 1, 1, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 0, 0],
}  # fmt: skip


def sd3_config(depth: int) -> dict:
    """SD3-medium's layout at `depth` blocks of width 64 depth."""
    width = 64 * depth
    return {
        "input_size": None, "in_channels": 16, "patch_size": 2, "depth": depth, "adm_in_channels": 2048,
        "context_embedder_config": {
            "target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": width},
        },
        "num_patches": 64 * 64, "pos_embed_max_size": 64, "pos_embed_scaling_factor": None,
    }  # fmt: skip


def fill(module: torch.nn.Module, seed: int, last: tuple[str, ...]) -> None:
    """Random weights that keep activations near 1: matrices by fan-in, norms at 1, biases small.

    The output layer, named in `last`, is twenty times weaker: a trained network takes noise away, and x
    stays near 1; a random one would blow x up step by step, and every rounding with it.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(module.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            parameter.data = noise / math.sqrt(parameter[0].numel()) * (0.05 if name in last else 1.0)
        else:
            parameter.data = 0.02 * noise + (1.0 if name.endswith("weight") else 0.0)


def lora_for(state_dict: dict, seed: int, rank: int = 4) -> dict:
    """A LoRA on every attention matrix of the model."""
    generator = torch.Generator().manual_seed(seed)
    lora = {}
    for key, weight in state_dict.items():
        if key.endswith("attn.qkv.weight"):
            name = f"diffusion_model.{key.removesuffix('.weight')}"
            lora[f"{name}.lora_down.weight"] = torch.randn(rank, weight.shape[1], generator=generator) / 8
            lora[f"{name}.lora_up.weight"] = torch.randn(weight.shape[0], rank, generator=generator) / 8
    return lora


def main(root: str, models: str) -> None:
    sys.path.insert(0, root)
    import comfy.cli_args

    comfy.cli_args.args.cpu = True
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.mmdit import MMDiT
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
    from safetensors.torch import save_file

    def save(tensors: dict, *where: str) -> None:
        path = os.path.join(models, *where)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        save_file(tensors, path + ".part")
        os.replace(path + ".part", path)

    make = {"dtype": torch.float32, "device": "cpu", "operations": comfy.ops.disable_weight_init}
    for depth in (4, 6):
        model = MMDiT(**sd3_config(depth), **make)
        fill(model, seed=depth, last=("final_layer.linear.weight",))
        weights = {**model.state_dict(), "pos_embed": 0.1 * torch.randn(1, 64 * 64, 64 * depth)}
        save(weights, "diffusion_models", f"sd3_depth{depth}.safetensors")
        if depth == 4:
            save(lora_for(weights, seed=1), "loras", "sd3_depth4.safetensors")
    unet = UNetModel(**SD15_NARROW, **make)
    fill(unet, seed=15, last=("out.2.weight",))
    half = {f"model.diffusion_model.{key}": value.half() for key, value in unet.state_dict().items()}
    save(half, "checkpoints", "sd15_narrow.safetensors")


if __name__ == "__main__":
    torch.manual_seed(0)
    main(*sys.argv[1:])
