"""A network's weights as plain tensors, and a network's own again from them."""

from __future__ import annotations

import math
import weakref

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher

try:
    from comfy.quant_ops import QuantizedTensor
except ImportError:  # ComfyUI before 0.4 has none
    QuantizedTensor = None

QUANT = ".comfy_quant"  # under this name a layer's state dict says how it is quantised, as JSON in bytes
SAMPLED = 64  # values by which a tensor is recognised

# the tensors of networks with quantised weights, by their modules: the host makes them anew when it moves them
_parts: weakref.WeakKeyDictionary[torch.nn.Module, dict[str, torch.nn.Parameter]] = weakref.WeakKeyDictionary()


def weights_of(network: torch.nn.Module, patcher: ModelPatcher | None = None, prefix: str = "") -> dict:
    """The state dict as it was loaded, with the module's own tensors, which stay the same objects from run to run.

    Patches of `patcher`'s clones may lie on the weights, until the host samples with another one; `prefix` is where
    `network` is in the patcher's model. Of a quantised weight its parts; how they belong together, quants_of says.
    """
    own = {**dict(network.named_parameters(remove_duplicate=False)), **dict(network.named_buffers())}
    whole = network if patcher is None else patcher.model
    loaded = [one.model for one in comfy.model_management.current_loaded_models]
    before = {}
    for one in (*loaded, patcher):
        if one is not None and one.model is whole:
            before |= {key: weight for key, (weight, _) in one.hook_backup.items()}
            before |= getattr(one, "backup_buffers", {})
            before |= {key: kept.weight for key, kept in one.backup.items()}
    found = {key: before.get(prefix + key, tensor) for key, tensor in own.items()}
    if any(map(is_quantised, found.values())):
        for key, weight in list(found.items()):
            found |= _held(network, key, weight.state_dict(key) if is_quantised(weight) else {key: weight})
    return {key: found[key] for key in network.state_dict() if key in found}


def quants_of(network: torch.nn.Module) -> dict[str, str]:
    """How each layer with quantised weights is quantised: its name, and the host's own JSON."""
    state = network.state_dict()
    names = [key.removesuffix(QUANT) for key in state if key.endswith(QUANT)]
    return {name: bytes(state[name + QUANT].tolist()).decode() for name in names}


def with_quants(weights: dict[str, torch.Tensor], quants: dict[str, str]) -> dict[str, torch.Tensor]:
    """The state dict that the host's loaders take, of what weights_of and quants_of gave."""
    told = {name + QUANT: torch.tensor(list(text.encode()), dtype=torch.uint8) for name, text in quants.items()}
    return {**weights, **told}


def take_weights(network: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Make `weights` the network's own: all of them, and no others. Raises LookupError, RuntimeError."""
    own = network.state_dict()
    placed = {key: weight.to(own[key].device, own[key].dtype) for key, weight in weights.items()}
    network.load_state_dict(placed, assign=True)


def is_dense(tensor: object) -> bool:
    """Whether it is a plain tensor with all of its values in it."""
    return type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.layout == torch.strided and not tensor.is_meta


def is_quantised(tensor: object) -> bool:
    """Whether it is a quantised weight of the host's own kind."""
    return QuantizedTensor is not None and type(tensor) is QuantizedTensor


def alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors are of one shape and have the same values in b's dtype, as far as a sample shows."""
    if a.shape != b.shape:
        return False
    if a.stride() != b.stride():  # then the same places are other values
        a, b = a.contiguous(), b.contiguous()
    return torch.equal(sample(a, SAMPLED).cpu().to(b.dtype).float(), sample(b, SAMPLED).cpu().float())


def sample(tensor: torch.Tensor, most: int) -> torch.Tensor:
    """Up to `most` of its values, spread over its memory; no copy where it lies close there, in any order."""
    flat = _flat(tensor.detach())
    return flat[:: max(1, math.ceil(len(flat) / most))]


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    close = tensor.is_contiguous() or (tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last))
    return tensor.as_strided((tensor.numel(),), (1,)) if close else tensor.reshape(-1)


def _held(network: torch.nn.Module, key: str, parts: dict[str, torch.Tensor]) -> dict[str, torch.nn.Parameter]:
    """`parts` of the weight called `key`, as the same objects in each run while they hold the same."""
    held = _parts.setdefault(network.get_submodule(key.rpartition(".")[0]), {})
    for name, tensor in parts.items():
        part = held.get(name)
        if part is None or part.dtype != tensor.dtype or not (_is_the_same(part, tensor) or alike(part, tensor)):
            part = held[name] = torch.nn.Parameter(tensor, requires_grad=False)
        part.data = tensor
    return {name: held[name] for name in parts}


def _is_the_same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return (a.data_ptr(), a.device, a.shape) == (b.data_ptr(), b.device, b.shape)
