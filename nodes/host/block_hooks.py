"""The host's block hook (patches_replace["dit"]) for networks that do not ask it: by object patches on their blocks.

The patch is the block's forward. It does what the network's own forward would do, were it written as most of the
host's are: it asks the hook where there is one, and otherwise runs the block. Some networks (PixArt) do not hand
the transformer_options to their blocks; there `reaching` keeps the hooks for the time of the forward.
"""

from __future__ import annotations

import inspect
import re
import types
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import comfy.utils
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from .foreign import clear_own_methods

NETWORK = "diffusion_model"
# lists of blocks, in the order in which forwards run them
LISTS = (
    ("double_block", ("double_stream_layers", "double_layers")),
    ("single_block", ("single_stream_layers", "single_layers")),
    ("double_block", ("layers", "blocks", "transformer_blocks", "patch_blocks")),
)
OPTIONS = "transformer_options"
KEY = "hybridiff_blocks"
TEXT = re.compile("encoder_hidden_states|instruct_hidden_states|text_tokens|crossattn_emb|y")

_hooks: ContextVar[dict] = ContextVar("hooks", default={})  # noqa: B039 - nobody writes into it


class OfferedBlock:
    """A block's forward that asks the hook under `name`. Its first argument is the image, TEXT's the text beside it."""

    def __init__(self, block: torch.nn.Module, name: tuple[str, int]):
        self._block, self.name = weakref.ref(block), name  # the block's own: it would hold itself
        self._names = list(inspect.signature(type(block).forward).parameters)[1:]
        self._image, *others = self._names
        self._text = next(filter(TEXT.fullmatch, others), None)

    def __call__(self, *args, **kwargs):
        block, given = self._block(), {**dict(zip(self._names, args)), **kwargs}
        hooks = _of(given[OPTIONS]) if given.get(OPTIONS) is not None else _hooks.get()
        asked = hooks.get(self.name)
        if asked is None:
            return type(block).forward(block, *args, **kwargs)

        def original_block(now: dict) -> dict:
            out = type(block).forward(block, **{name: now[self._key(name)] for name in given})
            return {"img": out} if isinstance(out, Tensor) else dict(zip(("img", "txt"), out))

        args = {self._key(name): value for name, value in given.items()}
        out = asked(args, {"original_block": original_block})
        return (out["img"], out["txt"]) if "txt" in out else out["img"]

    def _key(self, name: str) -> str:
        """What the hook knows an argument by."""
        return {self._image: "img", self._text: "txt"}.get(name, name)


def offer(patcher: ModelPatcher) -> None:
    """Let `patcher`'s network ask the block hook; one that does, or has no list of blocks, stays as it is."""
    taken = [name for name, value in patcher.object_patches.items() if not is_offered(value)]
    for name, value in _offered(patcher.model.diffusion_model):
        if not any(name == other or name.startswith(f"{other}.") for other in taken):  # another pack's stays
            patcher.add_object_patch(name, value)


def withdraw(patcher: ModelPatcher) -> None:
    """Take what `offer` laid into the network off again, where it is there: the next loading lays it anew.

    The host would leave each block's own method behind, and that hides the class that a node may give a block later.
    """
    there = patcher.object_patches_backup
    for name in [name for name in there if is_offered(comfy.utils.get_attr(patcher.model, name))]:
        comfy.utils.set_attr(patcher.model, name, there.pop(name))
        clear_own_methods(comfy.utils.get_attr(patcher.model, name.rpartition(".")[0]))


def reaching(options: dict) -> dict:
    """The transformer_options `options`, whose block hooks then reach networks that do not hand them on."""
    hooks = _of(options)

    def wrapper(executor: Callable, *args, **kwargs):
        before = _hooks.set(hooks)
        try:
            return executor(*args, **kwargs)
        finally:
            _hooks.reset(before)

    wrappers = options.get("wrappers", {})
    of_kind = {**wrappers.get(WrappersMP.APPLY_MODEL, {}), KEY: [wrapper]}
    return {**options, "wrappers": {**wrappers, WrappersMP.APPLY_MODEL: of_kind}}


def is_offered(value: object) -> bool:
    """Whether an object patch, or what stands in the place of a forward, is of this module."""
    return isinstance(value, OfferedBlock)


def _of(options: dict) -> dict:
    return options.get("patches_replace", {}).get("dit", {})


def _offered(network: torch.nn.Module) -> Iterator[tuple[str, OfferedBlock]]:
    if isinstance(network, UNetModel) or _asks(network):
        return
    counts = {kind: 0 for kind, _ in LISTS}
    for kind, names in LISTS:
        for name in names:
            blocks = getattr(network, name, None)
            if not isinstance(blocks, torch.nn.ModuleList) or (any(counts.values()) and kind == LISTS[-1][0]):
                continue
            for i, block in enumerate(blocks):
                yield f"{NETWORK}.{name}.{i}.forward", OfferedBlock(block, (kind, counts[kind]))
                counts[kind] += 1


def _asks(network: torch.nn.Module) -> bool:
    """Whether a class in the network reads patches_replace["dit"]."""
    classes = {cls: None for module in network.modules() for cls in type(module).__mro__}
    functions = (value for cls in classes for value in vars(cls).values() if isinstance(value, types.FunctionType))
    return any({"patches_replace", "dit"} <= set(_constants(function.__code__)) for function in functions)


def _constants(code: types.CodeType) -> Iterator[object]:
    for value in code.co_consts:
        if isinstance(value, types.CodeType):
            yield from _constants(value)
        elif isinstance(value, str):
            yield value
