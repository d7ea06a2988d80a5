"""Why something is not shared, in words for users."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP, WrappersMP

from . import conditioning
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
# options in which the network itself keeps state from call to call; a worker would keep its own
STATE_OPTIONS = ("ar_state",)

ONE_BRANCH = "CFG 1 has one branch, so there is nothing to share"
ONE_BY_ONE = "a node asks for one branch at a time, so there is nothing to share"
ONE_AT_A_TIME = "where only one prompt is active, there is nothing to share"
ONE_COND = "only one branch has conditioning, so nothing is shared"
NOT_ASKED = "a node computes the branches in code of its own, so there is nothing to share"
SPLIT_BY_THE_HOST = "ComfyUI's own MultiGPU CFG Split is on this model, so Hybridiff stands aside"
WRAPPED = "a node wraps the branches' computation after Hybridiff; put Hybridiff last on the model"
WRAPPED_WHOLE = "a node wraps the whole network in code of its own, which a second process does not have"
APPLY_MODEL_REPLACED = "a pack replaced ComfyUI's apply_model"


def _channels(found: int, takes: int) -> str:
    return f"the latent has {found} channels, and this model takes {takes}"


def _patched(names: Iterable[str]) -> str:
    return f"a node patches the network from inside ({', '.join(sorted(names))})"


def _state(name: str) -> str:
    return f"a sampler keeps state inside the network ({name})"


def _runs_inside(kind: str, packs: Sequence[str]) -> str:
    of_packs = f"{kind}: {', '.join(packs)}" if packs else kind
    return f"a node runs code of its own inside the network ({of_packs})"


def _method_replaced(name: str) -> str:
    return f"a node replaced the model's {name}"


def _function_replaced(name: str) -> str:
    return f"a pack replaced ComfyUI's {name}"


def _every_branch_has(reasons: Sequence[str]) -> str:
    *others, last = reasons or ["a default cond"]
    either = f"{', '.join(others)} or {last}" if others else last
    return f"every branch has {either}, which cannot cross"


# -- the model


def misfit(patcher: ModelPatcher, noise: torch.Tensor, shapes: Sequence | None) -> str | None:
    """What is wrong with the latent: a worker would only fail on it."""
    takes = patcher.get_model_object("latent_format").latent_channels
    if noise.shape[1] == takes or len(shapes or ()) > 1:  # several latents come packed into one
        return None
    return _channels(noise.shape[1], takes)


def obstacle(patcher: ModelPatcher, model_options: dict) -> str | None:
    """Why this model cannot be shared, as far as that shows without its recipe; None where it can."""
    if patcher.get_additional_models_with_key("multigpu"):
        return SPLIT_BY_THE_HOST
    return code_inside(model_options)


def code_inside(model_options: dict) -> str | None:
    """Which code of other nodes runs inside the network: a worker does not have it."""
    inner = model_options["transformer_options"]
    if "model_function_wrapper" in model_options:
        return WRAPPED_WHOLE
    for name in ("patches", "patches_replace"):
        if any(inner.get(name, {}).values()):
            return _patched(inner[name])
    for name in STATE_OPTIONS:
        if name in inner:
            return _state(name)
    for kind, chosen in (("wrappers", INNER_WRAPPERS), ("callbacks", INNER_CALLBACKS)):
        for of_kind in chosen:
            keys = [key for key, found in inner.get(kind, {}).get(of_kind, {}).items() if found]
            if keys:
                return _runs_inside(of_kind, [key for key in keys if isinstance(key, str)])  # others name no pack
    return None


def code_around(executor: Callable, model: torch.nn.Module) -> str | None:
    """Which code of other packs a worker would miss that was put in place without a node's options."""
    if executor.wrappers[executor.idx + 1 :]:  # added while the run goes on
        return WRAPPED
    for owner, name in ((model, "apply_model"), (model, "_apply_model"), (model.diffusion_model, "forward")):
        if replaced(owner, name):
            return _method_replaced(name)
    if model.diffusion_model._forward_hooks or model.diffusion_model._forward_pre_hooks:
        return _method_replaced("forward")
    if not of_the_host(executor.original):
        return _function_replaced(executor.original.__name__)
    if not (of_the_host(type(model).apply_model) and of_the_host(type(model)._apply_model)):
        return APPLY_MODEL_REPLACED
    return None


# -- the conds


def expected_conds(guidance: Guidance, controls: Controls) -> int:
    """How many conds a call will have, 0 where all of them stay here: a worker for nothing costs memory."""
    conds = guidance.expected
    crosses = any(conditioning.staying_reason(cond, controls) is None for cond in conds)
    return len(conds) if crosses else 0


def all_stay(conds: Iterable[conditioning.Cond], controls: Controls) -> str:
    """Why no cond of a call can be computed by a worker."""
    reasons = {conditioning.staying_reason(cond, controls) for cond in conds} - {None}
    by_key = [words for words in conditioning.STAYING_KEYS.values() if words in reasons]
    # a ControlNet's come last, or it would read "a ControlNet with hooks or hooks"
    return _every_branch_has(by_key + sorted(reasons.difference(by_key)))


def why_one(guidance: Guidance, asked: bool, timed: bool) -> str:
    """Why no call had more than one branch in it.

    `asked` says that there was a call, `timed` that there was one of several branches, of which others were not due.
    """
    if not asked:
        return NOT_ASKED
    if guidance.off:
        return ONE_BRANCH
    if guidance.branches < 2:
        return ONE_COND
    return ONE_AT_A_TIME if timed else ONE_BY_ONE
