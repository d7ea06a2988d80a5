"""Small models of every family in the true formats, seeded random weights. Run by ComfyUI's own Python.

python families.py COMFYUI_ROOT MODELS_FOLDER [names...]

Each is as narrow as the host's detection lets it be; where the host fixes the width (Chroma, Qwen-Image), it
is only shallow. The command makes each, samples three steps, and prints one line on it.
"""

import dataclasses
import importlib
import json
import logging
import operator
import os
import re
import sys
import time
import zlib
from collections.abc import Sequence

import torch

try:
    from .family import Family
    from .make_models import SD15_UNET, fill, sd3_config
    from .more_families import MORE
except ImportError:  # run as a script
    from family import Family
    from make_models import SD15_UNET, fill, sd3_config
    from more_families import MORE

UNET = "comfy.ldm.modules.diffusionmodules.openaimodel:UNetModel"
MMDIT = "comfy.ldm.modules.diffusionmodules.mmdit:MMDiT"
WAN = "comfy.ldm.wan.model:WanModel"
NEXT_DIT = "comfy.ldm.lumina.model:NextDiT"


def unet(context: int, **changes) -> dict:
    """A U-Net's config: the true levels and depths, but every level 320 wide."""
    narrow = {"channel_mult": [1, 1, 1, 1], "context_dim": context}
    return {**SD15_UNET, **narrow, **changes}


def heads_of_64(context: int, **changes) -> dict:
    return unet(context, num_heads=-1, num_head_channels=64, use_linear_in_transformer=True, **changes)


def unet_family(config: dict, tokens: int, pooled: int | None = None, **more) -> Family:
    text = {"tokens": tokens, "width": config["context_dim"], "pooled": pooled}
    more = {"latent": (1, 4, 16, 16), **more}
    blocks = ("input_blocks", "output_blocks")
    return Family("checkpoints", UNET, config, ("out.2.weight",), text=text, blocks=blocks, **more)


def dit(network: str, config: dict, last: str, latent: tuple, text: dict, blocks: str, **more) -> Family:
    return Family("diffusion_models", network, config, (last,), latent, text, tuple(blocks.split()), **more)


def text(tokens: int, width: int, pooled: int | None = None) -> dict:
    return {"tokens": tokens, "width": width, "pooled": pooled}


def mmdit_family(config: dict, **more) -> Family:
    latent, words = (1, 16, 16, 16), text(16, 4096, 2048)
    return dit(MMDIT, config, "final_layer.linear.weight", latent, words, "joint_blocks", **more)


def flux_config(width: int, double: int, single: int) -> dict:
    return {
        "in_channels": 16, "out_channels": 16, "patch_size": 2, "vec_in_dim": 768, "context_in_dim": 4096,
        "hidden_size": width, "mlp_ratio": 4.0, "num_heads": width // 128, "depth": double, "txt_ids_dims": [],
        "depth_single_blocks": single, "axes_dim": [16, 56, 56], "theta": 10000, "qkv_bias": True,
    }  # fmt: skip


FLUX2 = {
    **flux_config(256, 4, 8), "in_channels": 128, "out_channels": 128, "patch_size": 1, "vec_in_dim": None,
    "context_in_dim": 7680, "mlp_ratio": 3.0, "num_heads": 2, "txt_ids_dims": [3], "axes_dim": [32, 32, 32, 32],
    "theta": 2000, "qkv_bias": False, "guidance_embed": True, "global_modulation": True, "mlp_silu_act": True,
    "ops_bias": False, "default_ref_method": "index", "ref_index_scale": 10.0,
}  # fmt: skip

CHROMA = {
    **flux_config(3072, 2, 2), "in_channels": 64, "out_channels": 64, "vec_in_dim": None,
    "in_dim": 64, "out_dim": 3072, "hidden_dim": 5120, "n_layers": 5,
}  # fmt: skip

