"""Networks that are no family of families.py, divided by tokens as token_split.py does it. Run by ComfyUI's own Python.

    python token_networks.py COMFYUI_ROOT MODELS_FOLDER

Reads a name a line and prints a line of JSON for it. The networks are small and random, and called without the rest
of their models.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

COSMOS = {
    "max_img_h": 240, "max_img_w": 240, "max_frames": 128, "in_channels": 16, "out_channels": 16, "patch_spatial": 2,
    "patch_temporal": 1, "concat_padding_mask": True, "model_channels": 256, "num_blocks": 4, "num_heads": 2,
    "crossattn_emb_channels": 64, "pos_emb_cls": "rope3d", "use_adaln_lora": True, "adaln_lora_dim": 64,
    "rope_h_extrapolation_ratio": 4.0, "rope_w_extrapolation_ratio": 4.0,
}  # fmt: skip
BOOGU = {
    "hidden_size": 480, "num_layers": 2, "num_double_stream_layers": 2, "num_refiner_layers": 1,
    "num_attention_heads": 4, "num_kv_heads": 2, "instruction_feat_dim": 64,
}  # fmt: skip
OMNIGEN = {
    "hidden_size": 384, "num_layers": 3, "num_refiner_layers": 1, "num_attention_heads": 4, "num_kv_heads": 2,
    "text_feat_dim": 64,
}  # fmt: skip
IDEOGRAM = {
    "num_layers": 3, "num_attention_heads": 2, "attention_head_dim": 128, "intermediate_size": 256, "adaln_dim": 64,
    "llm_features_dim": 64,
}  # fmt: skip
COGVIDEO = {
    "num_attention_heads": 2, "num_layers": 3, "text_embed_dim": 64, "use_rotary_positional_embeddings": True,
}  # fmt: skip
HUNYUAN3D = {"context_in_dim": 64, "hidden_size": 128, "num_heads": 2, "depth": 2, "depth_single_blocks": 2}
HUNYUAN3D_21 = {
    "hidden_size": 128, "context_dim": 64, "depth": 5, "num_heads": 2, "num_moe_layers": 1,
    "guidance_cond_proj_dim": None,
}  # fmt: skip
LENS = {"num_layers": 3, "attention_head_dim": 64, "num_attention_heads": 2, "enc_hidden_dim": 64}
JOY = {"hidden_size": 256, "num_attention_heads": 2, "text_dim": 64, "num_layers": 3}
MAGE = {"num_layers": 3, "num_attention_heads": 2, "joint_attention_dim": 64}
WAN = {
    "dim": 256, "ffn_dim": 512, "num_heads": 2, "num_layers": 4, "text_dim": 64, "in_dim": 16, "out_dim": 16,
}  # fmt: skip

HIDREAM = {
    "patch_size": 2, "in_channels": 16, "num_layers": 2, "num_single_layers": 2, "attention_head_dim": 128,
    "num_attention_heads": 2, "caption_channels": [64, 64], "text_emb_dim": 64, "llama_layers": [0, 1, 2, 3],
    "axes_dims_rope": [64, 32, 32],
}  # fmt: skip
ACE15 = {
    "in_channels": 48, "hidden_size": 64, "text_hidden_dim": 64, "timbre_hidden_dim": 16, "num_dit_layers": 4,
    "audio_acoustic_hidden_dim": 16, "num_lyric_layers": 1, "num_timbre_layers": 1, "num_tokenizer_layers": 1,
    "num_heads": 4, "num_kv_heads": 2, "head_dim": 16, "intermediate_size": 128, "sliding_window": 7, "fsq_dim": 64,
    "encoder_hidden_size": 64, "encoder_intermediate_size": 128, "encoder_num_heads": 4,
}  # fmt: skip
ERNIE = {
    "hidden_size": 128, "num_attention_heads": 2, "num_layers": 3, "ffn_hidden_size": 256, "text_in_dim": 64,
    "rope_axes_dim": (16, 24, 24),
}  # fmt: skip
PIXART = {"depth": 3, "hidden_size": 144, "num_heads": 2, "caption_channels": 64, "micro_condition": False}
QWEN = {
    "num_layers": 3, "attention_head_dim": 32, "num_attention_heads": 2, "joint_attention_dim": 64,
    "axes_dims_rope": (8, 12, 12),
}  # fmt: skip
MINIMAX = {
    "hidden_size": 128, "num_layers": 3, "num_attention_heads": 2, "attention_head_dim": 128, "ffn_hidden_size": 192,
    "text_dim": 64, "time_embed_hidden_size": 64, "time_embed_dim": 64,
}  # fmt: skip
SEEDVR = {
    "norm_eps": 1e-5, "num_layers": 4, "mlp_type": "swiglu", "vid_dim": 128, "txt_in_dim": 64, "heads": 2,
    "head_dim": 64, "mm_layers": 2, "rope_dim": 64, "vid_out_norm": True,
}  # fmt: skip
O1 = {
    "text_config_overrides": {
        "vocab_size": 151680, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3,
        "num_attention_heads": 2, "num_key_value_heads": 1,
    },
    "vision_config_overrides": {
        "hidden_size": 64, "num_heads": 2, "intermediate_size": 64, "depth": 1, "num_position_embeddings": 16,
    },
}  # fmt: skip
NEXT_DIT = {
    "patch_size": 2, "in_channels": 16, "dim": 256, "cap_feat_dim": 64, "n_layers": 6, "qk_norm": True, "n_heads": 4,
    "n_kv_heads": 4, "axes_dims": [16, 24, 24], "axes_lens": [300, 512, 512], "rope_theta": 256.0,
    "ffn_dim_multiplier": 1.0, "z_image_modulation": True, "time_scale": 1000.0,
}  # fmt: skip
SCAIL = {"dim": 256, "ffn_dim": 512, "num_heads": 2, "num_layers": 4, "text_dim": 64, "in_dim": 20}

AUDIO3 = {
    "cond_token_dim": 64, "global_cond_dim": 64, "embed_dim": 256, "num_heads": 4, "depth": 3, "io_channels": 16,
    "attn_kwargs": {"qk_norm": "rms", "differential": True}, "norm_type": "rms_norm", "global_cond_type": "adaLN",
    "timestep_features_type": "expo", "local_add_cond_dim": 17, "global_cond_shared_embed": True,
    "num_memory_tokens": 8,
}  # fmt: skip


@dataclass(frozen=True)
class Network:
    """Its class, its config, and what its forward is given; tuples of whole numbers are random tensors' shapes."""

    network: str
    config: dict
    latent: tuple[int, ...]
    context: tuple[int, ...]
    more: dict = field(default_factory=dict)
    patches: str = ""  # of token_patches.py
    options: dict = field(default_factory=dict)


