"""PyTorch's process-wide settings that change what a forward computes, as plain data.

They are no launch options: a node or another pack switches them while the program runs. So a worker is told them with
each run, and computes as the sampler's process does.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

import torch

from .. import lines

log = logging.getLogger("hybridiff.worker")

PRECISION = "float32_matmul_precision"
# read and set as attributes of torch.backends, in this order: a later one is a part of an earlier one
ATTRIBUTES = (
    "cudnn.enabled",
    "cudnn.benchmark",
    "cudnn.deterministic",
    "cudnn.allow_tf32",
    "cuda.matmul.allow_tf32",
    "cuda.matmul.allow_fp16_reduced_precision_reduction",
    "cuda.matmul.allow_bf16_reduced_precision_reduction",
    "cuda.matmul.allow_fp16_accumulation",
    "mkldnn.enabled",
    "mkldnn.deterministic",
    "fp32_precision",
    "cuda.matmul.fp32_precision",
    "cudnn.fp32_precision",
    "cudnn.conv.fp32_precision",
    "cudnn.rnn.fp32_precision",
    "mkldnn.fp32_precision",
    "mkldnn.matmul.fp32_precision",
    "mkldnn.conv.fp32_precision",
    "mkldnn.rnn.fp32_precision",
)
# those of torch.backends.cuda that have a function to read and one to set
SWITCHES = {
    "flash_sdp_enabled": "enable_flash_sdp",
    "mem_efficient_sdp_enabled": "enable_mem_efficient_sdp",
    "math_sdp_enabled": "enable_math_sdp",
    "cudnn_sdp_enabled": "enable_cudnn_sdp",
    "fp16_bf16_reduction_math_sdp_allowed": "allow_fp16_bf16_reduction_math_sdp",
}
DETERMINISTIC = {
    "deterministic": torch.are_deterministic_algorithms_enabled,
    "deterministic_warns": torch.is_deterministic_algorithms_warn_only_enabled,
}
# what a setting of such a name can be; the others are on or off
PRECISIONS = {"matmul_precision": ("highest", "high", "medium"), "fp32_precision": ("none", "ieee", "tf32", "bf16")}


def read() -> dict[str, bool | str]:
    """What is set in this process. What this PyTorch does not have, or cannot tell at the moment, is left out."""
    readers = {
        PRECISION: torch.get_float32_matmul_precision,
        **{name: functools.partial(_get, name) for name in ATTRIBUTES},
        **{name: getattr(torch.backends.cuda, name) for name in SWITCHES if hasattr(torch.backends.cuda, name)},
        **DETERMINISTIC,
    }
    return {name: value for name, reader in readers.items() if (value := _read(name, reader)) is not None}


def lay(told: dict[str, bool | str]) -> None:
    """Set what `read` gave in another process. Raises ValueError for what it cannot have given."""
    known = {PRECISION, *ATTRIBUTES, *SWITCHES, *DETERMINISTIC}
    if not isinstance(told, dict) or not told.keys() <= known:
        raise ValueError(lines.WRONG_VALUE(what="PyTorch's settings", value=repr(told)[:80]))
    for name, value in told.items():
        if not _can_be(name, value):
            raise ValueError(lines.WRONG_VALUE(what=f"a value of {name}", value=repr(value)[:80]))
    own = read()
    changed = {name: value for name, value in told.items() if own.get(name) != value}
    if not changed:
        return
    # all in their order: PyTorch changes several where one is set, and cannot tell one where a part of it is set alone
    if PRECISION in told:
        torch.set_float32_matmul_precision(told[PRECISION])
    for name in ATTRIBUTES:
        if name in told:
            _set(name, told[name])
    for name, setter in SWITCHES.items():
        if name in changed:
            getattr(torch.backends.cuda, setter)(told[name])
    if DETERMINISTIC.keys() & changed:
        warns = told.get("deterministic_warns", False)
        torch.use_deterministic_algorithms(told.get("deterministic", False), warn_only=warns)
    log.debug("PyTorch's settings changed: %s", changed)


def _read(name: str, reader: Callable[[], object]) -> bool | str | None:
    try:
        value = reader()
    except (AttributeError, RuntimeError):  # an older or newer PyTorch; two ways to set the same that were mixed
        return None
    return value if _can_be(name, value) else None


def _can_be(name: str, value: object) -> bool:
    of = next((values for ending, values in PRECISIONS.items() if name.endswith(ending)), None)
    return isinstance(value, bool) if of is None else isinstance(value, str) and value in of


def _owner(name: str) -> tuple[object, str]:
    *way, last = name.split(".")
    return functools.reduce(getattr, way, torch.backends), last


def _get(name: str) -> object:
    owner, last = _owner(name)
    return getattr(owner, last)


def _set(name: str, value: bool | str) -> None:
    try:
        if _read(name, functools.partial(_get, name)) != value:
            setattr(*_owner(name), value)
    except (AttributeError, RuntimeError) as error:
        log.debug("PyTorch does not take %s for %s: %s", value, name, error)