HUNYUAN_VIDEO = {
    "in_channels": 16, "out_channels": 16, "patch_size": [1, 2, 2], "vec_in_dim": 768, "context_in_dim": 4096,
    "hidden_size": 256, "mlp_ratio": 4.0, "num_heads": 2, "depth": 4, "depth_single_blocks": 8,
    "axes_dim": [16, 56, 56], "theta": 256, "qkv_bias": True, "guidance_embed": True, "byt5": False,
    "meanflow": False, "use_cond_type_embedding": False, "vision_in_dim": None, "meanflow_sum": False,
}  # fmt: skip


def wan_config(**changes) -> dict:
    common = {"dim": 256, "ffn_dim": 1024, "num_heads": 2, "num_layers": 6, "text_dim": 4096, "cross_attn_norm": True}
    return {"model_type": "t2v", "in_dim": 16, "out_dim": 16, **common, **changes}


KREA2 = {"features": 256, "txtdim": 320, "heads": 2, "kvheads": 1, "layers": 6, "txtlayers": 3}

LUMINA2 = {
    "patch_size": 2, "in_channels": 16, "dim": 2304, "cap_feat_dim": 2304, "n_layers": 4, "qk_norm": True,
    "n_heads": 24, "n_kv_heads": 8, "axes_dims": [32, 32, 32], "axes_lens": [300, 512, 512],
    "rope_theta": 10000.0, "ffn_dim_multiplier": 4.0,
}  # fmt: skip

Z_IMAGE = {
    **LUMINA2, "dim": 3840, "cap_feat_dim": 2560, "n_layers": 1, "n_heads": 30, "n_kv_heads": 30,
    "axes_dims": [32, 48, 48], "axes_lens": [1536, 512, 512], "rope_theta": 256.0, "ffn_dim_multiplier": 8.0 / 3.0,
    "z_image_modulation": True, "time_scale": 1000.0,
}  # fmt: skip

STABLE_AUDIO = {"audio_model": "dit1.0", "embed_dim": 768, "depth": 6}  # 24 heads, as the host fixes it
SECONDS = {
    f"conditioner.conditioners.seconds_{which}.embedder.embedding.{name}": shape
    for which in ("start", "total")
    for name, shape in (("0.weights", (128,)), ("1.weight", (768, 257)), ("1.bias", (768,)))
}
# LTX-2's layout, narrower; the host reads its widths from the file's metadata
LTXAV = {
    "num_layers": 4, "attention_head_dim": 16, "cross_attention_dim": 512, "audio_attention_head_dim": 8,
    "audio_cross_attention_dim": 256, "caption_channels": 256, "connector_num_attention_heads": 4,
    "connector_attention_head_dim": 64, "rope_type": "split", "frequencies_precision": "float64",
    "use_middle_indices_grid": True, "causal_temporal_positioning": True,
}  # fmt: skip
# its newer layout: gates on attention, modulated text, no bias in the middle
LTX25 = {
    "apply_gated_attention": True, "cross_attention_adaln": True, "caption_proj_before_connector": True,
    "ff_bias": False, "audio_ff_bias": False, "connector_attention_head_dim": 128,
    "audio_connector_attention_head_dim": 64,
}  # fmt: skip
# its window is 128 tokens, two of the latent's steps each
ACE15 = {
    "hidden_size": 256, "num_dit_layers": 4, "num_heads": 8, "intermediate_size": 512, "encoder_hidden_size": 2048,
    "encoder_intermediate_size": 512, "encoder_num_heads": 8,
}  # fmt: skip
PIXART = {"image_model": "pixart_sigma", "depth": 4, "model_max_length": 300, "micro_condition": False}

