"""How much two predictions differ: the denoising discrepancy, its slope, and the closed loop's error."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch


def rel_mae(d_c: torch.Tensor, d_u: torch.Tensor, x: torch.Tensor) -> float:
    """The denoising discrepancy M = mean|eps_c - eps_u| / mean|eps_u|, the mean over a batch's images.

    From predictions in denoised space, d = x - sigma eps (or x - sigma v): sigma cancels, and
    M = mean|d_c - d_u| / mean|x - d_u| for every kind of model. All three [batch, channels, ...].
    Source: arXiv 2602.21760, eq. for rel-MAE.
    """
    difference = (d_c - d_u).abs().flatten(1).mean(1)
    size = (x - d_u).abs().flatten(1).mean(1)
    return (difference / size.clamp_min(1e-20)).mean().item()


def drop_per_step(curve: Sequence[float], window: int) -> float | None:
    """G_t = (M_{t-L} - M_t) / L at the curve's end; None while there are not more than L values."""
    if len(curve) <= window:
        return None
    return (curve[-1 - window] - curve[-1]) / window


def is_flat(curve: Sequence[float], window: int, threshold: float) -> bool:
    """The paper's slope rule at the curve's end: the discrepancy still falls, but by less than g a step."""
    drop = drop_per_step(curve, window)
    return drop is not None and 0 <= drop < threshold


def relative_error(estimate: Sequence[torch.Tensor], truth: Sequence[torch.Tensor]) -> float:
    """mean|estimate - truth| / mean|truth|, the largest of it over the tensors given; infinite where it is none."""
    errors = []
    for a, b in zip(estimate, truth, strict=True):
        a, b = a.float(), b.float()  # half precision has no room for the guard against 0 / 0
        errors.append(((a - b).abs().mean() / b.abs().mean().clamp_min(1e-20)).item())
    return max(math.inf if math.isnan(error) else error for error in errors)
