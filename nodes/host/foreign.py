"""Code of other packs that was put in the place of ComfyUI's own: a worker does not have it."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection

import comfy.model_management
import torch

COMFY = os.path.dirname(os.path.abspath(comfy.model_management.__file__))
MODULE_INTERNALS = frozenset(vars(torch.nn.Module()))


def of_the_host(function: Callable) -> bool:
    """Whether `function` lies in a file of ComfyUI's `comfy` folder, or in none."""
    code = getattr(function, "__code__", None)
    return code is None or os.path.dirname(os.path.abspath(code.co_filename)) == COMFY


def replaced(owner: object, name: str) -> bool:
    """Whether `owner` has something else in the place of its class's method `name`.

    Where the host takes a patch off again, it leaves the class's own method bound to the object behind.
    """
    if name not in vars(owner):
        return False
    value, own = vars(owner)[name], getattr(type(owner), name, None)
    return not (getattr(value, "__self__", None) is owner and getattr(value, "__func__", None) is own)


def replaced_methods(owner: object) -> list[str]:
    """The methods of `owner` that are replaced."""
    names = vars(owner).keys() - MODULE_INTERNALS
    return [name for name in sorted(names) if callable(getattr(type(owner), name, None)) and replaced(owner, name)]


def clear_own_methods(owner: torch.nn.Module) -> None:
    """Take away from `owner` and its modules what the host leaves behind of a patch: see `replaced`."""
    for module in owner.modules():
        for name in vars(module).keys() - MODULE_INTERNALS:
            if callable(getattr(type(module), name, None)) and not replaced(module, name):
                delattr(module, name)


def changed_methods(model: torch.nn.Module, but: Collection[str] = ()) -> str | None:
    """What stands in the place of methods in `model`, or is hung onto a module: the first that is found.

    Names in `but`, such as diffusion_model.forward, are left out.
    """
    for path, module in model.named_modules():
        if module._forward_hooks or module._forward_pre_hooks:
            return f"{type(module).__qualname__}.forward"
        for name in replaced_methods(module):
            if f"{path}.{name}".lstrip(".") not in but:
                return f"{type(module).__qualname__}.{name}"
    return None
