"""A call of the host's attention (comfy/ldm/modules/attention.py), and the same call over all devices' tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...hybridiff_core.network.tokens import Shard
from .token_slices import Slices

NAMES = ("q", "k", "v", "heads", "mask", "attn_precision", "skip_reshape", "skip_output_reshape")


@dataclass(frozen=True)
class AttentionCall:
    """q, k, v [batch, tokens, heads x width], or [batch, heads, tokens, width] with skip_reshape.

    Where there are tokens of the text beside the image's, they stand in the same order in all three.
    """

    function: Callable
    q: Tensor
    k: Tensor
    v: Tensor
    heads: int
    more: dict

    @classmethod
    def read(cls, function: Callable, args: tuple, kwargs: dict) -> AttentionCall:
        """From what the host called `function` with."""
        given = {**dict(zip(NAMES, args)), **kwargs}
        return cls(function, *(given.pop(name) for name in NAMES[:4]), given)

    def __call__(self) -> Tensor:
        return self.function(self.q, self.k, self.v, self.heads, **self.more)

    def without_queries(self) -> AttentionCall:
        """To keep: what is asked takes memory."""
        return dataclasses.replace(self, q=self.q[:0])

    @property
    def dim(self) -> int:
        """Along which the tokens stand."""
        return 2 if self.more.get("skip_reshape") else 1

    @property
    def mask(self) -> Tensor | None:
        """Added to, or chosen from, what queries find in keys: its last dimension is the keys'."""
        return self.more.get("mask")

    def is_divided(self, whole: AttentionCall) -> bool:
        """Whether this call, in a part of the forward in which `whole` was made, has fewer keys."""
        return self.k.shape[self.dim] != whole.k.shape[whole.dim]

    def bytes_a_token(self) -> int:
        """Of its keys and values, for one batch item."""
        tokens = self.k.shape[0] * self.k.shape[self.dim]
        return sum(tensor.numel() // tokens * tensor.element_size() for tensor in (self.k, self.v))

    @property
    def has_own_columns(self) -> bool:
        """Whether the mask is of this device's keys only, so that it must be put together as they are."""
        return self.mask is not None and self.mask.shape[-1] == self.k.shape[self.dim]

    @property
    def has_square_mask(self) -> bool:
        """Whether the mask was made of how many tokens there are, one for each query and key."""
        mask, n = self.mask, self.k.shape[self.dim]
        return mask is not None and mask.ndim > 1 and mask.shape[-2:] == (n, n) and self.q.shape[self.dim] == n > 1

    def in_window(self, slices: Slices, window: tuple[int, float] | None) -> AttentionCall:
        """This call of a part's with the whole's mask, which lets a token attend to those `window` says."""
        if window is None or not self.has_square_mask:
            return self
        mask = slices.window(*window, self.mask.dtype, self.mask.device)
        return dataclasses.replace(
            self, more={**self.more, "mask": mask.view(*[1] * (self.mask.ndim - 2), *mask.shape)}
        )

    def mask_along(self, dim: int) -> Tensor:
        """The mask with its keys along `dim`, in four dimensions."""
        return self.mask[(None,) * (4 - self.mask.ndim)].movedim(-1, dim)

    def over_all(self, slices: Slices, devices: Shard) -> Tensor:
        """The attention of this device's queries to the tokens of all `devices`, a Shard or what stands for one.

        Raises NotDivided where keys, values or the mask do not fit the part of the tokens in `slices`.
        """
        dim, mine, n = self.dim, slices.mine, slices.tokens
        mask, parts = self._rows(slices), self._by_heads(devices.halves)
        pairs = [(slices.image_in(k, dim, mine), slices.image_in(v, dim, mine)) for _, k, v, _, _ in parts]
        if self.has_own_columns:
            along = self.mask_along(dim)
            pairs[0] += (slices.image_in(along, dim, mine),)
        found = []
        for (q, k, v, heads, first), (keys, values, *masks) in zip(parts, devices.exchange(pairs, dim, n)):
            if masks:
                mask = slices.with_image(along, dim, mine, masks[0]).movedim(dim, -1)
            k, v = slices.with_image(k, dim, mine, keys), slices.with_image(v, dim, mine, values)
            more = {**self.more, "mask": self._of_heads(mask, first, heads)} if mask is not None else self.more
            found.append(self.function(q, k, v, heads, **more))
        return found[0] if len(found) == 1 else torch.cat(found, 1 if self.more.get("skip_output_reshape") else -1)

    def _rows(self, slices: Slices) -> Tensor | None:
        """The mask of this device's queries."""
        mask, asked = self.mask, self.q.shape[self.dim]
        whole = asked - slices.mine + slices.tokens
        if mask is None or mask.ndim < 2 or mask.shape[-2] == asked or mask.shape[-2] != whole:
            return mask
        return slices.part_of(mask, mask.ndim - 2)

    def _by_heads(self, count: int) -> list[tuple[Tensor, Tensor, Tensor, int, int]]:
        """q, k, v of so many parts of the heads, with each part's heads and the first of them."""
        given = self.q, self.k, self.v
        if count < 2 or self.heads < 2 or self.more.get("enable_gqa") or not all(map(self._has_all_heads, given)):
            return [(*given, self.heads, 0)]
        count, parts, first = min(count, self.heads), [], 0
        for part in range(count):
            heads = self.heads * (part + 1) // count - first
            parts.append((*(self._some_heads(tensor, first, heads) for tensor in given), heads, first))
            first += heads
        return parts

    def _heads_dim(self) -> int:
        """Along which the heads stand: by themselves in four dimensions, with their widths in three."""
        return 1 if self.more.get("skip_reshape") else 2

    def _has_all_heads(self, tensor: Tensor) -> bool:
        size = tensor.shape[self._heads_dim()]
        return size == self.heads if tensor.ndim == 4 else size == self.q.shape[-1]

    def _some_heads(self, tensor: Tensor, first: int, heads: int) -> Tensor:
        dim = self._heads_dim()
        width = 1 if tensor.ndim == 4 else tensor.shape[dim] // self.heads
        return tensor.narrow(dim, first * width, heads * width)

    def _of_heads(self, mask: Tensor, first: int, heads: int) -> Tensor:
        by_head = mask.ndim == 4 and mask.shape[1] == self.heads > heads
        return mask.narrow(1, first, heads) if by_head else mask


def window_of(call: AttentionCall) -> tuple[int, float] | None:
    """How far from itself a token attends to others, and what is added for those beyond; None where not by distance.

    `call` is of all tokens.
    """
    if not call.has_square_mask or not call.mask.is_floating_point():
        return None
    rows = call.mask.flatten(0, -3) if call.mask.ndim > 2 else call.mask[None]
    reach, beyond, n = int((rows[0, 0] == 0).sum()) - 1, float(rows.min()), rows.shape[-1]
    apart = torch.arange(n, device=rows.device)
    far = (apart[:, None] - apart).abs() > reach
    return (reach, beyond) if bool((rows == torch.zeros_like(rows).masked_fill_(far, beyond)).all()) else None
