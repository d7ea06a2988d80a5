"""The two networks in ComfyUI's own classes: an SD3-type DiT and a small U-Net in SD1.5's layout."""

import torch
from host import HAS_BFLOAT16
from torch.nn.attention import SDPBackend, sdpa_kernel

DIT = {
    "input_size": None, "in_channels": 16, "patch_size": 2, "depth": 4, "adm_in_channels": 768, "qk_norm": "rms",
    "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": 768, "out_features": 256}},
    "num_patches": 16 * 16, "pos_embed_max_size": 16, "pos_embed_scaling_factor": None,
}  # fmt: skip
UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320, "num_res_blocks": [1, 1],
    "channel_mult": [1, 1], "num_heads": 8, "use_spatial_transformer": True, "context_dim": 768,
    "transformer_depth": [0, 1], "transformer_depth_middle": -1, "transformer_depth_output": [0, 0, 1, 0],
    "legacy": False, "use_linear_in_transformer": False,
}  # fmt: skip
# what begins at zero, so that every block begins as the identity
ZERO = {
    "dit": ("adaLN_modulation.1.weight", "final_layer.linear.weight"),
    "unet": ("out_layers.3.weight", "proj_out.weight", "out.2.weight"),
}
# trained by Adam: the first and last layers and the embeddings
OUTER = ("x_embedder", "context_embedder", "t_embedder", "y_embedder", "final_layer", "input_blocks.0.", "time_embed",
         "out.2.")  # fmt: skip


def build(name: str) -> torch.nn.Module:
    """The network with fresh weights: matrices by fan-in, norms at 1, biases and each block's last layer at 0."""
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules import mmdit, openaimodel

    make = {"dtype": torch.float32, "device": "cpu", "operations": comfy.ops.disable_weight_init}
    if name == "dit":
        network = mmdit.OpenAISignatureMMDITWrapper(**DIT, **make)
        network.pos_embed.copy_(mmdit.get_2d_sincos_pos_embed_torch(256, 16, 16, val_magnitude=7.5)[None])
    else:
        network = openaimodel.UNetModel(**UNET, **make)
    for key, parameter in network.named_parameters():
        if parameter.ndim == 1 or key.endswith(ZERO[name]):
            torch.nn.init.constant_(parameter, float(parameter.ndim == 1 and key.endswith("weight")))
        else:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        parameter.requires_grad_()
    return network


def noised(name: str, z: torch.Tensor, random: torch.Generator) -> tuple[torch.Tensor, ...]:
    """Network input, timestep, target and loss weight (n, 1, 1, 1) at random noise levels.

    DiT: flow matching, sigma logit-normal and shifted by 2 (ComfyUI samples SD3 with a shift of 3).
    U-Net: epsilon at log-normal sigma of SD1.5's schedule, weighted as EDM weighs it (1 / alpha bar), at most 20.
    """
    noise, normal = torch.randn(z.shape, generator=random), torch.randn(len(z), generator=random)
    if name == "dit":
        sigma = torch.sigmoid(normal)
        sigma = 2 * sigma / (1 + sigma)
        s = sigma.view(-1, 1, 1, 1)
        return (1 - s) * z + s * noise, sigma * 1000, noise - z, torch.ones_like(s)
    betas = torch.linspace(0.00085**0.5, 0.0120**0.5, 1000, dtype=torch.float64) ** 2
    alpha_bar = torch.cumprod(1 - betas, 0).float()
    sigmas = ((1 - alpha_bar) / alpha_bar).sqrt()
    step = torch.searchsorted(sigmas, (0.2 + 1.3 * normal).exp()).clamp(0, 999)
    kept = alpha_bar[step].view(-1, 1, 1, 1)
    return kept.sqrt() * z + (1 - kept).sqrt() * noise, step.float(), noise, kept.reciprocal().clamp(max=20)


def predict(name: str, network, x: torch.Tensor, t: torch.Tensor, tokens: torch.Tensor, pooled: torch.Tensor):
    """The network's output, computed in bfloat16 where the CPU is fast at it."""
    extra = {"y": pooled} if name == "dit" else {}
    backend = SDPBackend.MATH if name == "dit" else SDPBackend.FLASH_ATTENTION  # the faster ones at these sizes
    with torch.autocast("cpu", torch.bfloat16, enabled=HAS_BFLOAT16), sdpa_kernel(backend):
        return network(x, t, context=tokens, **extra).float()
