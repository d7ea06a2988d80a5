"""Small models of the families of ComfyUI 0.33 that families.py has not: a model class, and its network's config.

ComfyUI tells a model's config from the file. For many of these it fixes the width or the depth there, and a file of it
would be gigabytes: `narrow` ones are built from their config by TestNarrowModel instead, with the host's own classes.
"""

from __future__ import annotations

try:
    from .family import Family
except ImportError:  # run as a script
    from family import Family

VIDEO, TEXT = (1, 16, 3, 8, 8), {"tokens": 16, "width": 4096, "pooled": None}
HEADS = {"hidden_size": 256, "num_heads": 2}


def words(tokens: int, width: int, pooled: int | None = None) -> dict:
    return {"tokens": tokens, "width": width, "pooled": pooled}


def built(model: str, config: dict, latent: tuple, text: dict, blocks: str, **more) -> Family:
    """A family that is made by its model's class from the config of its network."""
    more = {"kind": "diffusion_models", "network": "", "last": (), **more}
    return Family(model=model, config=config, latent=latent, text=text, blocks=tuple(blocks.split()), **more)


def narrow(*args, **more) -> Family:
    return built(*args, narrow=True, **more)


def wan(model: str, kind: str, extra: dict, told: bool = False, **changes) -> Family:
    config = {
        "image_model": "wan2.1", "model_type": kind, "dim": 256, "ffn_dim": 512, "num_heads": 2, "num_layers": 6,
        "in_dim": 16, "out_dim": 16, "cross_attn_norm": True, "patch_size": (1, 2, 2), "freq_dim": 256, "eps": 1e-6,
        "qk_norm": True, "window_size": (-1, -1), **changes,
    }  # fmt: skip
    return built(model, config, VIDEO, TEXT, "blocks", last=("head.head.weight",), extra=extra, told=told)


ALL = [[1] * 16]  # a text without padding: ComfyUI takes no other of these
IMAGE = {"concat_latent_image": (1, 16, 3, 8, 8), "concat_mask": (1, 1, 3, 8, 8)}
VISION = {**IMAGE, "clip_vision_output": (1, 257, 1280)}

HUNYUAN = {
    "image_model": "hunyuan_video", "in_channels": 16, "out_channels": 16, "patch_size": [1, 2, 2], "vec_in_dim": None,
    "context_in_dim": 256, "hidden_size": 256, "mlp_ratio": 4.0, "num_heads": 2, "depth": 4, "depth_single_blocks": 4,
    "axes_dim": [16, 56, 56], "theta": 256, "qkv_bias": True, "guidance_embed": False, "byt5": True,
    "meanflow": False, "use_cond_type_embedding": False, "vision_in_dim": None, "meanflow_sum": False,
}  # fmt: skip
BYT5 = {"conditioning_byt5small": (1, 8, 1472)}

COSMOS = {
    "max_img_h": 240, "max_img_w": 240, "max_frames": 128, "out_channels": 16, "in_channels": 16, "patch_spatial": 2,
    "patch_temporal": 1, "concat_padding_mask": True, "model_channels": 256, "num_blocks": 4, "num_heads": 2,
    "crossattn_emb_channels": 1024, "pos_emb_cls": "rope3d", "pos_emb_learnable": True, "pos_emb_interpolation": "crop",
    "use_adaln_lora": True, "adaln_lora_dim": 64, "extra_per_block_abs_pos_emb": False,
    "rope_h_extrapolation_ratio": 4.0, "rope_w_extrapolation_ratio": 4.0, "rope_t_extrapolation_ratio": 1.0,
}  # fmt: skip
PREDICT2 = {**COSMOS, "min_fps": 1, "max_fps": 30, "rope_enable_fps_modulation": False}
COSMOS1 = {
    **COSMOS, "image_model": "cosmos", "block_config": "FA-CA-MLP", "pos_emb_learnable": False,
    "block_x_format": "THWBD", "affline_emb_norm": True, "extra_per_block_abs_pos_emb": True,
    "extra_per_block_abs_pos_emb_type": "learnable", "rope_h_extrapolation_ratio": 1.0,
    "rope_w_extrapolation_ratio": 1.0, "rope_t_extrapolation_ratio": 2.0,
}  # fmt: skip

