"""What is asked of the host's network for comparing devices: what it put out, and whether it is still the same."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import comfy.model_sampling as samplings
import torch
from comfy.model_patcher import ModelPatcher

from ...hybridiff_core.call import to_eps
from ...hybridiff_core.setting import Output
from .block_hooks import is_offered
from .foreign import replaced
from .weights import is_dense, sample

SAMPLED = 8  # values of each weight
NETWORKS = "comfy.ldm."  # where the host's networks and what they call are


def output_of(sampling: torch.nn.Module) -> Output:
    """What the network put out, from its prediction in denoised space (comfy/model_sampling.py).

    At a high sigma most of a prediction is not the network's, and there a difference would not show in it.
    """
    if isinstance(sampling, samplings.X0):
        return lambda x, sigma, denoised: denoised
    if isinstance(sampling, (samplings.V_PREDICTION, samplings.EDM)):
        data = float(sampling.sigma_data)
        return lambda x, sigma, denoised: _preconditioned(x, sigma, denoised, data)
    return lambda x, sigma, denoised: to_eps(denoised, x, sigma)


def _preconditioned(x: torch.Tensor, sigma: torch.Tensor, denoised: torch.Tensor, data: float) -> torch.Tensor:
    """Of denoised = x data^2 / (sigma^2 + data^2) + output sigma data / (sigma^2 + data^2)^0.5."""
    sigma = sigma.double().clamp_min(1e-8).view(-1, *[1] * (x.ndim - 1))
    total = sigma**2 + data**2
    return (denoised.double() - x.double() * data**2 / total) * total.sqrt() / (sigma * data)


def fingerprint(patcher: ModelPatcher) -> int:
    """A number that changes where the network does: its modules' classes, their code, its patches, its weights."""
    return hash((patcher.patches_uuid, *_parts(patcher.model.diffusion_model)))


def _parts(network: torch.nn.Module) -> Iterator[object]:
    classes = {}
    for name, module in network.named_modules():
        cls = type(module)
        classes[cls] = None
        yield name
        yield id(cls)
        yield id(vars(module)["forward"]) if replaced(module, "forward") and not is_offered(module.forward) else 0
    for cls in classes:  # a method that was exchanged
        for base in cls.__mro__[:-2]:
            yield from (id(value) for value in vars(base).values() if callable(value))
    # or a function that the methods call: the attention, for one, which may be called from a further file
    scopes = {cls.__module__ for cls in classes} | {name for name in list(sys.modules) if name.startswith(NETWORKS)}
    for name in sorted(scopes):
        yield from (id(value) for value in list(vars(sys.modules.get(name, torch)).values()) if callable(value))
    yield _values(network)


def _values(network: torch.nn.Module) -> bytes:
    """Some values of every weight: within an execution tensors keep no count of changes in place."""
    taken: dict[torch.device, list[torch.Tensor]] = {}  # one copy from each device
    for weight in network.parameters():
        if is_dense(weight) and weight.numel():
            taken.setdefault(weight.device, []).append(sample(weight, SAMPLED).float())
    return b"".join(torch.cat(values).cpu().numpy().tobytes() for values in taken.values())