SCALE = ((r"(_norm|norms\.\d+)\.weight$", r"\1.scale"),)
TENCENT = (
    (r"txt_in\.t_embedder\.in_layer", "txt_in.t_embedder.mlp.0"),
    (r"txt_in\.t_embedder\.out_layer", "txt_in.t_embedder.mlp.2"),
    (r"txt_in\.c_embedder\.in_layer", "txt_in.c_embedder.linear_1"),
    (r"txt_in\.c_embedder\.out_layer", "txt_in.c_embedder.linear_2"),
    (r"^(time|guidance)_in\.in_layer", r"\1_in.mlp.0"),
    (r"^(time|guidance)_in\.out_layer", r"\1_in.mlp.2"),
    (r"(_mod|\.modulation)\.lin\.", r"\1.linear."),
    (r"_attn\.(qkv|proj)\.", r"_attn_\1."),
    (r"_attn\.norm\.(query|key)_norm\.", lambda m: f"_attn_{m[1][0]}_norm."),
    (r"\.norm\.(query|key)_norm\.", lambda m: f".{m[1][0]}_norm."),
    (r"mlp\.0\.(?=\w+$)(?<!_in\.mlp\.0\.)(?<!embedder\.mlp\.0\.)", "mlp.fc1."),
    (r"mlp\.2\.(?=\w+$)(?<!_in\.mlp\.2\.)(?<!embedder\.mlp\.2\.)", "mlp.fc2."),
)

SDXL = {
    "num_res_blocks": [2, 2, 2], "channel_mult": [1, 1, 1], "num_classes": "sequential", "adm_in_channels": 2816,
    "transformer_depth": [0, 0, 2, 2, 10, 10], "transformer_depth_middle": 2,
    "transformer_depth_output": [0, 0, 0, 1, 1, 1, 2, 2, 2],
}  # fmt: skip
SDXL_REFINER = {
    "model_channels": 384, "num_classes": "sequential", "adm_in_channels": 2560, "transformer_depth_middle": 1,
    "transformer_depth": [0, 0, 4, 4, 4, 4, 0, 0], "transformer_depth_output": [0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0],
}  # fmt: skip
MASKED = {"concat_latent_image": (1, 4, 16, 16), "concat_mask": (1, 1, 16, 16)}
WAN_I2V = {"model_type": "i2v", "in_dim": 36}
WAN_IMAGE = {
    "concat_latent_image": (1, 16, 3, 8, 8), "concat_mask": (1, 1, 3, 8, 8), "clip_vision_output": (1, 257, 1280),
}  # fmt: skip
VIDEO = (1, 16, 3, 8, 8)