IMAGE, FRAMES, TEXT = (1, 16, 16, 12), (1, 16, 3, 8, 10), (1, 16, 64)
MASK = {"attention_mask": "mask"}
NETWORKS = {
    "anima": Network("comfy.ldm.cosmos.predict2:MiniTrainDIT", COSMOS, (1, 16, 1, 16, 12), TEXT),
    "cosmos_predict2_video": Network("comfy.ldm.cosmos.predict2:MiniTrainDIT", COSMOS, FRAMES, TEXT),
    "boogu": Network("comfy.ldm.boogu.model:BooguTransformer2DModel", BOOGU, IMAGE, TEXT, {"num_tokens": 16}),
    "omnigen2": Network("comfy.ldm.omnigen.omnigen2:OmniGen2Transformer2DModel", OMNIGEN, IMAGE, TEXT,
                        {"num_tokens": 16}),
    "ideogram4": Network("comfy.ldm.ideogram4.model:Ideogram4Transformer2DModel", IDEOGRAM, (1, 128, 8, 6), TEXT),
    "cogvideo": Network("comfy.ldm.cogvideo.model:CogVideoXTransformer3DModel", COGVIDEO, FRAMES, TEXT),
    "hunyuan3d": Network("comfy.ldm.hunyuan3d.model:Hunyuan3Dv2", HUNYUAN3D, (1, 64, 50), TEXT),
    "hunyuan3d_21": Network("comfy.ldm.hunyuan3dv2_1.hunyuandit:HunYuanDiTPlain", HUNYUAN3D_21, (2, 64, 50),
                            (2, 16, 64)),
    "lens": Network("comfy.ldm.lens.model:LensTransformer2DModel", LENS, (1, 128, 8, 6), (1, 16, 256)),
    "lens_mask": Network("comfy.ldm.lens.model:LensTransformer2DModel", LENS, (1, 128, 8, 6), (1, 16, 256), MASK),
    "joyimage": Network("comfy.ldm.joyimage.model:JoyImageTransformer3DModel", JOY, (1, 16, 1, 16, 12), TEXT),
    "mage_flow": Network("comfy.ldm.mage_flow.model:MageFlowTransformer2DModel", MAGE, (1, 128, 8, 6), TEXT),
    "mage_flow_mask": Network("comfy.ldm.mage_flow.model:MageFlowTransformer2DModel", MAGE, (1, 128, 8, 6), TEXT,
                              MASK),
    "wan_vace": Network("comfy.ldm.wan.model:VaceWanModel", {**WAN, "vace_layers": 2, "vace_in_dim": 32}, FRAMES, TEXT,
                        {"vace_context": (1, 1, 32, 3, 8, 10), "vace_strength": [1.0]}),
    "wan_camera": Network("comfy.ldm.wan.model:CameraWanModel", {**WAN, "model_type": "camera", "in_dim": 32},
                          (1, 32, 3, 8, 10), TEXT),
    "stable_audio_3": Network("comfy.ldm.audio.dit:AudioDiffusionTransformer", AUDIO3, (1, 16, 40), TEXT,
                              {"global_embed": (1, 64), "local_add_cond": (1, 17, 40)}),
    "wan_bernini": Network("comfy.ldm.wan.model:WanModel", WAN, FRAMES, TEXT,
                           {"context_latents": [(1, 16, 3, 8, 10), (1, 16, 1, 8, 8)]}),
    "wan_humo": Network("comfy.ldm.wan.model:HumoWanModel", WAN, FRAMES, TEXT,
                        {"audio_embed": (1, 3, 8, 5, 1280), "reference_latent": (1, 16, 1, 8, 10)}),
    "wan_scail2": Network("comfy.ldm.wan.model:SCAIL2WanModel", SCAIL, (1, 20, 3, 8, 10), TEXT,
                          {"reference_latent": (1, 20, 1, 8, 10), "pose_latents": (1, 20, 3, 4, 6)}),
    "wan_s2v": Network("comfy.ldm.wan.model:WanModel_S2V",
                       {**WAN, "audio_dim": 64, "audio_inject_layers": [0, 2], "num_audio_token": 4}, FRAMES, TEXT,
                       {"audio_embed": (1, 25, 64, 12)}),
    "ace15": Network("comfy.ldm.ace.ace_step15:AceStepConditionGenerationModel", ACE15, (1, 16, 45), TEXT,
                     {"lyric_embed": (1, 12, 64), "refer_audio": (1, 16, 45), "is_covers": False}),
    "ernie": Network("comfy.ldm.ernie.model:ErnieImageModel", ERNIE, (1, 128, 8, 6), TEXT),
    "qwen_zero": Network("comfy.ldm.qwen_image.model:QwenImageTransformer2DModel", QWEN, (1, 16, 1, 16, 12), TEXT,
                         {"ref_latents": [(1, 16, 1, 8, 10), (1, 16, 1, 6, 6)],
                          "ref_latents_method": "index_timestep_zero"}),
    "minimax_h3": Network("comfy.ldm.minimax.model:MiniMaxH3Model", MINIMAX, [(1, 24, 3, 8, 10), (1, 32, 2, 20)], TEXT),
    "seedvr2": Network("comfy.ldm.seedvr.model:NaDiT", SEEDVR, (1, 16, 3, 12, 10), (1, 8, 64),
                       {"condition": (1, 17, 3, 12, 10)}, options={"cond_or_uncond": [0]}),
    "hidream_o1": Network("comfy.ldm.hidream_o1.model:HiDreamO1Transformer", O1, (1, 3, 192, 128), TEXT,
                          {"input_ids": "ids", "position_ids": "positions", "ar_len": 11}),
    "z_image_control": Network("comfy.ldm.lumina.model:NextDiT", NEXT_DIT, IMAGE, TEXT, {"num_tokens": 16},
                               patches="z_image_control"),
    "qwen_diffsynth": Network("comfy.ldm.qwen_image.model:QwenImageTransformer2DModel", QWEN, (1, 16, 1, 16, 12), TEXT,
                              patches="qwen_diffsynth"),
    "wan_talk": Network("comfy.ldm.wan.model:WanModel", {**WAN, "dim": 320, "num_heads": 2}, FRAMES, TEXT,
                        patches="wan_talk", options={"audio_embeds": (3, 8, 32)}),
    "anima_lllite": Network("comfy.ldm.cosmos.predict2:MiniTrainDIT", COSMOS, (1, 16, 1, 16, 12), TEXT,
                            patches="anima_lllite"),
    "hidream": Network("comfy.ldm.hidream.model:HiDreamImageTransformer2DModel", HIDREAM, IMAGE, (1, 64),
                       {"context": (1, 16, 64), "encoder_hidden_states_llama3": (1, 4, 16, 64)}),
}  # fmt: skip


