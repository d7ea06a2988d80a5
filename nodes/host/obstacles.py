"""Why something is not shared, in words for users."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP, WrappersMP

from ...hybridiff_core import lines
from . import conditioning, options
from .control import Controls
from .foreign import of_the_host, replaced
from .guidance import Guidance

# patches and wrappers that run inside the network, where a worker would need their code
INNER_WRAPPERS = (WrappersMP.APPLY_MODEL, WrappersMP.DIFFUSION_MODEL)
INNER_CALLBACKS = (
    CallbacksMP.ON_LOAD,
    CallbacksMP.ON_PRE_RUN,
    CallbacksMP.ON_PREPARE_STATE,
    CallbacksMP.ON_APPLY_HOOKS,
    CallbacksMP.ON_INJECT_MODEL,
)


# -- the model


def misfit(patcher: ModelPatcher, noise: torch.Tensor, shapes: Sequence | None) -> str | None:
    """What is wrong with the latent: a worker would only fail on it."""
    takes = patcher.get_model_object("latent_format").latent_channels
    if noise.shape[1] == takes or len(shapes or ()) > 1:  # several latents come packed into one
        return None
    return lines.LATENT_MISFIT(channels=noise.shape[1], takes=takes)


def obstacle(patcher: ModelPatcher, model_options: dict) -> str | None:
    """Why this model cannot be shared, as far as that shows without its recipe; None where it can."""
    if patcher.get_additional_models_with_key("multigpu"):
        return lines.MULTIGPU_SPLIT()
    return options.unsendable(model_options["transformer_options"])


def code_inside(model_options: dict) -> str | None:
    """Which code of other nodes runs inside the network: a worker does not have it."""
    inner = model_options["transformer_options"]
    if "model_function_wrapper" in model_options:
        return lines.NETWORK_WRAPPED()
    if found := options.code(inner):
        return found
    for kind, chosen in (("wrappers", INNER_WRAPPERS), ("callbacks", INNER_CALLBACKS)):
        for of_kind in chosen:
            keys = [key for key, found in inner.get(kind, {}).get(of_kind, {}).items() if found]
            if keys:
                packs = ", ".join(key for key in keys if isinstance(key, str))  # others name no pack
                return lines.CODE_IN_NETWORK(names=f"{of_kind}: {packs}" if packs else of_kind)
    return None


def code_around(executor: Callable, model: torch.nn.Module) -> str | None:
    """Which code of other packs a worker would miss that was put in place without a node's options."""
    for owner, name in ((model, "apply_model"), (model, "_apply_model"), (model.diffusion_model, "forward")):
        if replaced(owner, name):
            return lines.MODEL_REPLACED(name=name)
    if model.diffusion_model._forward_hooks or model.diffusion_model._forward_pre_hooks:
        return lines.MODEL_REPLACED(name="forward")
    return comfyui_replaced(executor, model)


def comfyui_replaced(executor: Callable, model: torch.nn.Module) -> str | None:
    """Which code of other packs stands in the place of the host's own, or was put around the call meanwhile."""
    if executor.wrappers[executor.idx + 1 :]:  # added while the run goes on
        return lines.WRAPPED_AFTER()
    if not of_the_host(executor.original):
        return lines.COMFYUI_REPLACED(name=executor.original.__name__)
    if not (of_the_host(type(model).apply_model) and of_the_host(type(model)._apply_model)):
        return lines.COMFYUI_REPLACED(name="apply_model")
    return None


# -- the conds


def none_crosses(guidance: Guidance, controls: Controls) -> str | None:
    """Why no cond of this run can be computed by a worker; None where one can, or where the guider names none."""
    found = guidance.conds.values()
    if not any(found) or any(conditioning.crosses(cond, of, controls) for of in found for cond in of):
        return None
    return all_stay(guidance.all_conds, controls)


def expected_conds(guidance: Guidance, controls: Controls, sampling: object, sigmas: Sequence[float]) -> int:
    """How many conds of a call there will be work for, with one worker fewer; 0 where workers may have none.

    The most that are due at one of the run's `sigmas`, by the model's `sampling`. Where it does not show that this
    model is asked for them in one call, no worker is started before it is.
    """
    if not guidance.asks_at_once or not of_the_host(comfy.samplers.calc_cond_batch):
        return 0
    most = 0
    for sigma in sigmas[:-1]:
        due = [(cond, of) for of in guidance.expected for cond in of if conditioning.due_at(cond, sigma, sampling)]
        crossing = sum(conditioning.crosses(cond, of, controls) for cond, of in due)
        most = max(most, min(len(due), crossing + 1) if crossing else 0)
    return most


def all_stay(conds: Iterable[conditioning.Cond], controls: Controls) -> str:
    """Why no cond of a call can be computed by a worker."""
    reasons = {conditioning.staying_reason(cond, controls) for cond in conds} - {None}
    by_key = [line() for line in conditioning.STAYING_KEYS.values() if line() in reasons]
    what = by_key + sorted(reasons.difference(by_key)) or [lines.DEFAULT_PROMPT()]
    return lines.NOTHING_CROSSES(what=", ".join(what))


def why_one(guidance: Guidance, asked: bool, timed: bool) -> str:
    """Why no call had more than one branch in it.

    `asked` says that there was a call, `timed` that there was one of several branches, of which others were not due.
    """
    if not asked:
        return lines.NOT_ASKED()
    if guidance.off:
        return lines.CFG_1()
    if guidance.branches < 2:
        return lines.ONE_PROMPT()
    return lines.ONE_PROMPT_AT_A_TIME() if timed else lines.BRANCHES_ONE_BY_ONE()
