"""The host's block hook (patches_replace["dit"]) for networks that do not ask it: by object patches on their blocks.

The patch is the block's forward. It does what the network's own forward would do, were it written as most of the
host's are: it asks the hook where there is one, and otherwise runs the block. Some networks (PixArt) do not hand
the transformer_options to their blocks; there `reaching` keeps the hooks for the time of the forward. Where a network
asks the hook but does not show it all that goes with tokens, the patches ask it under names of their own (HIDDEN).
"""

from __future__ import annotations

import functools
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
from .inner_hooks import Entered, OfferedInside, offered_in

NETWORK = "diffusion_model"
DEEPER = ("decoder.layers", "transformer.layers")
# lists of blocks, in the order in which forwards run them
LISTS = (
    ("double_block", ("double_stream_layers", "double_layers", "double_stream_blocks", "double_blocks")),
    ("single_block", ("single_stream_layers", "single_layers", "single_stream_blocks", "single_blocks")),
    ("double_block", ("layers", "blocks", "transformer_blocks", "visual_transformer_blocks", "patch_blocks", *DEEPER)),
)
# arguments of blocks that go with tokens and that the networks' own hook does not show, and what such blocks give:
# Qwen-Image's and Flux 2's references at timestep zero, Stable Audio 3's inpainting (lost where its hook is asked);
# SeedVR2's hook has other names, and Kandinsky 5's calls its blocks with names that they do not have
HIDDEN = {
    "timestep_zero_index": ("txt", "img"),
    "modulation_dims_img": ("img", "txt"),
    "modulation_dims": ("img",),
    "local_add_cond": ("img",),
    "vid_shape": ("img", "txt", "vid_shape", "txt_shape"),
    "visual_embed": ("img",),
}
LOST = {"local_add_cond", "visual_embed"}
# blocks beside the network's, which read the image and give what is added to it, and what the next of them goes on with
BESIDE = "vace_blocks"
BESIDE_KIND = "beside_block"
OWN = {"double_block": "double_layer", "single_block": "single_layer"}  # the names for these
OPTIONS = "transformer_options"
KEY = "hybridiff_blocks"
INSIDE = "hybridiff_inside"  # what hooks inside blocks ask (inner_hooks.Inside)
TEXT = re.compile("encoder_hidden_states|instruct_hidden_states|text_tokens|crossattn_emb|txt|y")

_hooks: ContextVar[dict] = ContextVar("hooks", default={})  # noqa: B039 - nobody writes into it


class OfferedBlock:
    """A block's forward that asks the hook under `name`. Its first argument is the image, TEXT's the text beside it."""

    def __init__(self, block: torch.nn.Module, name: tuple[str, int]):
        self._block, self.name = weakref.ref(block), name  # the block's own: it would hold itself
        self._names = _parameters(block)
        image, *others = self._names
        self._keys = {image: "img", next(filter(TEXT.fullmatch, others), None): "txt"}
        self._gives = next((gives for other, gives in HIDDEN.items() if other in others), ("img", "txt"))
        if name[0] == BESIDE_KIND:
            self._keys[others[0]], self._gives = "beside", ("img", "beside")

    def __call__(self, *args, **kwargs):
        block, given = self._block(), {**dict(zip(self._names, args)), **kwargs}
        hooks = _of(given[OPTIONS]) if given.get(OPTIONS) is not None else _hooks.get()
        asked = hooks.get(self.name)
        if asked is None:
            return type(block).forward(block, *args, **kwargs)

        def original_block(now: dict) -> dict:
            out = type(block).forward(block, **{name: now[self._key(name)] for name in given})
            return {"img": out} if isinstance(out, Tensor) else dict(zip(self._gives, out))

        args = {self._key(name): value for name, value in given.items()}
        out = asked(args, {"original_block": original_block})
        return tuple(out[name] for name in self._gives) if len(out) > 1 else out["img"]

    def _key(self, name: str) -> str:
        """What the hook knows an argument by."""
        return self._keys.get(name, name)


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
    """The transformer_options `options`, whose hooks then reach networks that do not hand them on."""
    hooks, inside = _of(options), options.get(INSIDE)

    def wrapper(executor: Callable, *args, **kwargs):
        before = _hooks.set(hooks)
        try:
            with Entered(inside):
                return executor(*args, **kwargs)
        finally:
            _hooks.reset(before)

    wrappers = options.get("wrappers", {})
    of_kind = {**wrappers.get(WrappersMP.APPLY_MODEL, {}), KEY: [wrapper]}
    return {**options, "wrappers": {**wrappers, WrappersMP.APPLY_MODEL: of_kind}}


def is_offered(value: object) -> bool:
    """Whether an object patch, or what stands in the place of a forward, is of this module or of inner_hooks.py."""
    return isinstance(value, (OfferedBlock, OfferedInside))


def hides(network: torch.nn.Module) -> bool:
    """Whether the network asks the hook itself, but does not show it all that goes with tokens."""
    hidden = (HIDDEN.keys() & set(_parameters(blocks[0])) for _, _, blocks in _lists(network) if len(blocks))
    return any(hidden) and _asks(network)


def loses(network: torch.nn.Module) -> bool:
    """Whether the network leaves out or mistakes an input of its blocks where it asks the hook."""
    return any(len(blocks) and LOST & set(_parameters(blocks[0])) for _, _, blocks in _lists(network))


def _of(options: dict) -> dict:
    return options.get("patches_replace", {}).get("dit", {})


def _parameters(block: torch.nn.Module) -> list[str]:
    return list(inspect.signature(type(block).forward).parameters)[1:]


def _lists(network: torch.nn.Module) -> Iterator[tuple[str, str, torch.nn.ModuleList]]:
    """The network's blocks: of a kind, where they stand, and themselves."""
    found = False
    for kind, names in LISTS:
        for name in names:
            blocks = functools.reduce(lambda at, step: getattr(at, step, None), name.split("."), network)
            if isinstance(blocks, torch.nn.ModuleList) and not (found and kind == LISTS[-1][0]):
                found = True
                yield kind, name, blocks


def _offered(network: torch.nn.Module) -> Iterator[tuple[str, OfferedBlock | OfferedInside]]:
    if isinstance(network, UNetModel):
        return
    hidden, asks = hides(network), _asks(network)
    counts = dict.fromkeys((kind for kind, _ in LISTS), 0)
    for kind, name, blocks in _lists(network):
        for i, block in enumerate(blocks):
            path = f"{NETWORK}.{name}.{i}"
            if hidden or not asks:
                yield f"{path}.forward", OfferedBlock(block, (OWN[kind] if hidden else kind, counts[kind]))
            yield from offered_in(path, block)
            counts[kind] += 1
    for i, block in enumerate(getattr(network, BESIDE, ())):
        yield f"{NETWORK}.{BESIDE}.{i}.forward", OfferedBlock(block, (BESIDE_KIND, i))


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
