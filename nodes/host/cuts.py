"""Where ComfyUI's networks are cut: transformers between any two blocks, U-Nets around their deepest ones.

By the host's own hooks; nothing of a network is replaced.

A transformer: patches_replace["dit"], which SD3, Flux, Chroma, Qwen-Image, Wan, HunyuanVideo, LTX and
others ask at every block; for some of the others block_hooks.py asks it. Blocks are numbered in the
order in which a forward comes to them, double ones before single ones.

A U-Net: the hook for layers (forward_timestep_embed_patch). Every layer of every block comes by here,
is run by the host's function or passed over; every skip connection stays on one side. Blocks are
numbered input, middle, output; input block j's output is read by output block n - 1 - j.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence

import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel, Upsample, forward_timestep_embed

from ...hybridiff_core import lines
from ...hybridiff_core.network.split import Inner, Outer, Pass, State, central_openings
from ...hybridiff_core.network.tokens import Look, Shard
from .block_hooks import BESIDE_KIND, OWN, hides, loses, reaching
from .tokens import forward_of

HOOKED = ("double_block", "single_block")
MOST_BLOCKS = 256  # of a kind; no network is deeper
NAMES = tuple((kind, i) for kind in HOOKED for i in range(MOST_BLOCKS))
OWN_NAMES = tuple((OWN[kind], i) for kind, i in NAMES)
BESIDE_NAMES = tuple((BESIDE_KIND, i) for i in range(MOST_BLOCKS))
LAYER_HOOK = "forward_timestep_embed_patch"


def splitter_for(network: torch.nn.Module) -> DitSplit | UnetSplit:
    """The splitter for a model's network."""
    if isinstance(network, UNetModel):
        return UnetSplit(network)
    token_names = OWN_NAMES if hides(network) else NAMES
    return DitSplit(OWN_NAMES if loses(network) else NAMES, token_names + BESIDE_NAMES)


def may_divide(network: torch.nn.Module) -> bool:
    """Whether forwards may be divided by tokens, as far as that shows before the network is looked at."""
    return not isinstance(network, UNetModel)


def hooked(model_options: dict, splitter: DitSplit | UnetSplit, through: Pass | Look | Shard) -> dict:
    """`model_options` with which the next forward asks `through` at each block."""
    options = model_options.get("transformer_options", {})
    if isinstance(splitter, UnetSplit) and not isinstance(through, Pass):
        through.form, through.reason = None, lines.UNET_HAS_NO_TOKENS()
    elif isinstance(through, Pass):
        options = {**options, **splitter.hooks(through)}
    else:
        options = forward_of(options, through).hooks(options, splitter.token_names)
    return {**model_options, "transformer_options": reaching(options)}


class DitSplit:
    """Takes a Pass through a transformer's forward. For one forward at a time.

    The hook is asked for blocks of these `names`; for dividing tokens, of `token_names`.
    """

    def __init__(self, names: Sequence[tuple[str, int]] = NAMES, token_names: Sequence[tuple[str, int]] = NAMES):
        self.token_names = token_names
        # of a kind of block: what changes in it, img and perhaps txt, and of how many rows img is (LTX-2: image, sound)
        self._keys: dict[str, dict[str, int | None]] = {}
        self._odd: str | None = None
        self._through = Pass()
        self._block = 0
        self._hooks = {(kind, i): functools.partial(self._at_block, kind) for kind, i in names}

    def hooks(self, through: Pass) -> dict:
        """The transformer_options with which the next forward asks `through` at each block."""
        self._through, self._block = through, 0
        return {"patches_replace": {"dit": self._hooks}}

    def openings(self, blocks: int, segments: int) -> list[tuple[int, int]] | str:
        """Where an inner part can begin and end, or why nowhere, in words for users."""
        return self._odd or central_openings(blocks, segments)

    def _at_block(self, kind: str, args: dict, extra: dict) -> dict:
        block, through = self._block, self._through
        self._block += 1
        if args.get("skip") is not None:
            self._odd = lines.LATER_BLOCKS_READ_EARLIER()
        if kind not in self._keys:  # an exact pass comes first, and shows what changes
            return self._first_of_its_kind(kind, block, args, extra["original_block"])
        keys = self._keys[kind]
        through.enter(block)
        out = extra["original_block"](args) if through.runs(block) else {key: args[key] for key in keys}
        after = _state_of(out, keys)
        left = through.leave(block, after)
        return out if left is after else _block_gives(left, keys)

    def _first_of_its_kind(self, kind: str, block: int, args: dict, run: Callable[[dict], dict]) -> dict:
        self._through.enter(block)
        if not self._through.runs(block):
            raise RuntimeError(lines.NEVER_RUN_WHOLE(kind=kind))
        out = run(args)
        keys = {key: len(value) if isinstance(value, (tuple, list)) else None for key, value in out.items()}
        state = _state_of(out, keys)
        if not all(isinstance(value, torch.Tensor) for value in state) or not out.keys() <= args.keys():
            self._odd = lines.BLOCKS_PASS_MORE()
        self._keys[kind] = keys
        self._through.leave(block, state)
        return out