def value_of(value: object, generator):
    import torch

    if value == "mask":
        return (torch.arange(16) < 12).long()[None]
    if value == "ids":  # eleven of a text, and what stands for the timestep
        return torch.cat([torch.randint(1000, (1, 11), generator=generator), torch.tensor([[151673]])], 1)
    if value == "positions":
        return torch.randint(40, (1, 3, 12 + 24), generator=generator)
    if isinstance(value, tuple):
        return torch.randn(value, generator=generator)
    return [value_of(one, generator) for one in value] if isinstance(value, list) else value


def run(name: str, host) -> dict:
    import comfy.ops
    import comfy.utils
    import torch
    from comfy.patcher_extension import WrapperExecutor, WrappersMP, get_all_wrappers
    from hybridiff_pack.hybridiff_core.network.tokens import Look

    asked = NETWORKS[name]
    module, cls = asked.network.split(":")
    if importlib.util.find_spec(module) is None:
        return {"case": name, "missing": module}
    make = {"dtype": torch.float32, "device": "cpu", "operations": comfy.ops.disable_weight_init}
    network = getattr(importlib.import_module(module), cls)(**asked.config, **make).eval()
    make_models.fill(network.requires_grad_(False), 1, ())
    holder = torch.nn.Module()
    holder.diffusion_model = network
    patcher = SimpleNamespace(model=holder, object_patches={})
    patcher.add_object_patch = patcher.object_patches.__setitem__
    host.block_hooks.offer(patcher)
    for key, value in patcher.object_patches.items():
        comfy.utils.set_attr(holder, key, value)
    generator = torch.Generator().manual_seed(3)
    x, context = (value_of(shape, generator) for shape in (asked.latent, asked.context))
    more = {key: value_of(value, generator) for key, value in asked.more.items()}
    patches = getattr(token_patches, asked.patches)(make, make_models.fill, generator) if asked.patches else {}
    told = {key: value_of(value, generator) for key, value in asked.options.items()}
    splitter = host.cuts.splitter_for(network)

    def here(units: list, through=None, patched: bool = bool(patches)) -> dict:
        given = {"patches": token_patches.own(patches), "model_patch_data": {}} if patched else {}
        options: dict = {"transformer_options": {**given, **told}}
        if through is not None:
            options = host.cuts.hooked(options, splitter, through)
        time = torch.full((len(context),), 0.7)
        given = {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in more.items()}
        given["transformer_options"] = options["transformer_options"]
        around = get_all_wrappers(WrappersMP.APPLY_MODEL, options["transformer_options"])
        latent = [row.clone() for row in x] if isinstance(x, list) else x.clone()
        out = WrapperExecutor.new_executor(network, around).execute(latent, time, context.clone(), **given)
        return {0: torch.cat([row.flatten() for row in out]) if isinstance(x, list) else out}

    whole, look = here([])[0], Look()
    looked = here([], look)[0]
    result = {
        "case": name, "reason": look.reason, "difference": 0.0, "looked": (looked - whole).abs().max().item(),
        "finite": bool(whole.isfinite().all()), "forms": [], "offered": len(patcher.object_patches),
    }  # fmt: skip
    if patches:
        result["acts"] = (here([], patched=False)[0] - whole).abs().max().item()
    if look.form is not None:
        form = look.form
        result["forms"] = [[form.blocks, len(form.attends), form.tokens, form.text, form.bytes_a_token]]
        for devices, halves in ((2, 1), (3, 2)):
            part = token_split.divided(here, SimpleNamespace(branch=0), form, devices, halves)
            difference = (part - whole).abs().max() / whole.std()
            result["difference"] = max(result["difference"], difference.item())
    return result


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent)
    import families
    import frozen
    import make_models
    import token_patches
    import token_split

    frozen.families = families
    host, _ = frozen.enter(sys.argv[1])
    import torch

    with torch.inference_mode():
        for line in sys.stdin:
            print(json.dumps(run(line.strip(), host)), flush=True)