FAMILIES: dict[str, Family] = {
    "flux": dit(
        "comfy.ldm.flux.model:Flux", {**flux_config(256, 4, 8), "guidance_embed": True}, "final_layer.linear.weight",
        (1, 16, 16, 16), text(16, 4096, 768), "double_blocks single_blocks", extra={"guidance": 3.5}, rename=SCALE,
    ),
    "wan21": dit(WAN, wan_config(), "head.head.weight", VIDEO, text(16, 4096), "blocks"),
    "qwen_image": dit(
        "comfy.ldm.qwen_image.model:QwenImageTransformer2DModel", {"num_layers": 3}, "proj_out.weight",
        (1, 16, 1, 16, 16), text(16, 3584), "transformer_blocks", note="the host fixes its width at 3072",
    ),
    "chroma": dit(
        "comfy.ldm.chroma.model:Chroma", CHROMA, "final_layer.linear.weight", (1, 16, 16, 16), text(16, 4096),
        "double_blocks single_blocks", rename=SCALE, note="the host fixes its width at 3072",
    ),
    "hunyuan_video": dit(
        "comfy.ldm.hunyuan_video.model:HunyuanVideo", HUNYUAN_VIDEO, "final_layer.linear.weight", VIDEO,
        text(16, 4096, 768), "double_blocks single_blocks", extra={"guidance": 6.0}, rename=TENCENT,
    ),
    "ltxv": dit(
        "comfy.ldm.lightricks.model:LTXVModel",
        {"num_layers": 6, "attention_head_dim": 16, "cross_attention_dim": 512}, "proj_out.weight",
        (1, 128, 3, 8, 8), text(16, 4096), "transformer_blocks",
        extra={"frame_rate": 25, "attention_mask": (1, 16)},
    ),
    "ltxav": Family(
        "diffusion_models", "comfy.ldm.lightricks.av_model:LTXAVModel", LTXAV,
        ("proj_out.weight", "audio_proj_out.weight"), (1, 128, 3, 8, 8), text(16, 256), ("transformer_blocks",),
        extra={"frame_rate": 25, "unprocessed_ltxav_embeds": True}, told=True, note="its latent here has no sound",
    ),
    "sdxl": unet_family(heads_of_64(2048, **SDXL), 77, 1280, note="true input depths, the others shallower"),
    "sd21": unet_family(heads_of_64(1024), 77, note="v-prediction, told by the last block's norm"),
    "sd15_inpaint": unet_family(unet(768, in_channels=9), 77, extra=MASKED),
    "sdxl_refiner": unet_family(
        heads_of_64(1280, **SDXL_REFINER), 77, 1280, note="true input depths, the others shallower"
    ),
    "sd15": unet_family(unet(768), 8, 768),
    "sd15_large": unet_family(SD15_UNET, 8, 768, seed=15, file="sd15_random", note="true size: 1.7 GB"),
    "sd3": mmdit_family(sd3_config(4)),
    "sd35": mmdit_family({**sd3_config(4), "qk_norm": "rms", "x_block_self_attn_layers": [0, 1]}),
    "wan21_i2v": dit(WAN, wan_config(**WAN_I2V), "head.head.weight", VIDEO, text(16, 4096), "blocks", extra=WAN_IMAGE),
    "flux2": dit(
        "comfy.ldm.flux.model:Flux", FLUX2, "final_layer.linear.weight", (1, 128, 8, 8), text(16, 7680),
        "double_blocks single_blocks", extra={"guidance": 4.0}, rename=SCALE, note="the host pads its text to 512",
    ),
    "krea2": dit(
        "comfy.ldm.krea2.model:SingleStreamDiT", KREA2, "last.linear.weight", (1, 16, 1, 16, 16), text(16, 960),
        "blocks", note="offers no block hook",
    ),
    "auraflow": dit(
        "comfy.ldm.aura.mmdit:MMDiT", {"n_double_layers": 1, "n_layers": 4}, "final_linear.weight",
        (1, 4, 16, 16), text(16, 2048), "double_layers single_layers", note="the host fixes its width at 3072",
    ),
    "lumina2": dit(
        NEXT_DIT, LUMINA2, "final_layer.linear.weight", (1, 16, 16, 16), text(16, 2304),
        "layers", note="offers no block hook; the host knows widths 2304 and 3840 (Z-Image) only",
    ),
    "z_image": dit(
        NEXT_DIT, Z_IMAGE, "final_layer.linear.weight", (1, 16, 16, 16), text(16, 2560), "layers",
        note="offers no block hook",
    ),
    "wan22_i2v": dit(
        WAN, wan_config(in_dim=36), "head.head.weight", VIDEO, text(16, 4096), "blocks",
        extra={key: WAN_IMAGE[key] for key in ("concat_latent_image", "concat_mask")}, note="one of the two experts",
    ),
    "wan22_i2v_low": dit(
        WAN, wan_config(in_dim=36), "head.head.weight", VIDEO, text(16, 4096), "blocks",
        extra={key: WAN_IMAGE[key] for key in ("concat_latent_image", "concat_mask")}, note="the other one",
    ),
    "wan22_t2v_low": dit(WAN, wan_config(), "head.head.weight", VIDEO, text(16, 4096), "blocks"),
    "wan22_5b": dit(
        WAN, wan_config(in_dim=48, out_dim=48), "head.head.weight", (1, 48, 3, 8, 8), text(16, 4096), "blocks"
    ),
    "sd21_unclip": unet_family(
        heads_of_64(1024, num_classes="sequential", adm_in_channels=1536), 77,
        extra={"unclip_conditioning": (1, 768)},
    ),
    "stable_audio": Family(
        "checkpoints", "comfy.ldm.audio.dit:AudioDiffusionTransformer", STABLE_AUDIO,
        ("transformer.project_out.weight",), (1, 64, 32), text(16, 768), ("transformer.layers",),
        prefix="model.model.", beside=SECONDS,
    ),
    "ace15": dit(
        "comfy.ldm.ace.ace_step15:AceStepConditionGenerationModel", ACE15, "decoder.proj_out.1.weight", (1, 64, 400),
        text(16, 1024), "decoder.layers", extra={"conditioning_lyrics": (1, 12, 1024)},
        note="as more_families' ace15, in a file that the host knows: it fixes its encoder's width at 2048",
    ),
    "pixart": dit(
        "comfy.ldm.pixart.pixartms:PixArtMS", PIXART, "final_layer.linear.weight", (1, 4, 40, 40), text(16, 4096),
        "blocks", file="family_pixart_4", note="offers no block hook; the host fixes its width at 1152",
    ),
}  # fmt: skip


