"""Make ControlNets and a T2I adapter for the host tests' models. Run by ComfyUI's own Python.

python make_controls.py COMFYUI_ROOT MODELS_FOLDER small|large

small: of SD 1.5 for the narrow U-Net, and of SD3. large: the union ControlNet and the adapter, whose widths the host
fixes, for the true U-Net.
"""

import os
import sys

import torch

try:
    from .make_models import SD15_NARROW, SD15_UNET, fill, sd3_config
except ImportError:  # run as a script
    from make_models import SD15_NARROW, SD15_UNET, fill, sd3_config

CONTROL_TYPES = 6


def main(root: str, models: str, size: str) -> None:
    sys.path.insert(0, root)
    import comfy.cli_args

    comfy.cli_args.args.cpu = True
    import comfy.cldm.cldm
    import comfy.cldm.dit_embedder
    import comfy.cldm.mmdit
    import comfy.ops
    import comfy.t2i_adapter.adapter
    import comfy.utils
    from safetensors.torch import save_file

    make = {"dtype": torch.float32, "device": "cpu", "operations": comfy.ops.disable_weight_init}

    def save(tensors: dict, name: str) -> None:
        path = os.path.join(models, "controlnet", f"{name}.safetensors")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        save_file({key: value.half().contiguous() for key, value in tensors.items()}, path + ".part")
        os.replace(path + ".part", path)

    def control_of(unet: dict, **more: int) -> torch.nn.Module:
        shape = {key: value for key, value in unet.items() if key not in ("out_channels", "transformer_depth_output")}
        return comfy.cldm.cldm.ControlNet(**shape, hint_channels=3, **make, **more)

    if size == "large":
        union = control_of(SD15_UNET, union_controlnet_num_control_type=CONTROL_TYPES)
        fill(union, seed=23, last=())
        weights = union.state_dict()
        # as diffusers names it: the host knows a union ControlNet by these names
        names = {value: key for key, value in comfy.utils.unet_to_diffusers(SD15_UNET).items()}
        names |= {f"middle_block_out.0.{end}": f"controlnet_mid_block.{end}" for end in ("weight", "bias")}
        for end in ("weight", "bias"):
            names |= {f"zero_convs.{i}.0.{end}": f"controlnet_down_blocks.{i}.{end}" for i in range(12)}
            names |= {
                f"input_hint_block.{2 * i}.{end}": f"controlnet_cond_embedding.blocks.{i - 1}.{end}"
                for i in range(1, 7)
            }
            names |= {f"input_hint_block.0.{end}": f"controlnet_cond_embedding.conv_in.{end}"}
            names |= {f"input_hint_block.14.{end}": f"controlnet_cond_embedding.conv_out.{end}"}
        save(
            {names.get(key, key.replace(".attn.in_proj.", ".attn.in_proj_")): w for key, w in weights.items()},
            "sd15_union",
        )

        adapter = comfy.t2i_adapter.adapter.Adapter(
            cin=192, channels=[320, 640, 1280, 1280], nums_rb=2, ksize=1, sk=True, use_conv=False
        )
        fill(adapter, seed=24, last=())
        save(adapter.state_dict(), "sd15_t2i")
        return

    generator = torch.Generator().manual_seed(22)
    depth, blocks = 4, 2
    model = comfy.cldm.mmdit.ControlNet(num_blocks=blocks, control_latent_channels=16, **sd3_config(depth), **make)
    fill(model, seed=25, last=())
    weights, found = model.state_dict(), {}
    for name, place in comfy.utils.mmdit_to_diffusers({"depth": depth, "num_blocks": blocks}).items():
        key, part = (place, None) if isinstance(place, str) else (place[0], place[1])
        if key in weights and (isinstance(place, str) or len(place) < 3):
            found[name] = weights[key] if part is None else weights[key].narrow(*part)
    found |= {key: w for key, w in weights.items() if key.startswith(("controlnet_blocks", "pos_embed_input"))}
    found["pos_embed"] = 0.1 * torch.randn(1, 64 * 64, 64 * depth, generator=generator)
    save(found, "sd3")

    model = comfy.cldm.dit_embedder.ControlNetEmbedder(
        img_size=None, patch_size=2, in_chans=16, num_layers=blocks, main_model_double=depth, double_y_emb=False,
        attention_head_dim=64, num_attention_heads=depth, adm_in_channels=2048, **make,
    )  # fmt: skip
    fill(model, seed=26, last=())
    save(model.state_dict(), "sd35")

    model = control_of(SD15_NARROW)
    fill(model, seed=21, last=())
    weights = model.state_dict()
    save(weights, "sd15_narrow")

    # a Control-LoRA has whole what a U-Net lacks, and small changes of what it has
    own = {
        key: w for key, w in weights.items() if key.startswith(("input_hint_block", "zero_convs", "middle_block_out"))
    }
    for name in ("input_blocks.1.1.proj_in", "middle_block.1.transformer_blocks.0.attn1.to_q"):
        out, within = weights[f"{name}.weight"].shape[:2]
        own[f"{name}.up"] = torch.randn(out, 4, generator=generator) / 8
        own[f"{name}.down"] = torch.randn(4, within, generator=generator) / 8
    save({"lora_controlnet": torch.zeros(1), **own}, "sd15_narrow_lora")


if __name__ == "__main__":
    torch.manual_seed(0)
    main(*sys.argv[1:])
