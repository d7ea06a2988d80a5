"""Make files for loaders other than UNETLoader, seeded random weights in the true formats. Run by ComfyUI's own Python.

python make_loaders.py COMFYUI_ROOT MODELS_FOLDER

A checkpoint with every part; an unCLIP one, whose text and picture encoders have a first tensor only; a diffusers
folder (SDXS, the smallest that the host knows); a transformer in scaled fp8; GLIGEN; a Redux style model.
"""

import json
import os
import sys
from collections.abc import Callable

import torch

try:
    from .families import FAMILIES, UNET, Family, unet, weights
    from .make_models import fill
except ImportError:  # run as a script
    from families import FAMILIES, UNET, Family, unet, weights
    from make_models import fill

KL = {"double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128,
      "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0}  # fmt: skip
SDXS = {
    "image_size": 32, "out_channels": 4, "use_spatial_transformer": True, "legacy": False, "in_channels": 4,
    "model_channels": 320, "num_res_blocks": [1, 1, 1], "transformer_depth": [0, 1, 1], "channel_mult": [1, 2, 4],
    "transformer_depth_middle": -2, "use_linear_in_transformer": False, "context_dim": 768, "num_head_channels": 64,
    "transformer_depth_output": [0, 0, 1, 1, 1, 1],
}  # fmt: skip
FUSERS = [f"input_blocks.{i}.1" for i in (1, 2, 4, 5, 7, 8)] + ["middle_block.1"]
FUSERS += [f"output_blocks.{i}.1" for i in range(3, 12)]


def narrow(config: dict) -> Family:
    return Family("checkpoints", UNET, config, ("out.2.weight",), (1, 4, 16, 16), {}, ())


def filled(module: torch.nn.Module, seed: int, last: tuple[str, ...] = ()) -> dict:
    fill(module, seed, last)
    return module.state_dict()


def main(root: str, models: str) -> None:
    sys.path.insert(0, root)
    import comfy.cli_args

    comfy.cli_args.args.cpu = True
    import comfy.gligen
    import comfy.ldm.flux.redux
    import comfy.ldm.models.autoencoder
    import comfy.sd1_clip
    import comfy.utils
    from safetensors.torch import load_file, save_file

    def save(make: Callable[[], dict], *where: str) -> None:
        path = os.path.join(models, *where)
        if os.path.isfile(path):
            return
        os.makedirs(os.path.dirname(path), exist_ok=True)
        save_file({key: value.contiguous() for key, value in make().items()}, path + ".part")
        os.replace(path + ".part", path)

    def half(tensors: dict, prefix: str = "") -> dict:
        return {f"{prefix}{key}": value.half() if value.is_floating_point() else value
                for key, value in tensors.items()}  # fmt: skip

    def autoencoder() -> dict:
        return half(filled(comfy.ldm.models.autoencoder.AutoencoderKL(embed_dim=4, ddconfig=KL), 31))

    def whole() -> dict:
        text = filled(comfy.sd1_clip.SD1ClipModel(device="cpu", dtype=torch.float32), 32)
        text = {key.replace("clip_l.", "cond_stage_model."): value for key, value in text.items()}
        first_stage = {f"first_stage_model.{key}": value for key, value in autoencoder().items()}
        return {**weights("loaders_sd15", narrow(unet(768))), **first_stage, **half(text)}

    def unclip() -> dict:
        family = FAMILIES["sd21_unclip"]
        vision = {f"transformer.resblocks.{i}.ln_1.weight": torch.ones(1024) for i in range(24)}
        vision |= {"transformer.resblocks.0.attn.in_proj_weight": torch.ones(3072, 1024)}
        vision |= {"positional_embedding": torch.ones(257, 1024)}
        return {
            **weights("sd21_unclip", family),
            **half({"ln_final.weight": torch.ones(1024)}, "cond_stage_model.model."),
            **half(vision, "embedder.model.visual."),
            **{f"first_stage_model.{key}": value for key, value in autoencoder().items()},
        }

    def diffusers() -> dict:
        made = weights("loaders_sdxs", narrow(SDXS))
        names = comfy.utils.unet_to_diffusers(SDXS)
        prefix = narrow(SDXS).prefix
        return {name: made[prefix + key] for name, key in names.items() if prefix + key in made}

    def scaled() -> dict:
        """Linear weights in fp8 with a scale, as the host's older scaled files have them."""
        made = load_file(os.path.join(models, "diffusion_models", "sd3_depth4.safetensors"))
        for key in [k for k in made if ".mlp." in k or ".attn.qkv." in k]:
            if key.endswith(".weight"):
                scale = made[key].abs().max() / 448
                made[key] = (made[key] / scale).to(torch.float8_e4m3fn)
                made[key.removesuffix("weight") + "scale_weight"] = scale.reshape(1)
        return {**made, "scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}

    def gligen() -> dict:
        found = {}
        for seed, place in enumerate(FUSERS):
            fuser = comfy.gligen.GatedSelfAttentionDense(320, 768, 8, 40)
            made = filled(fuser, 40 + seed)
            made |= {key: torch.tensor(0.5) for key in made if key.startswith("alpha_")}
            found |= {f"{place}.transformer_blocks.0.fuser.{key}": value for key, value in made.items()}
        position = filled(comfy.gligen.PositionNet(768, 768), 39)
        return half({**found, **{f"position_net.{key}": value for key, value in position.items()}})

    save(whole, "checkpoints", "loaders_sd15.safetensors")
    save(unclip, "checkpoints", "loaders_unclip.safetensors")
    save(diffusers, "diffusers", "loaders_sdxs", "unet", "diffusion_pytorch_model.safetensors")
    save(autoencoder, "diffusers", "loaders_sdxs", "vae", "diffusion_pytorch_model.safetensors")
    mlp = {"text_model.encoder.layers.0.mlp.fc1.weight": torch.ones(3072, 768)}
    save(lambda: mlp, "diffusers", "loaders_sdxs", "text_encoder", "model.safetensors")
    with open(os.path.join(models, "diffusers", "loaders_sdxs", "model_index.json"), "w") as file:
        json.dump({"_class_name": "StableDiffusionPipeline"}, file)
    save(scaled, "diffusion_models", "loaders_sd3_scaled.safetensors")
    save(gligen, "gligen", "loaders_gligen.safetensors")
    redux = comfy.ldm.flux.redux.ReduxImageEncoder()
    save(lambda: half(filled(redux, 33)), "style_models", "loaders_redux.safetensors")  # the last that is made


if __name__ == "__main__":
    torch.manual_seed(0)
    main(*sys.argv[1:])
