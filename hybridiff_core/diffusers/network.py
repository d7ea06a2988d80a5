"""A diffusers network as a recipe: its class, its configuration, its weights; and the network again.

The weights cross as tensors, each once, so a worker reads no file, and what was laid over the
weights before (a fused LoRA) is in them. `CannotCross` says in words for users what has no recipe.
"""

from __future__ import annotations

import weakref

import torch
from diffusers import SD3Transformer2DModel, UNet2DConditionModel
from torch import Tensor, nn
from torch.autograd.graph import increment_version

from .. import lines
from ..call import Rows
from ..workers.wire import CannotCross

CLASSES = {cls.__name__: cls for cls in (UNet2DConditionModel, SD3Transformer2DModel)}
SAMPLE = {UNet2DConditionModel: "sample", SD3Transformer2DModel: "hidden_states"}  # what forward calls x
# what else of a call crosses to a worker
CONDITIONING = {"encoder_hidden_states", "pooled_projections", "added_cond_kwargs", "timestep_cond"}
# attention that computes what the network's own does
ATTENTION = {"AttnProcessor", "AttnProcessor2_0", "JointAttnProcessor2_0", "XFormersAttnProcessor"}
FREEU = ("s1", "s2", "b1", "b2")
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

# of each network's tensors by name: the tensor, its version, its fingerprint, when a recipe was last made
_seen: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def recipe_of(network: nn.Module) -> dict:
    """The recipe for `network`. Raises CannotCross."""
    for name, module in network.named_modules():
        _check_module(name or type(network).__name__, module, inner=module is not network)
    for processor in network.attn_processors.values():
        if type(processor).__name__ not in ATTENTION:
            raise CannotCross(lines.UNKNOWN_ATTENTION(name=type(processor).__name__))
    config = {name: value for name, value in network.config.items() if not name.startswith("_")}
    return {"class": type(network).__name__, "config": config, "state": _state_of(network)}


def _check_module(name: str, module: nn.Module, inner: bool) -> None:
    """Code that was put into the network since it was made is not in a worker's. Raises CannotCross."""
    if type(module).__module__.partition(".")[0] == "peft":
        raise CannotCross(lines.LORA_BESIDE_WEIGHTS())
    if inner and ("forward" in vars(module) or module._forward_hooks or module._forward_pre_hooks):
        raise CannotCross(lines.MODULE_HAS_CODE(name=name))
    if any(getattr(module, attribute, None) for attribute in FREEU):
        raise CannotCross(lines.FREEU())


def _state_of(network: nn.Module) -> dict[str, Tensor]:
    """The network's tensors by name.

    Which of them a worker holds is known by torch's version counters (wire.Ledger). A change by
    `.data`, as PEFT makes it, moves no counter: the fingerprint shows it, and the counter is moved here.
    """
    state = dict(network.state_dict(keep_vars=True))
    for name, tensor in state.items():
        if type(tensor) not in (Tensor, nn.Parameter) or tensor.is_meta:
            raise CannotCross(lines.QUANTIZED(name=name))
        if tensor.is_inference():
            raise CannotCross(lines.INFERENCE_TENSOR(name=name))
    seen = _seen.setdefault(network, {})
    for (name, tensor), fingerprint in zip(state.items(), _fingerprints(list(state.values()))):
        known, version, before = seen.get(name, (lambda: None, None, None))
        if known() is tensor and version == tensor._version and before != fingerprint:
            increment_version(tensor)
        seen[name] = (weakref.ref(tensor), tensor._version, fingerprint)
    return state


def _fingerprints(tensors: list[Tensor]) -> list[int]:
    """A number for each tensor's bits: the sum of the rows' sums, each times its row's number."""
    sums = []
    for tensor in tensors:
        bits = tensor.detach().view(INTEGERS[tensor.element_size()])
        rows = bits.reshape(bits.shape[0] if bits.ndim else 1, -1).sum(1, dtype=torch.int64)
        sums.append((rows * torch.arange(1, len(rows) + 1, device=rows.device)).sum())
    by_device: dict[torch.device, list[int]] = {}
    for number, value in enumerate(sums):
        by_device.setdefault(value.device, []).append(number)
    found = {}
    for numbers in by_device.values():  # one transfer a device
        found |= dict(zip(numbers, torch.stack([sums[number] for number in numbers]).tolist()))
    return [found[number] for number in range(len(sums))]


def network_of(recipe: dict, device: torch.device) -> nn.Module:
    """The network that `recipe` describes, on `device`. Raises ValueError, RuntimeError."""
    if recipe["class"] not in CLASSES:
        raise ValueError(lines.NETWORK_NOT_KNOWN(kind=recipe["class"], known=", ".join(CLASSES)))
    with torch.device("meta"):
        network = CLASSES[recipe["class"]].from_config(recipe["config"])
    network.requires_grad_(False).eval()
    network.load_state_dict(recipe["state"], strict=True, assign=True)
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        if tensor.is_meta:
            raise RuntimeError(lines.WEIGHT_MISSING(name=name))
    return network.to(device)


def half(value: object, branch: int, batch: int) -> object:
    """Of a call's arguments for [uncond, cond], a batch in all, those of one branch; 0 is cond, 1 uncond."""
    if isinstance(value, dict):
        return {name: half(item, branch, batch) for name, item in value.items()}
    if isinstance(value, Tensor) and value.ndim and value.shape[0] == batch:
        return value.chunk(2)[1 - branch]
    return value


def of_rows(value: object, rows: Rows | None) -> object:
    """Of a call's arguments for a batch, those of some of its items."""
    if rows is None:
        return value
    if isinstance(value, dict):
        return {name: of_rows(item, rows) for name, item in value.items()}
    first, end, batch = rows
    return value[first:end] if isinstance(value, Tensor) and value.ndim and value.shape[0] == batch else value