def _state_of(out: dict, keys: dict[str, int | None]) -> State:
    """What a block gives as tensors one after another."""
    found = ((out.get(key),) if rows is None else out[key] for key, rows in keys.items())
    return tuple(value for values in found for value in values)


def _block_gives(state: State, keys: dict[str, int | None]) -> dict:
    """The same as a block gives it."""
    left = iter(state)
    return {key: next(left) if rows is None else tuple(itertools.islice(left, rows)) for key, rows in keys.items()}


class UnetSplit:
    """Takes a Pass through a U-Net's forward. For one forward at a time.

    The state before a block is h and, between inner segments, the skips that are still to be read.
    """

    def __init__(self, unet: UNetModel):
        self._depth = len(unet.input_blocks)
        names = [("input", i) for i in range(self._depth)] + [("middle", 0)]
        names += [("output", i) for i in range(len(unet.output_blocks))]
        modules = [*unet.input_blocks, unet.middle_block, *unet.output_blocks]
        self._numbers = {name: i for i, name in enumerate(names)}
        self._ends = [(module[0], module[-1]) if module is not None else None for module in modules]
        self._enlarges = [any(isinstance(layer, Upsample) for layer in module) for module in unet.output_blocks]
        self._even = len(unet.output_blocks) == self._depth and unet.middle_block is not None
        self._through = Pass()
        self._skips: dict[int, torch.Tensor] = {}

    def hooks(self, through: Pass) -> dict:
        """The transformer_options with which the next forward asks `through` at each block."""
        self._through = through
        self._skips = {}
        return {"patches": {LAYER_HOOK: [(torch.nn.Module, self._at_layer)]}}

    def openings(self, blocks: int, segments: int) -> list[tuple[int, int]] | str:
        """Where an inner part of so many segments can begin and end, or why nowhere, in words for users.

        What enters the inner part is also the last skip before it, so a single inner segment can run
        the output block that reads it, or enlarge to its size. Later segments do not see it.
        """
        if not self._even:
            return lines.HALVES_DIFFER()
        if blocks < len(self._ends):
            return lines.OLD_COMFYUI_HIDES_BLOCKS()
        found = []
        for first in range(self._depth, 0, -1):
            outputs = self._depth - first  # as many as there are inner input blocks
            enlarges = [False, *self._enlarges]
            if segments == 1 or not enlarges[outputs]:
                found.append((first, self._depth + 1 + outputs))
            if segments == 1 and not enlarges[outputs + 1]:
                found.append((first, self._depth + 2 + outputs))
        return found

    # -- a layer

    def _at_layer(
        self, layer, x, emb, context, options, output_shape, time_context, num_video_frames, image_only_indicator
    ) -> torch.Tensor:
        kind, index = options["block"]
        block = self._numbers[kind, index]
        first, last = self._ends[block]
        if layer is first:
            self._through.enter(block)
            if kind == "output":  # the host has joined it to x
                self._skips.pop(self._depth - 1 - index, None)
            if isinstance(self._through, Outer) and not self._through.runs(block):
                x = x[:, :0]  # no channels: passes by the inner blocks for nothing
        if self._through.runs(block):
            inner = {**options, "patches": {k: v for k, v in options["patches"].items() if k != LAYER_HOOK}}
            x = forward_timestep_embed(
                [layer], x, emb, context, inner, output_shape, time_context, num_video_frames, image_only_indicator
            )
            options["transformer_index"] = inner["transformer_index"]
        else:
            options["transformer_index"] += isinstance(layer, SpatialTransformer)
        return self._leave(block, kind, index, x) if layer is last else x

    def _leave(self, block: int, kind: str, index: int, x: torch.Tensor) -> torch.Tensor:
        through = self._through
        if isinstance(through, Inner) and block < through.start:
            return self._before_segment(block, kind, index, x)
        if kind == "input" and index >= through.first and through.runs(block):
            self._skips[index] = x
        return through.leave(block, self._state(x))[0]

    def _before_segment(self, block: int, kind: str, index: int, x: torch.Tensor) -> torch.Tensor:
        """What a block before an inner segment leaves: h at the end, before it the skips that came with h."""
        h, *carried = self._through.h
        if block == self._through.start - 1:
            self._skips = dict(enumerate(carried, self._through.first))
            return h
        if kind == "input" and index >= self._through.first:
            place = index - self._through.first
            # an empty vector can be joined to anything: nobody reads this skip any more
            return carried[place] if place < len(carried) else x.new_empty(0)
        return h if kind == "middle" else x

    def _state(self, x: torch.Tensor) -> State:
        return (x, *(self._skips[j] for j in sorted(self._skips)))
