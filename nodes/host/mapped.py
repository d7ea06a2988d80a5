"""Weights that are used where they lie: in a file that is mapped into memory, or in the tensors that came by the wire.

ComfyUI without dynamic VRAM copies a model's weights into memory of its own. A worker beside it would hold the whole
model once more; assigned in the place of copied, they take memory only where they are changed or moved.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch.nn.modules.module import register_module_module_registration_hook


@contextlib.contextmanager
def weights_assigned() -> Iterator[None]:
    """Within it, modules that are built and loaded take the weights they are given, where these fit as they are."""
    handles = []

    def registered(parent: torch.nn.Module, name: str, module: torch.nn.Module | None) -> None:
        if module is not None and hasattr(module, "register_load_state_dict_pre_hook"):  # since PyTorch 2.5
            handles.append(module.register_load_state_dict_pre_hook(_assign))

    handles.append(register_module_module_registration_hook(registered))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _assign(module: torch.nn.Module, state_dict: dict, prefix: str, local_metadata: dict, *_: object) -> None:
    """Ask PyTorch to assign, for the one module that is loaded now."""
    own = {**module._parameters, **module._buffers}
    given = {name: state_dict[prefix + name] for name in own if prefix + name in state_dict}
    if given and all(_fits(own[name], tensor) for name, tensor in given.items()):
        local_metadata["assign_to_params_buffers"] = True


def _fits(own: torch.Tensor | None, given: object) -> bool:
    return (
        type(own) in (torch.Tensor, torch.nn.Parameter)
        and type(given) in (torch.Tensor, torch.nn.Parameter)
        and (own.dtype, own.device, own.shape, own.stride())
        == (given.dtype, given.device, given.shape, given.stride())
    )  # fmt: skip