FAMILIES |= MORE
FAMILIES["ltx2"] = dataclasses.replace(FAMILIES["ltxav"], nested=((1, 8, 24, 16),), note="")
FAMILIES["ltx25"] = dataclasses.replace(FAMILIES["ltx2"], config={**LTXAV, **LTX25})
FAMILIES["wan_causal"] = dataclasses.replace(FAMILIES["wan21"], told={"causal_ar": True})
FAMILIES["lotus"] = unet_family(heads_of_64(1024, num_classes="sequential", adm_in_channels=4), 77)


def host(root: str) -> None:
    """Make ComfyUI importable, on the CPU where there is no GPU."""
    if root not in sys.path:
        sys.path.insert(0, root)
    if "comfy.model_management" not in sys.modules:
        import comfy.cli_args

        comfy.cli_args.args.cpu = comfy.cli_args.args.cpu or not torch.cuda.is_available()


def weights(name: str, family: Family) -> dict:
    """The model's state dict, as its file has it, in half precision."""
    import comfy.ops

    generator = torch.Generator().manual_seed(0)
    tensors = {key: torch.randn(shape, generator=generator).half() / 16 for key, shape in family.beside.items()}
    if family.model:
        model = from_class(family, dict(tensors)).diffusion_model.requires_grad_(False)
    else:
        module, network = family.network.split(":")
        make = {"dtype": torch.float32, "device": "cpu", "operations": comfy.ops.disable_weight_init}
        model = getattr(importlib.import_module(module), network)(**family.config, **make)
    fill(model, zlib.crc32(name.encode()) if family.seed is None else family.seed, family.last)
    if family.model:
        fill_buffers(model, generator)
    for key, value in model.state_dict().items():
        for pattern, new in family.rename:
            key = re.sub(pattern, new, key)
        if key == "pos_embed":  # a buffer, so `fill` passed it by
            value = 0.1 * torch.randn(value.shape, generator=generator)
        if key.endswith(".gamma"):  # a norm's, which `fill` took for a bias
            value = value + 1
        if key.endswith("rotary_pos_emb.inv_freq"):  # a buffer that only the file fills
            value = 10000.0 ** (-torch.arange(len(value)) / len(value))
        if name == "sd21" and key == "output_blocks.11.1.transformer_blocks.0.norm1.bias":
            value = value * 10  # a spread above 0.09 there is how the host knows v-prediction
        tensors[family.prefix * (family.kind == "checkpoints") + key] = value.half()
    return tensors


def from_class(family: Family, state: dict):
    """The host's own model of the family's class and config, its weights not yet filled."""
    import comfy.supported_models

    config = getattr(comfy.supported_models, family.model)(dict(family.config))
    config.unet_config.update(family.config, dtype=torch.float32)  # over what the class fixes
    model = config.get_model(state, "", device="cpu")
    if family.shallow is not None:
        for name in family.blocks:
            del operator.attrgetter(name)(model.diffusion_model)[family.shallow :]
    return model


