"""What stands in a network's place: networks whose answer is known, a trained one, random ones.

Each is called as ComfyUI's model_function_wrapper is, and answers in denoised space, under any sampling.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch

from hybridiff_core.demo import text, trained

SEED = 1
SHAPE = (4, 12, 12)
CLASS = 2  # of how many of the mixture's parts, or of the pictures, the cond is
CAPTION = "red heart"


class Mix(Protocol):
    """How a latent is mixed from picture and noise (samplings.py)."""

    flow: bool
    scale: float


def cosines(size: int) -> torch.Tensor:
    """The orthonormal basis of the discrete cosine transform, a row each."""
    place = torch.arange(size, dtype=torch.float64)
    rows = torch.cos(math.pi / size * (place + 0.5) * place[:, None]) * math.sqrt(2 / size)
    rows[0] /= math.sqrt(2)
    return rows.float()


class Ideal:
    """The mean of the pictures that a latent may have come from: Gaussians of one covariance, around `means`.

    Of `spread` 0 it is single pictures. In the place of a network, in ComfyUI's model_function_wrapper.
    """

    shape = SHAPE

    def __init__(self, parts: int, spread: float, sampling: Mix):
        generator = torch.Generator().manual_seed(SEED)
        channels, *sides = SHAPE
        self.basis = torch.kron(cosines(sides[0]), cosines(sides[1]))
        frequency = torch.hypot(*torch.meshgrid(*(torch.arange(float(side)) for side in sides), indexing="ij"))
        power = (1.0 / (1.0 + frequency) ** 2).flatten().repeat(channels)
        self.variance = power / power.mean() * sampling.scale**2
        means = torch.randn(parts, len(power), generator=generator) * self.variance.sqrt()
        self.means = means * math.sqrt(1.0 - spread)
        self.variance = self.variance * spread
        self.sampling = sampling

    def __call__(self, apply_model, given: dict) -> torch.Tensor:
        found = []
        x, sigma = given["input"], float(given["timestep"][0])
        for part, kind in zip(x.chunk(len(given["cond_or_uncond"])), given["cond_or_uncond"]):
            found.append(self.denoised(part, sigma, self.means[:CLASS] if kind == 0 else self.means))
        return torch.cat(found)

    def denoised(self, x: torch.Tensor, sigma: float, means: torch.Tensor) -> torch.Tensor:
        a, b = (1.0 - sigma, sigma) if self.sampling.flow else (1.0, sigma)
        z = (x.flatten(2) @ self.basis.T).flatten(1)
        total = a * a * self.variance + b * b + 1e-12
        away = z[:, None] - a * means
        share = (-0.5 * (away.square() / total).sum(-1)).softmax(-1)
        mean = (share[..., None] * (means + a * self.variance / total * away)).sum(1)
        return (mean.view(x.shape[0], x.shape[1], -1) @ self.basis).view(x.shape)


class Trained:
    """The small transformer that draws emoji, a flow's. Another sampling's latent is a flow's at another size."""

    shape = trained.LATENT

    def __init__(self, sampling: Mix):
        self.sampling, self.network = sampling, trained.network()
        self.conds = [text.encode(caption) for caption in (CAPTION, "")]

    def __call__(self, apply_model, given: dict) -> torch.Tensor:
        kinds = given["cond_or_uncond"]
        tokens, pooled = (torch.cat([self.conds[kind][part] for kind in kinds]) for part in (0, 1))
        x, sigma = given["input"], given["timestep"]
        if self.sampling.flow:
            return self.network.denoise(x, sigma, tokens, pooled)
        size = self.sampling.scale
        noise = (sigma / size).view(-1, 1, 1, 1)
        return size * self.network.denoise(x / size / (1.0 + noise), sigma / (size + sigma), tokens, pooled)


class Random:
    """A small network with random weights; what goes in and comes out is of size 1 at every noise level."""

    shape = SHAPE

    def __init__(self, sampling: Mix):
        generator = torch.Generator().manual_seed(SEED)
        self.sampling = sampling
        sizes = ((SHAPE[0] + 2, 16), (16, 16), (16, SHAPE[0]))
        self.weights = [torch.randn(out, into, 3, 3, generator=generator) / (3 * into**0.5) for into, out in sizes]

    def __call__(self, apply_model, given: dict) -> torch.Tensor:
        x, sigma = given["input"], float(given["timestep"][0])
        kinds = torch.tensor(given["cond_or_uncond"]).repeat_interleave(len(x) // len(given["cond_or_uncond"]))
        size = 1.0 if self.sampling.flow else math.hypot(1.0, sigma)
        level = sigma if self.sampling.flow else math.log(sigma) / 4
        told = torch.stack([torch.full((len(x),), level), 1.0 - kinds]).T[..., None, None].expand(-1, -1, *SHAPE[1:])
        out = torch.cat([x / size, told], 1)
        for weight in self.weights:
            out = torch.nn.functional.conv2d(out.sin(), weight, padding=1)
        return x - sigma * out if self.sampling.flow else x / size**2 + sigma / size * out
