"""The compare node: how far two pictures are apart."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..hybridiff_core.phrases import say
from .plan import CATEGORY

WINDOW = 11  # SSIM's, as published
# the least PSNR in dB of each verdict: rounding to 8 bits makes 59; the eye sees nothing above 45 or so
VERDICTS = ((60.0, "rounding"), (45.0, "practically"), (32.0, "close"), (22.0, "alike"), (float("-inf"), "different"))


class HybridiffCompare(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        kinds = [io.Image, io.Latent]
        return io.Schema(
            node_id="HybridiffCompare",
            display_name="Hybridiff Compare",
            category=CATEGORY,
            description="How far two images, or two latents, are apart: for instance KSampler's and Hybridiff's.",
            search_aliases=["psnr", "ssim", "difference", "multigpu", "parallel", "hybridiff", "same picture"],
            is_output_node=True,
            inputs=[
                io.MultiType.Input("a", kinds, tooltip="The image or latent to compare with, such as KSampler's."),
                io.MultiType.Input("b", kinds, tooltip="The image or latent to compare, of the same kind and size."),
            ],
            outputs=[
                io.Float.Output(display_name="PSNR", tooltip="In dB; higher is closer. 100 where nothing differs."),
                io.Float.Output(display_name="SSIM", tooltip="Structural similarity; 1 where nothing differs."),
                io.Float.Output(display_name="max difference", tooltip="The largest difference of any value."),
                io.Image.Output(display_name="difference", tooltip="Where they differ, the largest difference white."),
                io.String.Output(display_name="STRING", tooltip="In words how close they are, and the three figures."),
            ],
        )

    @classmethod
    def execute(cls, a, b) -> io.NodeOutput:
        from kornia.metrics import psnr, ssim  # among ComfyUI's requirements, but slow to import

        one, other = pixels(a, "a"), pixels(b, "b")
        if one.shape != other.shape:
            raise ValueError(f"a is {_shown(one)} and b is {_shown(other)}; connect two of one kind, size and batch")
        low, span = 0.0, 1.0
        if isinstance(a, dict):  # a latent's values have no fixed range
            low, span = one.min().item(), max((one.max() - one.min()).item(), 1e-8)
        difference = (one - other).abs()
        largest = difference.max().item()
        decibels = min(psnr(one, other, span).item(), 100.0)
        similar = ssim((one - low) / span, (other - low) / span, WINDOW).mean().item()
        where = difference.mean(1)
        picture = (where / where.max().clamp_min(1e-8))[..., None].expand(-1, -1, -1, 3).contiguous()
        verdict = verdict_of(decibels, largest)
        figures = {"decibels": f"{decibels:.2f}", "ssim": f"{similar:.5f}", "largest": f"{largest:.3g}"}
        text = f"{say(verdict, decibels=f'{decibels:.0f}')}\n{say('figures', **figures)}"
        shown = {"verdict": verdict, **figures}
        return io.NodeOutput(decibels, similar, largest, picture, text, ui={"hybridiff_compare": [shown]})


def verdict_of(decibels: float, largest: float) -> str:
    """How close two pictures are, as a phrase's name."""
    return next(name for least, name in VERDICTS if decibels >= least) if largest else "identical"


def pixels(given: object, name: str) -> torch.Tensor:
    """An image or latent as [n, channels, height, width] in fp32; frames count as images. Raises ValueError."""
    latent = isinstance(given, dict) and "samples" in given
    values = given["samples"] if latent else given
    if not isinstance(values, torch.Tensor) or values.ndim not in ((4, 5) if latent else (4,)):
        raise ValueError(f"{name} is no image or latent that has a height and a width; connect one")
    values = values.detach().float().cpu()
    if not latent:
        return values.movedim(-1, 1)
    return values.movedim(2, 1).flatten(0, 1) if values.ndim == 5 else values


def _shown(values: torch.Tensor) -> str:
    count, channels, height, width = values.shape
    return f"{count} x {width} x {height} with {channels} channels"