def fill_buffers(network: torch.nn.Module, generator: torch.Generator) -> None:
    """What only a network's file fills."""
    kept = network.state_dict()
    for name, value in network.named_buffers():
        if name not in kept or not value.is_floating_point():
            continue
        if name.endswith("inv_freq"):
            value.copy_(10000.0 ** (-torch.arange(len(value)) / len(value)))
        elif name.endswith("beta"):
            value.zero_()
        else:
            value.copy_(torch.randn(value.shape, generator=generator))


def make(root: str, models: str, name: str) -> str:
    """Write the family's model file if it is not there; its path."""
    family = FAMILIES[name]
    path = os.path.join(models, family.kind, f"{family.stem(name)}.safetensors")
    if not os.path.exists(path):
        host(root)
        from safetensors.torch import save_file

        os.makedirs(os.path.dirname(path), exist_ok=True)
        told = family.config if family.told is True else family.told
        metadata = {"config": json.dumps({"transformer": told})} if told else None
        save_file(weights(name, family), path + ".part", metadata=metadata)
        os.replace(path + ".part", path)
    return path


def load(path: str, family: Family):
    """The host's own loading of the file: a ModelPatcher."""
    import comfy.sd
    import folder_paths

    for kind in ("checkpoints", "diffusion_models"):  # both before a worker starts: it is told then
        folder_paths.add_model_folder_path(kind, os.path.join(os.path.dirname(path), os.pardir, kind))
    if family.narrow:
        return load_narrow(path, family)
    if family.kind == "checkpoints":
        return comfy.sd.load_checkpoint_guess_config(path, output_vae=False, output_clip=False)[0]
    return comfy.sd.load_diffusion_model(path)


def load_narrow(path: str, family: Family):
    """A ModelPatcher around a model that the host would take for another one by its file."""
    import comfy.model_management
    import comfy.model_patcher
    import comfy.utils

    state = comfy.utils.load_torch_file(path)
    model = from_class(family, state)
    model.diffusion_model.load_state_dict(state)
    patcher = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    return patcher(model, comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device())


def latent(family: Family, generator: torch.Generator | None = None, batch: int = 1):
    """A random latent of the family, or an empty one: a nested tensor where it has several."""
    shapes = [(batch * shape[0], *shape[1:]) for shape in (family.latent, *family.nested)]
    parts = [torch.zeros(s) if generator is None else torch.randn(s, generator=generator) for s in shapes]
    if not family.nested:
        return parts[0]
    import comfy.nested_tensor

    return comfy.nested_tensor.NestedTensor(parts)


