"""Hooks inside blocks, by object patches, where the host has none: hidden attention, layers that want all tokens.

Some networks (ACE-Step 1.5, Ernie-Image, PixArt) do not hand the transformer_options to their attention, so the host's
override of it is not asked there. The patch is the module's own forward with another name for the host's attention.
Attention within windows (SeedVR2) takes the row of tokens apart by where they are in the video; there all devices have
all queries, keys and values, and compute what comes before and after on their own tokens.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Protocol

import torch
from comfy.ldm.modules import attention
from torch import Tensor

HOST = (attention.optimized_attention, attention.optimized_attention_masked)
ATTENTION = attention.__name__
# layers that take the row of all tokens apart by its length: Wan HuMo's frames
BY_LENGTH = ("audio_cross_attn_wrapper",)


class Inside(Protocol):
    """What is asked inside the blocks of one forward."""

    def attend_plain(self, function: Callable, *args, **kwargs) -> Tensor:
        """In the place of the host's attention `function`, which was called with no transformer_options."""

    def at_length(self, run: Callable[[Tensor], Tensor], row: Tensor) -> Tensor:
        """What a layer gives for a part of the tokens where it has to be given all of them."""

    def of_all(self, row: Tensor) -> Tensor:
        """The rows of all tokens, of which `row` [tokens, width] is the part that is computed now."""

    def of_part(self, row: Tensor) -> Tensor:
        """The part that is computed now of the rows of all tokens."""

    @property
    def part(self) -> object | None:
        """Which part of the tokens that is; None for all."""

    @property
    def also_whole(self) -> bool:
        """Whether this forward computes all tokens, and a part of them beside."""


_inside: ContextVar[Inside | None] = ContextVar("inside", default=None)


class Entered:
    """While it lasts, `inside` is asked by the hooks in blocks."""

    def __init__(self, inside: Inside | None):
        self._given = inside

    def __enter__(self) -> None:
        self._token = _inside.set(self._given)

    def __exit__(self, *failure: object) -> None:
        _inside.reset(self._token)


class OfferedInside:
    """A module's forward that asks what is inside a forward, where there is one."""

    def __init__(self, module: torch.nn.Module):
        self._module = weakref.ref(module)  # the module's own: it would hold itself

    def __call__(self, *args, **kwargs):
        module, inside = self._module(), _inside.get()
        forward = type(module).forward
        if inside is None:
            return forward(module, *args, **kwargs)
        return self.run(module, forward, inside, *args, **kwargs)

    def run(self, module: torch.nn.Module, forward: Callable, inside: Inside, *args, **kwargs):
        raise NotImplementedError


class OfferedAttention(OfferedInside):
    """Of a module that calls the host's attention without transformer_options."""

    def run(self, module: torch.nn.Module, forward: Callable, inside: Inside, *args, **kwargs):
        instead = {name: functools.partial(inside.attend_plain, function) for name, function in _attentions(forward)}
        told = types.FunctionType(
            forward.__code__, {**forward.__globals__, **instead}, None, forward.__defaults__, forward.__closure__
        )
        told.__kwdefaults__ = forward.__kwdefaults__
        return told(module, *args, **kwargs)


class OfferedLength(OfferedInside):
    """Of a layer that works on each token alone, but takes their row apart by its length."""

    def run(self, module: torch.nn.Module, forward: Callable, inside: Inside, row: Tensor, *args, **kwargs):
        return inside.at_length(lambda whole: forward(module, whole, *args, **kwargs), row)


class OfferedBefore(OfferedInside):
    """Of the layer before attention within windows, (image, text) to both."""

    def run(self, module: torch.nn.Module, forward: Callable, inside: Inside, *args, **kwargs):
        image, text = forward(module, *args, **kwargs)
        return inside.of_all(image), text


class OfferedBehind(OfferedInside):
    """Of the layer behind attention within windows, (image, text) to both."""

    def run(self, module: torch.nn.Module, forward: Callable, inside: Inside, image: Tensor, *args, **kwargs):
        return forward(module, inside.of_part(image), *args, **kwargs)


class OfferedModulation(OfferedInside):
    """Of a layer that repeats its modulation for as many tokens as `hid_len` says, which it need not.

    SeedVR2 keeps what was repeated in its cache, and reads it there behind its blocks: once is right for any part.
    """

    def run(self, module: torch.nn.Module, forward: Callable, inside: Inside, *args, **kwargs):
        if inside.part is not None:
            told = kwargs["hid_len"]
            once = None if inside.also_whole else torch.ones_like(told.vid)
            kwargs["hid_len"] = dataclasses.replace(told, vid=once)
        return forward(module, *args, **kwargs)


def offered_in(path: str, block: torch.nn.Module) -> Iterator[tuple[str, OfferedInside]]:
    """The object patches for the modules of a block that stands at `path`."""
    windows = [name for name, module in block.named_modules() if hasattr(module, "window_op")]
    around: dict[str, type[OfferedInside]] = {"ada": OfferedModulation} if windows else {}
    for name in windows:
        around |= {f"{name}.proj_qkv": OfferedBefore, f"{name}.proj_out": OfferedBehind}
    for name, module in block.named_modules():
        forward = type(module).forward
        if name in around:
            yield f"{path}.{name}.forward", around[name](module)
        elif name.rpartition(".")[2] in BY_LENGTH:
            yield f"{path}.{name}.forward", OfferedLength(module)
        elif name and isinstance(forward, types.FunctionType) and _hides(forward):
            yield f"{path}.{name}.forward", OfferedAttention(module)


@functools.lru_cache(1024)
def _hides(forward: types.FunctionType) -> bool:
    return "transformer_options" not in inspect.signature(forward).parameters and any(_attentions(forward))


def _attentions(forward: types.FunctionType) -> Iterator[tuple[str, Callable]]:
    """The host's attention functions that a forward calls, by the names it has for them."""
    for name in forward.__code__.co_names:
        value = forward.__globals__.get(name)
        of_host = hasattr(value, "__wrapped__") and getattr(value, "__module__", None) == ATTENTION
        if of_host or any(value is own for own in HOST):
            yield name, value
