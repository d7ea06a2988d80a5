"""Stable Diffusion 3's transformer (MMDiT, arXiv 2403.03206) and a TAESD decoder, small, for the demo's weights.

Names of weights as in the published files, so that ComfyUI reads the same file.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from ..network.split import Pass

HEAD = 64  # an SD3 network of depth d has d heads of this width


class Norm(nn.Module):
    """RMS norm of a head's queries or keys."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.weight, eps=1e-6)


class Attention(nn.Module):
    def __init__(self, width: int, last: bool):
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.ln_q, self.ln_k = Norm(HEAD), Norm(HEAD)
        if not last:
            self.proj = nn.Linear(width, width)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[batch, heads, length, HEAD] each."""
        q, k, v = (part.unflatten(-1, (-1, HEAD)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        return self.ln_q(q), self.ln_k(k), v


class Mlp(nn.Module):
    def __init__(self, inner: int, width: int, out: int, activation: nn.Module, names: tuple[str, str, str]):
        super().__init__()
        for name, module in zip(names, (nn.Linear(inner, width), activation, nn.Linear(width, out))):
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        for module in self.children():
            x = module(x)
        return x


class Stream(nn.Module):
    """One of a block's two streams, text or picture. The last block's text stream only gives keys and values."""

    def __init__(self, width: int, last: bool):
        super().__init__()
        self.last = last
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, (2 if last else 6) * width))
        self.attn = Attention(width, last)
        if not last:
            self.mlp = Mlp(width, 4 * width, width, nn.GELU(approximate="tanh"), ("fc1", "act", "fc2"))

    def before(self, x: Tensor, time: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], list[Tensor]]:
        shift, scale, *rest = self.adaLN_modulation(time)[:, None].chunk(2 if self.last else 6, dim=-1)
        return self.attn.heads(_scaled(x, shift, scale)), rest

    def after(self, x: Tensor, attended: Tensor, rest: list[Tensor]) -> Tensor:
        gate, shift, scale, gate_mlp = rest
        x = x + gate * self.attn.proj(attended)
        return x + gate_mlp * self.mlp(_scaled(x, shift, scale))


class Joint(nn.Module):
    def __init__(self, width: int, last: bool):
        super().__init__()
        self.context_block, self.x_block = Stream(width, last), Stream(width, False)

    def forward(self, context: Tensor, x: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        of_context, rest_context = self.context_block.before(context, time)
        of_x, rest_x = self.x_block.before(x, time)
        q, k, v = (torch.cat(pair, dim=2) for pair in zip(of_context, of_x))
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        length = context.shape[1]
        x = self.x_block.after(x, attended[:, length:], rest_x)
        if not self.context_block.last:
            context = self.context_block.after(context, attended[:, :length], rest_context)
        return context, x


class Final(nn.Module):
    def __init__(self, width: int, out: int):
        super().__init__()
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.linear = nn.Linear(width, out)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(time)[:, None].chunk(2, dim=-1)
        return self.linear(_scaled(x, shift, scale))


class Embedder(nn.Module):
    def __init__(self, inner: int, width: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(inner, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x)


class SmallSD3(nn.Module):
    """v = f(x, sigma, context, pooled). x [batch, 16, side, side] up to the side of the position's grid."""

    def __init__(self, depth: int = 4, channels: int = 16, context: int = 768, pooled: int = 768, grid: int = 16):
        super().__init__()
        width, self.channels, self.grid = HEAD * depth, channels, grid
        self.x_embedder = nn.Module()
        self.x_embedder.proj = nn.Conv2d(channels, width, 2, stride=2)
        self.register_buffer("pos_embed", torch.zeros(1, grid * grid, width))
        self.t_embedder, self.y_embedder = Embedder(256, width), Embedder(pooled, width)
        self.context_embedder = nn.Linear(context, width)
        self.joint_blocks = nn.ModuleList(Joint(width, last=i == depth - 1) for i in range(depth))
        self.final_layer = Final(width, 4 * channels)

    def forward(self, x: Tensor, sigma: Tensor, context: Tensor, pooled: Tensor, through: Pass | None = None) -> Tensor:
        through = through if isinstance(through, Pass) else Pass()  # its forwards are not divided by tokens
        time = self.t_embedder(_waves(1000 * sigma)) + self.y_embedder(pooled)
        rows, columns = x.shape[-2] // 2, x.shape[-1] // 2
        top, left = (self.grid - rows) // 2, (self.grid - columns) // 2
        position = self.pos_embed.unflatten(1, (self.grid, self.grid))[:, top : top + rows, left : left + columns]
        state = (
            self.context_embedder(context),
            self.x_embedder.proj(x).flatten(2).transpose(1, 2) + position.flatten(1, 2),
        )
        for i, block in enumerate(self.joint_blocks):
            state = through.at(i, state, lambda state, block=block: block(*state, time))
        patches = self.final_layer(state[1], time).view(-1, rows, columns, 2, 2, self.channels)
        return patches.permute(0, 5, 1, 3, 2, 4).reshape(x.shape)

    def denoise(self, x: Tensor, sigma: Tensor, context: Tensor, pooled: Tensor, through: Pass | None = None) -> Tensor:
        """The prediction in denoised space, of x's shape; `through` is asked at each block."""
        return x - sigma.view(-1, 1, 1, 1) * self(x, sigma, context, pooled, through)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        convolutions = [nn.Conv2d(64, 64, 3, padding=1) for _ in range(3)]
        self.conv = nn.Sequential(convolutions[0], nn.ReLU(), convolutions[1], nn.ReLU(), convolutions[2])

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x) + x)


class Squash(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 3 * torch.tanh(x / 3)


class Decoder(nn.Sequential):
    """TAESD's decoder: the network's latents to pictures in 0 to 1, eight times as large."""

    def __init__(self, channels: int = 16):
        layers: list[nn.Module] = [Squash(), nn.Conv2d(channels, 64, 3, padding=1), nn.ReLU()]
        for _ in range(3):
            layers += [Residual(), Residual(), Residual(), nn.Upsample(scale_factor=2)]
            layers += [nn.Conv2d(64, 64, 3, padding=1, bias=False)]
        super().__init__(*layers, Residual(), nn.Conv2d(64, 3, 3, padding=1))


def _scaled(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


def _waves(time: Tensor, width: int = 256) -> Tensor:
    frequencies = torch.exp(-math.log(1e4) * torch.arange(width // 2, device=time.device) / (width // 2))
    angles = time[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)