def conditioning(family: Family, seed: int) -> list:
    """A random conditioning such as the family's text encoder and nodes give."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    def value_of(value: object) -> object:
        if isinstance(value, list) and all(isinstance(one, tuple) for one in value):
            return [random(*shape) for shape in value]
        if isinstance(value, list) and not isinstance(value[0], int):
            return torch.tensor(value)
        return random(*value) if isinstance(value, tuple) else value

    hidden = random(1, family.text["tokens"], family.text["width"])
    extra = {"pooled_output": random(1, family.text["pooled"])} if family.text["pooled"] else {}
    for key, value in family.extra.items():
        extra[key] = value_of(value)
        if isinstance(value, list) and isinstance(value[0], int):  # token ids: other words for each seed
            extra[key] = torch.tensor([[one + seed if 99 < one < 800 else one for one in value]])
        if key == "condition":  # SeedVR2's picture, which both prompts have
            extra[key] = torch.randn(value, generator=torch.Generator().manual_seed(0))
        if key.startswith("attention_mask") and isinstance(value, tuple):  # the last quarter of the text is padding
            extra[key] = (torch.arange(value[-1]) < value[-1] * 3 // 4).long().expand(value)
        elif key.endswith("mask") and isinstance(value, tuple):
            extra[key] = (extra[key] > 0).float()
        if key in ("clip_vision_output", "unclip_conditioning"):
            import comfy.clip_vision

            output = comfy.clip_vision.Output()
            output.penultimate_hidden_states = output.image_embeds = extra[key]
            extra[key] = output
        if key == "unclip_conditioning":
            extra[key] = [{"clip_vision_output": output, "strength": 1.0, "noise_augmentation": 0.1}]
    return [[hidden, extra]]


def sample(model, family: Family, steps: int = 3, cfg: float = 3.0) -> torch.Tensor:
    """What KSampler makes of an empty latent, seed 0."""
    import comfy.sample

    empty = latent(family)
    noise = comfy.sample.prepare_noise(empty, 0)
    positive, negative = conditioning(family, 1), conditioning(family, 2)
    how = {"seed": 0, "disable_pbar": True}
    return comfy.sample.sample(model, noise, steps, cfg, "euler", "simple", positive, negative, empty, **how)


def blocks(model, family: Family) -> list[int]:
    """How many blocks each of the network's lists has."""
    network = model.model.diffusion_model
    return [len(operator.attrgetter(attribute)(network)) for attribute in family.blocks]


def hooks(model, family: Family) -> dict[str, tuple[int, Sequence[str]]]:
    """The block hooks that the forward offers: how many of each, and the names in their outputs."""
    seen: dict[tuple[str, int], tuple[str, ...]] = {}
    model = model.clone()

    def watch(kind: str, index: int):
        def patch(args: dict, more: dict) -> dict:
            out = more["original_block"](args)
            seen[kind, index] = tuple(sorted(out))
            return out

        return patch

    for kind in ("double_block", "single_block"):
        for index in range(sum(blocks(model, family))):
            model.set_model_patch_replace(watch(kind, index), "dit", kind, index)
    sample(model, family, steps=1, cfg=1.0)
    kinds = {kind for kind, _ in seen}
    return {
        kind: (sum(k == kind for k, _ in seen), sorted({n for (k, _), out in seen.items() if k == kind for n in out}))
        for kind in sorted(kinds)
    }


class Complaints(logging.Handler):
    """Keeps what the host says of weights it misses or does not know."""

    def __init__(self):
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        if re.search("missing|unexpected|left over", line):
            self.lines.append(line[:300])


def main(root: str, models: str, *names: str) -> None:
    host(root)
    said = Complaints()
    logging.getLogger().addHandler(said)
    print("name | MB | M parameters | blocks | seconds to load | seconds a step | std | finite | class | hooks")
    for name in names or FAMILIES:
        family = FAMILIES[name]
        said.lines.clear()
        path = make(root, models, name)
        start = time.perf_counter()
        model = load(path, family)
        loaded = time.perf_counter()
        out = sample(model, family)
        step = (time.perf_counter() - loaded) / 3
        shape = "" if family.nested or tuple(out.shape) == family.latent else f" SHAPE {tuple(out.shape)}"
        out = torch.cat([part.flatten() for part in (out.unbind() if family.nested else [out])])
        count = sum(p.numel() for p in model.model.diffusion_model.parameters()) / 1e6
        offers = [f"{kind} x{n} ({', '.join(names)})" for kind, (n, names) in hooks(model, family).items()]
        config, kind = type(model.model.model_config).__name__, model.model.model_type.name
        print(
            f"{name} | {os.path.getsize(path) / 1e6:.0f} | {count:.1f} | {blocks(model, family)} | "
            f"{loaded - start:.1f} | {step:.2f} | {out.std():.3f} | {bool(out.isfinite().all())}{shape} | "
            f"{config} {kind} {model.model.get_dtype_inference()} | {'; '.join(offers) or 'none'}",
            *said.lines, sep="\n  ", flush=True,
        )  # fmt: skip
        del model


if __name__ == "__main__":
    main(*sys.argv[1:])
