"""Hybridiff for pipelines of the diffusers library: `accelerate(pipe, devices)`, then `pipe(...)` as ever."""

from ..plan import HybridPlan
from .accelerate import Acceleration, accelerate

__all__ = ["Acceleration", "HybridPlan", "accelerate"]