KANDINSKY = {
    "image_model": "kandinsky5", "model_dim": 256, "time_dim": 128, "ff_dim": 512, "visual_embed_dim": 132,
    "num_text_blocks": 1, "num_visual_blocks": 4, "axes_dims": (16, 24, 24), "in_text_dim": 64,
}  # fmt: skip
OMNIGEN = {
    "image_model": "omnigen2", "hidden_size": 384, "num_layers": 4, "num_refiner_layers": 1, "num_attention_heads": 4,
    "num_kv_heads": 2, "text_feat_dim": 64, "timestep_scale": 1000.0,
}  # fmt: skip
BOOGU = {
    "image_model": "boogu", "hidden_size": 480, "num_layers": 3, "num_double_stream_layers": 2,
    "num_refiner_layers": 1, "num_attention_heads": 4, "num_kv_heads": 2, "instruction_feat_dim": 64,
}  # fmt: skip
IDEOGRAM = {
    "image_model": "ideogram4", "in_channels": 128, "num_layers": 4, "num_attention_heads": 2,
    "attention_head_dim": 128, "intermediate_size": 256, "adaln_dim": 64, "llm_features_dim": 64,
}  # fmt: skip
HIDREAM = {
    "image_model": "hidream", "patch_size": 2, "in_channels": 16, "out_channels": 16, "num_layers": 2,
    "num_single_layers": 2, "attention_head_dim": 128, "num_attention_heads": 2, "caption_channels": [64, 64],
    "text_emb_dim": 64, "llama_layers": [0, 1, 2, 3], "axes_dims_rope": [64, 32, 32], "max_resolution": [128, 128],
    "num_routed_experts": 4, "num_activated_experts": 2,
}  # fmt: skip
O1_TEXT = {
    "vocab_size": 151936, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4,
    "num_attention_heads": 2, "num_key_value_heads": 1,
}  # fmt: skip
O1_VISION = {"hidden_size": 64, "num_heads": 2, "intermediate_size": 128, "depth": 1, "deepstack_visual_indexes": ()}
O1_IDS = [151644, 872, 198, *range(100, 110), 151645, 198, 151644, 77091, 198, 151669, 151673]
ACE = {
    "audio_model": "ace", "attention_head_dim": 64, "in_channels": 8, "inner_dim": 128, "max_height": 16,
    "max_position": 32768, "max_width": 32768, "mlp_ratio": 2.5, "num_attention_heads": 2, "num_layers": 4,
    "out_channels": 8, "patch_size": [16, 1], "rope_theta": 1000000.0, "speaker_embedding_dim": 512,
    "text_embedding_dim": 768, "ssl_encoder_depths": [8, 8], "ssl_latent_dims": [1024, 768],
    "ssl_names": ["mert", "m-hubert"], "lyric_encoder_vocab_size": 6693, "lyric_hidden_size": 1024,
}  # fmt: skip
ACE15 = {
    "audio_model": "ace1.5", "hidden_size": 256, "intermediate_size": 512, "num_heads": 2, "encoder_hidden_size": 256,
    "encoder_num_heads": 2, "encoder_intermediate_size": 512, "num_dit_layers": 4, "num_kv_heads": 1,
    "num_lyric_layers": 1, "num_timbre_layers": 1, "num_tokenizer_layers": 1, "fsq_dim": 256,
}  # fmt: skip
MOCHI = {
    "image_model": "mochi_preview", "depth": 4, "patch_size": 2, "num_heads": 2, "hidden_size_x": 256,
    "hidden_size_y": 128, "mlp_ratio_x": 48.0, "mlp_ratio_y": 4.0, "learn_sigma": False, "in_channels": 12,
    "qk_norm": True, "qkv_bias": False, "out_bias": True, "attn_drop": 0.0, "patch_embed_bias": True,
    "posenc_preserve_area": True, "timestep_mlp_bias": True, "attend_to_padding": False, "timestep_scale": 1000.0,
    "use_t5": True, "t5_feat_dim": 64, "t5_token_length": 256, "rope_theta": 10000.0,
}  # fmt: skip
CASCADE_C = {"c_cond": 128, "c_hidden": [128, 128], "nhead": [2, 2], "blocks": [[1, 2], [2, 1]]}
CASCADE_B = {
    "c_hidden": [64, 64, 128, 128], "nhead": [-1, -1, 2, 2], "blocks": [[1, 1, 2, 1], [1, 2, 1, 1]],
    "block_repeat": [[1, 1, 1, 1], [1, 1, 1, 1]],
}  # fmt: skip
SEEDVR = {
    "image_model": "seedvr2", "vid_dim": 256, "heads": 2, "head_dim": 128, "num_layers": 4, "mm_layers": 2,
    "norm_eps": 1e-5, "mlp_type": "swiglu", "vid_out_norm": True,
}  # fmt: skip
ERNIE = {
    "image_model": "ernie", "hidden_size": 256, "num_attention_heads": 2, "num_layers": 4, "ffn_hidden_size": 512,
    "text_in_dim": 64,
}  # fmt: skip
H3 = {
    "image_model": "minimax_h3", "num_layers": 4, "token_refiner_num_layers": 1, "hidden_size": 256, "latents_dim": 24,
    "audio_latents_dim": 32, "attention_head_dim": 128, "num_attention_heads": 2, "ffn_hidden_size": 512,
    "text_dim": 320, "timestep_input_dim": 256, "time_embed_hidden_size": 256, "time_embed_dim": 128,
    "rope_inv_freq_len": 16,
}  # fmt: skip
HUNYUAN3D = {
    "image_model": "hunyuan3d2", "in_channels": 64, "context_in_dim": 64, "hidden_size": 128, "mlp_ratio": 4.0,
    "num_heads": 2, "depth": 3, "depth_single_blocks": 3, "qkv_bias": True, "guidance_embed": False,
}  # fmt: skip
HUNYUAN3D_21 = {
    "image_model": "hunyuan3d2_1", "in_channels": 64, "hidden_size": 128, "context_dim": 64, "depth": 5,
    "num_heads": 2, "num_moe_layers": 1, "guidance_cond_proj_dim": None, "qkv_bias": False, "mlp_ratio": 4.0,
}  # fmt: skip
HYDIT = {
    "image_model": "hydit", "depth": 4, "hidden_size": 192, "num_heads": 2, "text_states_dim": 64,
    "text_states_dim_t5": 64,
}  # fmt: skip
COGVIDEO = {
    "image_model": "cogvideox", "num_attention_heads": 2, "attention_head_dim": 64, "time_embed_dim": 128,
    "num_layers": 4, "in_channels": 16, "patch_size": 2, "text_embed_dim": 64,
    "use_learned_positional_embeddings": False, "use_rotary_positional_embeddings": True,
}  # fmt: skip
LENS = {
    "image_model": "lens", "in_channels": 128, "out_channels": 32, "num_layers": 4, "num_attention_heads": 2,
    "enc_hidden_dim": 64, "multi_layer_encoder_feature": True, "selected_layer_index": (0, 1, 2, 3),
}  # fmt: skip
JOY = {
    "image_model": "joyimage", "in_channels": 16, "hidden_size": 256, "patch_size": [1, 2, 2], "num_layers": 4,
    "num_attention_heads": 2, "text_dim": 4096, "theta": 10000, "rope_dim_list": [16, 56, 56],
}  # fmt: skip
MAGE = {
    "image_model": "mage_flow", "in_channels": 128, "num_layers": 4, "num_attention_heads": 2,
    "joint_attention_dim": 64,
}  # fmt: skip
LONGCAT = {
    "image_model": "flux", "axes_dim": [16, 56, 56], "num_heads": 2, "mlp_ratio": 4.0, "theta": 10000,
    "out_channels": 16, "qkv_bias": True, "txt_ids_dims": [1, 2], "in_channels": 16, "hidden_size": 256,
    "context_in_dim": 3584, "patch_size": 2, "vec_in_dim": None, "depth": 3, "depth_single_blocks": 3,
    "guidance_embed": False, "yak_mlp": False, "txt_norm": False,
}  # fmt: skip
OVIS = {**LONGCAT, "context_in_dim": 2048, "yak_mlp": True, "txt_norm": True}
RADIANCE = {
    "image_model": "chroma_radiance", "axes_dim": [16, 56, 56], "num_heads": 2, "mlp_ratio": 4.0, "theta": 10000,
    "qkv_bias": True, "in_channels": 3, "out_channels": 3, "hidden_size": 256, "context_in_dim": 64, "patch_size": 16,
    "depth": 2, "depth_single_blocks": 2, "in_dim": 64, "out_dim": 256, "hidden_dim": 128, "n_layers": 2,
    "nerf_hidden_size": 64, "nerf_mlp_ratio": 4, "nerf_depth": 2, "nerf_max_freqs": 8, "nerf_tile_size": 512,
    "nerf_final_head_type": "conv", "nerf_embedder_dtype": None, "use_x0": False, "vec_in_dim": None,
    "txt_ids_dims": [], "use_sequential_txt_ids": False,
}  # fmt: skip
PIXEL = {
    "image_model": "pixeldit_t2i", "num_groups": 4, "hidden_size": 256, "pixel_hidden_size": 16,
    "pixel_attn_hidden_size": 128, "pixel_num_groups": 2, "patch_depth": 4, "pixel_depth": 1, "txt_embed_dim": 64,
}  # fmt: skip
PID = {**PIXEL, "image_model": "pid", "lq_latent_channels": 16, "lq_hidden_dim": 64, "lq_num_res_blocks": 1}
TRIPO = {
    "image_model": "triposplat", "q_token_length": 64, "model_channels": 192, "cond_channels": 64, "num_blocks": 4,
    "num_refiner_blocks": 1,
}  # fmt: skip
TRELLIS = {
    "image_model": "trellis2", "resolution": 64, "model_channels": 192, "cond_channels": 64, "num_blocks": 3,
    "num_heads": 2, "init_txt_model": False, "txt_only": False,
}  # fmt: skip
NEWBIE = {
    "image_model": "lumina2", "patch_size": 2, "in_channels": 16, "dim": 384, "cap_feat_dim": 64, "n_layers": 4,
    "qk_norm": True, "n_heads": 4, "n_kv_heads": 2, "axes_dims": [32, 32, 32], "axes_lens": [300, 512, 512],
    "rope_theta": 10000.0, "ffn_dim_multiplier": 4.0, "clip_text_dim": 64,
}  # fmt: skip
AUDIO3 = {
    "audio_model": "dit1.0", "global_cond_dim": 768, "project_cond_tokens": False, "embed_dim": 768,
    "num_memory_tokens": 8, "attn_kwargs": {"qk_norm": "rms", "differential": False}, "norm_type": "rms_norm",
    "num_heads": 12, "timestep_features_type": "expo", "io_channels": 256, "input_concat_dim": 0,
    "local_add_cond_dim": 257, "global_cond_shared_embed": True, "global_cond_type": "adaLN", "depth": 4,
}  # fmt: skip
SECONDS = {
    f"conditioner.conditioners.seconds_total.embedder.embedding.{name}": shape
    for name, shape in (("1.weight", (768, 256)), ("1.bias", (768,)))
}
SVD = {
    "image_size": 32, "in_channels": 8, "out_channels": 4, "model_channels": 320, "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 1, 1, 1], "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0], "use_linear_in_transformer": True,
    "context_dim": 1024, "adm_in_channels": 768, "num_classes": "sequential", "use_temporal_attention": True,
    "use_temporal_resblock": True, "num_heads": -1, "num_head_channels": 64, "use_spatial_transformer": True,
    "legacy": False, "extra_ff_mix_layer": True, "use_spatial_context": True,
    "merge_strategy": "learned_with_images", "merge_factor": 0.0, "video_kernel_size": [3, 1, 1],
}  # fmt: skip

