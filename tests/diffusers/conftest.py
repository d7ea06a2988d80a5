"""Tiny pipelines with random weights; text encoders are left out, what they would give is random too."""

import importlib

import pytest
import torch

STEPS = 12


def _normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Tiny:
    """A pipeline, and how it is called here."""

    def __init__(self, pipe, network, length, width, pooled):
        self.pipe, self.network = pipe, network
        self.embeds = {
            "prompt_embeds": _normal(1, length, width, seed=1),
            "negative_prompt_embeds": _normal(1, length, width, seed=2),
            "pooled_prompt_embeds": _normal(1, pooled, seed=3),
            "negative_pooled_prompt_embeds": _normal(1, pooled, seed=4),
        }

    def __call__(self, steps=STEPS, seed=0, **options):
        generator = torch.Generator().manual_seed(seed)
        call = {"guidance_scale": 5.0, "height": self.side, "width": self.side, **self.embeds, **options}
        return self.pipe(num_inference_steps=steps, generator=generator, output_type="latent", **call).images

    @property
    def side(self):
        return 32 * self.pipe.vae_scale_factor


def make_sdxl():
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=(32, 64),
        layers_per_block=2,
        sample_size=32,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 2),
        projection_class_embeddings_input_dim=80,
        cross_attention_dim=64,
    ).eval()
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, steps_offset=1, beta_schedule="scaled_linear", timestep_spacing="leading"
    )
    pipe = StableDiffusionXLPipeline(None, None, None, None, None, unet, scheduler, add_watermarker=False)
    return Tiny(pipe, unet, 7, 64, 32)


def make_sd3():
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(
        sample_size=32,
        patch_size=2,
        in_channels=4,
        num_layers=5,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=32,
        caption_projection_dim=32,
        pooled_projection_dim=64,
        out_channels=4,
        pos_embed_max_size=32,
    ).eval()
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    nothing = [None] * 7  # VAE, text encoders, tokenizers
    pipe = StableDiffusion3Pipeline(transformer, scheduler, *nothing)
    return Tiny(pipe, transformer, 11, 32, 64)


MAKERS = {"sdxl": make_sdxl, "sd3": make_sd3}


@pytest.fixture(autouse=True)
def no_device_is_left_out_for_its_pace(monkeypatch):
    """As with HYBRIDIFF_WAIT in ComfyUI: steps of a few milliseconds on a busy machine say nothing of a device."""
    pytest.importorskip("diffusers", reason="no diffusers (pip install diffusers)")
    module = importlib.import_module("hybridiff_core.diffusers.accelerate")
    cuts, _ = module.known()
    monkeypatch.setattr(module, "known", lambda: (cuts, None))


@pytest.fixture(params=MAKERS)
def tiny(request):
    """Of either family; a test can ask for one by indirect parameters."""
    made = MAKERS[request.param]()
    made.pipe.set_progress_bar_config(disable=True)
    return made
