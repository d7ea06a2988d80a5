"""What the engine is told of a run (hybridiff_core/setting.py), from the host's model and sampler."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import comfy.k_diffusion.sampling as k_diffusion
import comfy.model_sampling
import torch

from ...hybridiff_core.paces import Paces
from ...hybridiff_core.plan import HybridPlan
from ...hybridiff_core.setting import Cuts, Forms, Setting
from ...hybridiff_core.workers.wire import dtype_name
from .comparing import fingerprint, output_of
from .cuts import DitSplit, UnetSplit
from .recipe import name_of
from .remaking import Remaking


def setting_of(
    made: Remaking,
    plan: HybridPlan,
    sampler: object,
    sigmas: Sequence[float],
    cfg: float,
    splitter: DitSplit | UnetSplit,
    known: tuple[Cuts, Paces, Forms],
    by_pace: bool,
) -> Setting:
    """The setting of a run of `made`'s model; `known` is what runs before it found, `by_pace` says that paces count."""
    patcher, (cuts, paces, forms) = made.patcher, known
    sampling = patcher.get_model_object("model_sampling")
    # weakly: an engine's parts hold each other, and so what they hold, until Python looks for such cycles
    held, cuttable, serial = weakref.ref(patcher), weakref.ref(splitter), made.serial
    return Setting(
        plan,
        sigmas,
        cfg=cfg,
        time=lambda sigma: float(sampling.timestep(torch.tensor([sigma]))),
        openings=lambda *of: cuttable().openings(*of),
        cuts=cuts,
        paces=paces if by_pace else None,
        forms=forms,
        name=name_of(made.recipe) if made.recipe else None,
        proof=lambda: (fingerprint(held()), serial),
        output=output_of(sampling),
        dtype=dtype_name(patcher.model.get_dtype_inference()),
        flow=isinstance(sampling, comfy.model_sampling.CONST),
        scale=getattr(sampling, "noise_scale", 1.0) / getattr(sampling, "sigma_data", 1.0),
        first_order=_is_euler(sampler),
    )


def _is_euler(sampler: object) -> bool:
    """Whether its steps are Euler's, without noise: euler, and ddim, which the host makes of it."""
    function = getattr(sampler, "sampler_function", None)
    return function is k_diffusion.sample_euler and not getattr(sampler, "extra_options", {}).get("s_churn")
