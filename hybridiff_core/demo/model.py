"""A small text-conditioned diffusion transformer with random weights, and an Euler sampler for it.

It draws nothing; it costs what a real one costs, block for block, and shows that two processes
give the numbers of one. Flow matching as in Stable Diffusion 3: x_sigma = (1 - sigma) x_0 + sigma n,
the network predicts the velocity v, and denoised = x - sigma v.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from ..network.split import Pass
from ..network.tokens import Form, Look, Shard


@dataclass(frozen=True)
class ModelConfig:
    """`size` latent pixels a side, cut in patches of 2; `width` channels in each of `depth` blocks."""

    size: int = 64
    channels: int = 4
    width: int = 256
    depth: int = 4
    heads: int = 4
    context_width: int = 128
    context_length: int = 16
    seed: int = 0


class Block(nn.Module):
    """Self-attention over patches, cross-attention to the text, an MLP; each scaled by the time (adaLN)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.scale_shift = nn.Linear(width, 6 * width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(config.context_width, 2 * width)
        self.out_text = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, h: Tensor, context: Tensor, time: Tensor, shard: Shard | None = None, tokens: int = 0) -> Tensor:
        scale1, shift1, scale2, shift2, scale3, shift3 = self.scale_shift(time).unsqueeze(1).chunk(6, dim=-1)
        n = F.layer_norm(h, h.shape[-1:]) * (1 + scale1) + shift1
        q, k, v = self._by_heads(*self.qkv(n).chunk(3, dim=-1))
        h = h + self.out(_shared(shard, q, k, v, tokens) if shard else _attend(q, k, v))
        n = F.layer_norm(h, h.shape[-1:]) * (1 + scale2) + shift2
        h = h + self.out_text(_attend(*self._by_heads(self.q(n), *self.kv(context).chunk(2, dim=-1))))
        n = F.layer_norm(h, h.shape[-1:]) * (1 + scale3) + shift3
        return h + self.mlp(n)

    def _by_heads(self, *tensors: Tensor) -> list[Tensor]:
        return [tensor.unflatten(-1, (self.heads, -1)).transpose(1, 2) for tensor in tensors]


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def _shared(shard: Shard, q: Tensor, k: Tensor, v: Tensor, tokens: int) -> Tensor:
    """This device's queries attend to the keys of all `tokens`; q, k, v [batch, heads, its own tokens, width]."""
    q, k, v = (tensor.chunk(shard.halves, dim=1) for tensor in (q, k, v))
    pairs = shard.exchange(list(zip(k, v)), 2, tokens)
    return torch.cat([_attend(some, *pair) for some, pair in zip(q, pairs)], dim=-1)


class SmallModel(nn.Module):
    """v = f(x, sigma, context). x [batch, channels, size, size]; sigma [batch]; context [batch, length, width]."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        torch.manual_seed(config.seed)
        self.config = config
        self.patch = nn.Linear(4 * config.channels, config.width)
        self.position = nn.Parameter(0.02 * torch.randn(1, (config.size // 2) ** 2, config.width))
        self.time = nn.Sequential(nn.Linear(64, config.width), nn.SiLU(), nn.Linear(config.width, config.width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.final = nn.Linear(config.width, 4 * config.channels)

    def forward(self, x: Tensor, sigma: Tensor, context: Tensor, through: Pass | Look | Shard | None = None) -> Tensor:
        time = self.time(_waves(sigma))
        h = self.patch(F.pixel_unshuffle(x, 2).flatten(2).transpose(1, 2)) + self.position
        tokens, attends = h.shape[1], tuple(range(0, 2 * len(self.blocks), 2))  # each block attends to the text too
        if isinstance(through, Look):
            crossing = 2 * len(self.blocks) * self.config.width * h.element_size()
            through.form = Form(len(self.blocks), attends, tokens, 0, crossing)
        if isinstance(through, Shard):
            h = h[:, slice(*through.mine(tokens))]
            for block in self.blocks:
                h = block(h, context, time, through, tokens)
            h = through.gather(h, 1, tokens)
        else:
            at = through.at if isinstance(through, Pass) else Pass().at
            for i, block in enumerate(self.blocks):
                (h,) = at(i, (h,), lambda state, block=block: (block(state[0], context, time),))
        v = self.final(F.layer_norm(h, h.shape[-1:])).transpose(1, 2)
        return F.pixel_shuffle(v.unflatten(2, (self.config.size // 2, -1)), 2)

    def denoise(self, x: Tensor, sigma: Tensor, context: Tensor, through: Pass | Look | Shard | None = None) -> Tensor:
        """The prediction in denoised space, x - sigma v, of x's shape; `through` is asked at each block."""
        return x - sigma.view(-1, 1, 1, 1) * self(x, sigma, context, through)


def _waves(sigma: Tensor) -> Tensor:
    frequencies = torch.exp(-math.log(1e4) * torch.arange(32, device=sigma.device) / 32)
    angles = 1000 * sigma[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def words_to_context(prompt: str, config: ModelConfig) -> Tensor:
    """A stand-in for a text encoder: each word's letters seed its vector. [1, length, width]."""
    context = torch.zeros(1, config.context_length, config.context_width)
    for i, word in enumerate(prompt.split()[: config.context_length]):
        generator = torch.Generator().manual_seed(int.from_bytes(word.encode()[:7], "big"))
        context[0, i] = torch.randn(config.context_width, generator=generator)
    return context


def sigmas(steps: int) -> Tensor:
    """Flow-matching times from 1 down to 0, `steps` + 1 of them."""
    return torch.linspace(1, 0, steps + 1)


def sample_euler(
    predict: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], x: Tensor, sigmas: Tensor, cfg: float
) -> Tensor:
    """Euler's method with classifier-free guidance; `predict` gives (d_c, d_u) at (x, sigma)."""
    for sigma, sigma_next in itertools.pairwise(sigmas):
        d_c, d_u = predict(x, sigma.expand(x.shape[0]))
        denoised = d_u + cfg * (d_c - d_u)
        d = (x - denoised) / sigma
        x = x + d * (sigma_next - sigma)
    return x
