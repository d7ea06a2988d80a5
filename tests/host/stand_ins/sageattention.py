"""Stands in for the kernels of that name, which need a GPU: plain attention in single precision."""

import torch


def sageattn(q, k, v, tensor_layout="HND", is_causal=False, attn_mask=None, **_):
    """Queries, keys, values [batch, heads, tokens, width] for HND, [batch, tokens, heads, width] for NHD."""
    if tensor_layout == "NHD":
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
    single = (part.float() for part in (q, k, v))
    out = torch.nn.functional.scaled_dot_product_attention(*single, attn_mask=attn_mask, is_causal=is_causal)
    return (out.transpose(1, 2) if tensor_layout == "NHD" else out).to(q.dtype)
