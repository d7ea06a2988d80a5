"""Which of a model's transformer_options cross to a worker: those that ComfyUI's own networks read, and no others.

tests/host/test_options.py compares these sets with the host's sources.
"""

from __future__ import annotations

from ...hybridiff_core import lines
from ...hybridiff_core.workers.wire import CannotCross, encode
from .conditioning import KINDS

# plain values that a network, or what is around it in a worker, reads
READ = {
    "a2v_cross_attn",
    "audio_embeds",
    "chroma_radiance_options",
    "minimax_h3_sigma_shift_audio",
    "minimax_h3_sigma_shift_video",
    "rope_options",
    "run_ax",
    "run_vx",
    "sample_sigmas",
    "stg_self_attn_blocks",
    "v2a_cross_attn",
}
# code of other nodes; the wrappers and callbacks of a process are its own
CODE = {"optimized_attention_override", "patches", "patches_replace", "wrappers", "callbacks"}
# what a network keeps from call to call; a worker would keep its own
STATE = {"animate2_cache", "ar_state"}
ADDED_TO = "ar_state"  # of these, what each call adds to: no call can be left out
# what each process puts there itself, for a call or for a block
MADE_ANEW = {
    "block",
    "block_index",
    "cond_or_uncond",
    "context_window",
    "grid_sizes",
    "model_patch_data",
    "prefetch_dynamic_vbars",
    "sigmas",
    "stg_skip_self_attn",
    "transformer_index",
    "uuids",
    "x_ref_attn_map",
}


def crossing(inner: dict, to_code: bool = False) -> dict:
    """The part of the transformer_options `inner` that a worker needs; with `to_code` what code of nodes may read."""
    return {key: value for key, value in inner.items() if key in READ or (to_code and is_message(key, value))}


def is_message(key: str, value: object) -> bool:
    """Whether an option is a plain value from one node to another's code."""
    return key not in (CODE | STATE | MADE_ANEW) and type(value) in (bool, int, float, str, type(None))


def code(inner: dict) -> str | None:
    """Which code of other nodes, or state of the network, is in the transformer_options `inner`; None for neither."""
    for name in ("patches", "patches_replace"):
        if any(inner.get(name, {}).values()):
            return lines.NETWORK_PATCHED(patches=", ".join(sorted(inner[name])))
    if "optimized_attention_override" in inner:
        return lines.ATTENTION_BY_A_NODE()
    return next((lines.STATE_IN_NETWORK(name=name) for name in sorted(STATE) if name in inner), None)


def goes_on(inner: dict) -> bool:
    """Whether the network goes on from what it kept of the call before, as autoregressive video does."""
    return ADDED_TO in inner


def unsendable(inner: dict) -> str | None:
    """Which value in `inner` a worker would need and cannot be sent; None where all can."""
    for name, value in crossing(inner).items():
        try:
            encode(value, lambda tensor: 0, KINDS, f"the option {name}")
        except CannotCross as error:
            return str(error)
    return None
