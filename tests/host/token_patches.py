"""ComfyUI's own patches inside networks, for token_networks.py: each as its node makes it, but for the encoded picture.

A patch keeps what it made within a forward, so that each device, and so each thread, has its own.
"""

from __future__ import annotations

import copy
from types import SimpleNamespace

import torch

VAE = SimpleNamespace(spacial_compression_encode=lambda: 8)


def _made(cls: type, **has: object) -> object:
    patch = cls.__new__(cls)
    vars(patch).update(has)
    return patch


def _model(module: torch.nn.Module, fill) -> SimpleNamespace:
    fill(module.eval(), 2, ())
    return SimpleNamespace(model=module)


def z_image_control(make: dict, fill, generator) -> dict[str, list]:
    """ZImageFunControlnet's, for a latent of 16 by 12."""
    from comfy.ldm.lumina.controlnet import ZImage_Control
    from comfy_extras.nodes_model_patch import ZImageControlPatch

    model = _model(ZImage_Control(256, 4, 4, ffn_dim_multiplier=1.0, n_control_layers=15, **make), fill)
    picture = torch.randn((1, 16, 16, 12), generator=generator)
    patch = _made(
        ZImageControlPatch, model_patch=model, vae=VAE, image=None, inpaint_image=None, mask=None, strength=0.7,
        encoded_image=picture, encoded_image_size=(128, 96), temp_data=None, is_inpaint=False,
    )  # fmt: skip
    return {"noise_refiner": [patch], "double_block": [patch]}


def qwen_diffsynth(make: dict, fill, generator) -> dict[str, list]:
    """QwenImageDiffsynthControlnet's, for a latent of 16 by 12."""
    from comfy_extras.nodes_model_patch import DiffSynthCnetPatch, QwenImageBlockWiseControlNet

    model = _model(QwenImageBlockWiseControlNet(num_layers=3, dim=64, **make).float(), fill)
    picture = torch.randn((1, 48, 64), generator=generator)
    patch = _made(
        DiffSynthCnetPatch, model_patch=model, vae=VAE, image=None, mask=None, strength=0.7, encoded_image=picture,
        encoded_image_size=(128, 96),
    )  # fmt: skip
    return {"double_block": [patch]}


def wan_talk(make: dict, fill, generator) -> dict[str, list]:
    """WanInfiniteTalkToVideo's, for 3 frames; what it hears is in the options as `audio_embeds`."""
    from comfy.ldm.wan.model_multitalk import MultiTalkCrossAttnPatch, WanMultiTalkAttentionBlock

    blocks = torch.nn.ModuleList([WanMultiTalkAttentionBlock(320, 32, **make) for _ in range(4)])
    module = torch.nn.Module()
    module.blocks = blocks
    return {"attn2_patch": [MultiTalkCrossAttnPatch(_model(module, fill))]}


def anima_lllite(make: dict, fill, generator) -> dict[str, list]:
    """AnimaLLLiteApply's, for a latent of 16 by 12."""
    from comfy.ldm.anima import lllite

    names = [f"lllite_dit_blocks_{i}_{name}" for i in range(4) for name in ("self_attn_q_proj", "mlp_layer1")]
    shapes = {"conv1.weight": (8, 3, 4, 4), "conv3.weight": (16, 8, 4, 4), "proj.weight": (8, 16, 1, 1)}
    told = {f"lllite_conditioning1.{name}": torch.empty(shape) for name, shape in shapes.items()}
    for name in names:
        told |= {f"{name}.down.weight": torch.empty(16, 256), f"{name}.cond_to_film.weight": torch.empty(32, 8)}
    model = _model(lllite.AnimaLLLite(told, {}, **make), fill)
    picture = torch.rand((1, 128, 96, 3), generator=generator)
    patch = lllite.AnimaLLLitePatch(model, picture, None, 0.7, 1.0, 0.0)
    attention = lllite.AnimaLLLiteAttentionPatch(patch, {"q": "self_attn_q_proj"})
    return {"post_input": [patch], "attn1_patch": [attention], "mlp_patch": [lllite.AnimaLLLiteMLPPatch(patch)]}


def own(patches: dict[str, list]) -> dict[str, list]:
    """The same patches for one forward: copies that share nothing that they keep."""
    copies = {id(patch): copy.copy(patch) for some in patches.values() for patch in some}
    for patch in copies.values():
        if id(getattr(patch, "patch", None)) in copies:  # they find each other
            patch.patch = copies[id(patch.patch)]
    return {name: [copies[id(patch)] for patch in some] for name, some in patches.items()}
