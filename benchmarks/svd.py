"""Stable Video Diffusion's own class of ComfyUI's, small, with random weights, under its own sampling and guidance.

The U-Net with time's layers, EDM's v-prediction to sigma 700, a first frame as conditioning, and CFG rising over the
frames, as the graph that ComfyUI publishes has it. A batch is the frames.
"""

from __future__ import annotations

import torch

from tests.host.make_models import fill

SEED = 1
SHAPE = (6, 4, 8, 8)  # frames, channels, height, width
MIN_CFG = 1.0  # the first frame's
NETWORK = {
    "image_size": 32, "in_channels": 8, "out_channels": 4, "model_channels": 64, "num_res_blocks": [1, 1, 1, 1],
    "channel_mult": [1, 1, 1, 1], "num_head_channels": 64, "num_heads": -1, "use_spatial_transformer": True,
    "use_linear_in_transformer": True, "context_dim": 1024, "adm_in_channels": 768, "num_classes": "sequential",
    "transformer_depth": [1, 1, 1, 0], "transformer_depth_middle": 1, "legacy": False, "dtype": torch.float32,
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 0, 0], "extra_ff_mix_layer": True, "use_temporal_resblock": True,
    "use_temporal_attention": True, "disable_temporal_crossattention": False, "max_ddpm_temb_period": 10000,
    "merge_strategy": "learned_with_images", "merge_factor": 0.0, "video_kernel_size": [3, 1, 1],
}  # fmt: skip


def model(strength: float):
    """A patcher of it; `strength` is how much of an answer of size 1 the network gives."""
    import comfy.model_patcher
    import comfy.supported_models
    from comfy_extras.nodes_video_model import VideoLinearCFGGuidance

    made = comfy.supported_models.SVD_img2vid(NETWORK).get_model({}, "")
    fill(made.diffusion_model, SEED, ())
    made.diffusion_model.out[2].weight.data *= strength
    made.diffusion_model.eval()
    patcher = comfy.model_patcher.ModelPatcher(made, torch.device("cpu"), torch.device("cpu"))
    (patcher,) = VideoLinearCFGGuidance().patch(patcher, MIN_CFG)
    return patcher


def conds() -> list[list]:
    """What SVD_img2vid_Conditioning gives for a random picture, positive and negative."""
    generator = torch.Generator().manual_seed(SEED)
    pooled = torch.randn(1, 1, 1024, generator=generator)
    picture = torch.randn(1, *SHAPE[1:], generator=generator)
    told = {"motion_bucket_id": 127, "fps": 6, "augmentation_level": 0.0}
    given = ((pooled, picture), (torch.zeros_like(pooled), torch.zeros_like(picture)))
    return [[[tokens, {**told, "concat_latent_image": frame}]] for tokens, frame in given]