MORE: dict[str, Family] = {
    "wan_vace": wan(
        "WAN21_Vace", "vace", {"vace_frames": [(1, 32, 3, 8, 8)], "vace_mask": [(1, 64, 3, 8, 8)]}, vace_layers=2,
        vace_in_dim=96,
    ),
    "wan_fun": wan(
        "WAN21_FunControl2V", "i2v", {**VISION, "concat_latent_image": (1, 32, 3, 8, 8)}, in_dim=48
    ),
    "wan_camera": wan(
        "WAN21_Camera", "camera", {**VISION, "camera_conditions": (1, 24, 3, 64, 64)}, in_dim=32,
    ),
    "wan22_camera": wan("WAN22_Camera", "camera_2.2", {**IMAGE, "camera_conditions": (1, 24, 3, 64, 64)}, in_dim=36),
    "wan_s2v": wan(
        "WAN22_S2V", "s2v", {"audio_embed": (1, 25, 1024, 12), "reference_latents": [(1, 16, 1, 8, 8)]}, num_layers=12,
    ),
    "wan_humo": wan(
        "WAN21_HuMo", "humo",
        {"audio_embed": (1, 3, 8, 5, 1280), "reference_latents": [(1, 16, 1, 8, 8)]},
    ),
    "wan_animate": wan(
        "WAN22_Animate", "animate",
        {**VISION, "pose_video_latent": (1, 16, 2, 8, 8), "face_video_pixels": (1, 3, 1, 512, 512)}, in_dim=36,
        num_layers=5,
    ),
    "wan_animate2": wan(
        "WAN_Animate2", "animate2", {**VISION, "pose_video_latent": (1, 16, 2, 8, 8)}, told=True, in_dim=36
    ),
    "wan_scail": wan(
        "WAN21_SCAIL", "scail", {"reference_latents": [(1, 16, 1, 8, 8)], "pose_video_latent": (1, 16, 3, 4, 4)},
        in_dim=20,
    ),
    "wan_scail2": wan(
        "WAN21_SCAIL2", "scail2",
        {"reference_latents": [(1, 16, 1, 8, 8)], "pose_video_latent": (1, 16, 3, 4, 4)}, in_dim=20,
    ),
    "wan_dancer": wan("WAN22_WanDancer", "wandancer", {**VISION, "audio_embed": (1, 25, 35)}, in_dim=36, num_layers=6),
    "wan_bernini": wan("WAN21_T2V", "t2v", {"context_latents": [(1, 16, 3, 8, 8), (1, 16, 1, 8, 8)]}),
    "hunyuan_video15": built(
        "HunyuanVideo15", {**HUNYUAN, "in_channels": 65, "out_channels": 32, "patch_size": [1, 1, 1],
                           "use_cond_type_embedding": True, "vision_in_dim": 1152, "meanflow_sum": True},
        (1, 32, 3, 6, 6), words(16, 256, 768), "double_blocks single_blocks", extra=BYT5,
    ),
    "hunyuan_image21": built(
        "HunyuanImage21", {**HUNYUAN, "in_channels": 64, "out_channels": 64, "patch_size": [1, 1],
                           "axes_dim": [64, 64]},
        (1, 64, 8, 8), words(16, 256), "double_blocks single_blocks", extra=BYT5,
    ),
    "cosmos": narrow("CosmosT2V", {**COSMOS1, "rope_h_extrapolation_ratio": 1.0}, VIDEO, words(16, 1024), "blocks"),
    "cosmos_predict2": narrow(
        "CosmosT2IPredict2", {**PREDICT2, "image_model": "cosmos_predict2"}, (1, 16, 1, 16, 16), words(16, 1024),
        "blocks",
    ),
    "anima": narrow("Anima", {**PREDICT2, "image_model": "anima"}, (1, 16, 1, 16, 16), words(16, 1024), "blocks"),
    "kandinsky5": narrow(
        "Kandinsky5", KANDINSKY, VIDEO, words(16, 64, 768), "visual_transformer_blocks",
    ),
    "kandinsky5_image": narrow(
        "Kandinsky5Image", {**KANDINSKY, "visual_embed_dim": 64, "rope_scale_factor": (1.0, 1.0, 1.0)},
        (1, 16, 16, 16), words(16, 64, 768), "visual_transformer_blocks",
    ),
    "omnigen2": narrow(
        "Omnigen2", OMNIGEN, (1, 16, 16, 16), words(16, 64), "layers",
        extra={"attention_mask": ALL, "reference_latents": [(1, 16, 8, 8)]},
    ),
    "boogu": narrow("Boogu", BOOGU, (1, 16, 16, 16), words(16, 64), "double_stream_layers single_stream_layers",
                    extra={"attention_mask": ALL}),
    "ideogram4": narrow("Ideogram4", IDEOGRAM, (1, 128, 8, 8), words(16, 64), "layers"),
    "hidream": narrow(
        "HiDream", HIDREAM, (1, 16, 16, 16), words(16, 64, 64), "double_stream_blocks single_stream_blocks",
        extra={"conditioning_llama3": (1, 4, 16, 64)},
    ),
    "hidream_o1": narrow(
        "HiDreamO1", {"image_model": "hidream_o1", "text_config_overrides": O1_TEXT,
                      "vision_config_overrides": O1_VISION},
        (1, 3, 128, 128), words(1, 1), "language_model.layers", extra={"text_input_ids": O1_IDS},
    ),
    "ace": narrow("ACEStep", ACE, (1, 8, 16, 32), words(16, 768), "transformer_blocks",
                  extra={"conditioning_lyrics": [*range(100, 108)]}),
    "ace15_narrow": narrow("ACEStep15", ACE15, (1, 64, 320), words(16, 1024), "decoder.layers",
                           extra={"conditioning_lyrics": (1, 8, 1024)}),
    "minimax_music": narrow(
        "MiniMaxMusic3", {"audio_model": "minimax_music3", "shallow": 3}, (1, 128, 64), words(20, 8 * 4096),
        "diffusion_transformer.transformer.layers", shallow=3, extra={"conditioning_scale": (1, 1, 1)},
    ),
    "mochi": narrow("GenmoMochi", MOCHI, (1, 12, 3, 8, 8), words(16, 64), "blocks", extra={"attention_mask": (1, 16)}),
    "cascade_c": narrow("Stable_Cascade_C", {"stable_cascade_stage": "c", **CASCADE_C}, (1, 16, 12, 12),
                        words(16, 1280, 1280), "down_blocks up_blocks"),
    "cascade_b": narrow("Stable_Cascade_B", {"stable_cascade_stage": "b", **CASCADE_B}, (1, 4, 32, 32),
                        words(16, 1280, 1280), "down_blocks up_blocks",
                        extra={"stable_cascade_prior": (1, 16, 8, 8)}),
    "seedvr2": narrow("SeedVR2", SEEDVR, VIDEO, words(16, 5120), "blocks", extra={"condition": (1, 17, 3, 8, 8)}),
    "ernie": narrow("ErnieImage", ERNIE, (1, 128, 8, 8), words(16, 64), "layers"),
    "minimax_h3": built("MiniMaxH3", H3, (1, 24, 3, 8, 8), words(16, 320), "blocks", nested=((1, 32, 2, 8),)),
    "hunyuan3d": narrow("Hunyuan3Dv2", HUNYUAN3D, (1, 64, 50), words(16, 64), "double_blocks single_blocks"),
    "hunyuan3d_21": narrow("Hunyuan3Dv2_1", HUNYUAN3D_21, (1, 64, 50), words(16, 64), "blocks"),
    "hunyuan_dit": narrow(
        "HunyuanDiT", HYDIT, (1, 4, 16, 16), words(77, 64), "blocks",
        extra={"attention_mask": (1, 77), "conditioning_mt5xl": (1, 256, 64), "attention_mask_mt5xl": (1, 256)},
    ),
    "cogvideo": built("CogVideoX_T2V", COGVIDEO, VIDEO, words(16, 64), "blocks"),
    "void": built(
        "CogVideoX_Inpaint", {**COGVIDEO, "in_channels": 48, "out_channels": 16}, VIDEO, words(16, 64), "blocks",
        extra={"concat_latent_image": (1, 32, 3, 8, 8)},
    ),
    "lens": built("Lens", LENS, (1, 128, 8, 8), words(16, 256), "transformer_blocks"),
    "joyimage": built("JoyImage", JOY, (1, 16, 1, 16, 16), words(16, 4096), "double_blocks"),
    "mage_flow": narrow("MageFlow", MAGE, (1, 128, 8, 8), words(16, 64), "transformer_blocks"),
    "longcat": built("LongCatImage", LONGCAT, (1, 16, 16, 16), words(16, 3584), "double_blocks single_blocks"),
    "ovis": built("Flux", OVIS, (1, 16, 16, 16), words(16, 2048), "double_blocks single_blocks"),
    "kontext": built(
        "Flux", {**LONGCAT, "context_in_dim": 4096, "vec_in_dim": 768, "guidance_embed": True, "txt_ids_dims": []},
        (1, 16, 16, 16), words(16, 4096, 768), "double_blocks single_blocks",
        extra={"guidance": 2.5, "reference_latents": [(1, 16, 12, 16)]},
    ),
    "chroma_radiance": narrow("ChromaRadiance", RADIANCE, (1, 3, 64, 64), words(16, 64), "double_blocks single_blocks"),
    "pixeldit": narrow("PixelDiTT2I", PIXEL, (1, 3, 64, 64), words(16, 64), "patch_blocks"),
    "pid": narrow("PiD", PID, (1, 3, 64, 64), words(16, 64), "patch_blocks",
                  extra={"lq_latent": (1, 16, 2, 2), "degrade_sigma": [0.1]}),
    "triposplat": narrow("TripoSplat", TRIPO, (1, 64, 16), words(16, 64), "blocks", nested=((1, 1, 5),),
                         extra={"reference_latents": [(1, 128, 3, 4)]}),
    "trellis2": narrow("Trellis2", TRELLIS, (1, 32, 16, 16, 16), words(16, 64), "structure_model.blocks",
                       extra={"embeds": (1, 16, 64)}),
    "newbie": narrow("Lumina2", NEWBIE, (1, 16, 16, 16), words(16, 64), "layers",
                     extra={"attention_mask": (1, 16), "clip_text_pooled": (1, 64)}),
    "stable_audio3": built("StableAudio3", AUDIO3, (1, 256, 32), words(16, 768), "transformer.layers",
                           kind="checkpoints", prefix="model.model.", beside=SECONDS),
    "svd": built("SVD_img2vid", SVD, (4, 4, 16, 16), words(1, 1024), "input_blocks output_blocks",
                 kind="checkpoints", extra={"concat_latent_image": (1, 4, 16, 16)}, last=("out.2.weight",)),
}  # fmt: skip
