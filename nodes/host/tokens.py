"""A transformer's forward by tokens, through ComfyUI's hooks: looked at whole (Look), or one device's part (Shard).

At each block the image's tokens are sliced, and what goes with them (rotary positions, a timestep for each token); in
each attention over all of them keys and values cross. Between blocks a device has a row of the whole's length, in
which its own tokens are right: so layers there (a ControlNet's, VACE's, a node's) add to them as they always do. Behind
the last block the parts are put together. Text is not divided.

Which attention that is, and whether a part gives what the whole gives, is not guessed from names: in the whole
forward that is looked at, each block is run a second time with its last tokens, on the keys and values of the whole.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import comfy.model_management
import torch
from torch import Tensor

from ...hybridiff_core import lines
from ...hybridiff_core.network.tokens import Form, Look, NotDivided, Shard
from .attention import AttentionCall, window_of
from .block_hooks import INSIDE
from .token_slices import IMAGE, OF_IMAGE, ROW, Slices, each_tensor, is_row, row_of

LOOKED_AT = 8  # one token in so many is tried
# of what a block changes: beyond rounding, in a wide format and in others
LIMITS = {torch.float32: 1e-3, torch.float64: 1e-3}
LIMIT = 0.1
ROUNDINGS = 10  # of a value that goes through a block
FAILS = (NotDivided, RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError)


class Recorded:
    """Stands for the other devices where a block is tried: gives the whole's tensors with the tried part's in them."""

    halves = 1

    def __init__(self, whole: AttentionCall, part: AttentionCall, slices: Slices):
        self._slices, self._wholes = slices, [whole.k, whole.v]
        if part.has_own_columns:
            self._wholes.append(whole.mask_along(whole.dim))

    def exchange(self, pairs: Sequence[tuple[Tensor, ...]], dim: int, n: int) -> Iterator[tuple[Tensor, ...]]:
        (parts,) = pairs
        yield tuple(self._joined(whole, part, dim, n) for whole, part in zip(self._wholes, parts))

    def _joined(self, whole: Tensor, part: Tensor, dim: int, n: int) -> Tensor:
        image, slices = self._slices.image_in(whole, dim, n), self._slices
        after = image.narrow(dim, slices.end, n - slices.end)
        return torch.cat([image.narrow(dim, 0, slices.first), part, after], dim)


class TokenForward:
    """What both kinds of forward have: the hooks at blocks and in attention. For one forward."""

    also_whole = False

    def __init__(self, given: dict):
        self._blocks_given = given.get("patches_replace", {}).get("dit", {})
        self._attention_given = given.get("optimized_attention_override")
        self.block = 0
        self.inside = False

    def hooks(self, given: dict, names: Sequence[tuple[str, int]]) -> dict:
        """`given`, a forward's transformer_options, with this one's hooks at the blocks of these names."""
        blocks = {name: functools.partial(self._asked, name) for name in names}
        replaced = {**given.get("patches_replace", {}), "dit": blocks}
        patches = {name: [self._around(patch) for patch in some] for name, some in given.get("patches", {}).items()}
        ours = {"patches_replace": replaced, "optimized_attention_override": self._attend, INSIDE: self}
        return {**given, **ours, "patches": patches}

    def _around(self, patch: object) -> object:
        """A node's patch, which is given rows of the whole's length where it is asked inside a block, too."""
        if not callable(patch):
            return patch

        @functools.wraps(patch, updated=())
        def asked(*args, **kwargs):
            part = self.part
            return patch(*args, **kwargs) if part is None else part.at_length(patch, *args, **kwargs)

        return asked

    def _asked(self, name: tuple[str, int], args: dict, extra: dict) -> dict:
        run = extra["original_block"]
        if IMAGE not in args and ROW in args:
            out = self._asked(name, renamed(args, ROW, IMAGE), {**extra, "original_block": as_row(run)})
            return renamed(out, IMAGE, ROW)
        if name in self._blocks_given:
            run = functools.partial(self._by_others, self._blocks_given[name], extra)
        out = self.at_block(name, args, functools.partial(self._run, run))
        self.block += 1
        return out

    @staticmethod
    def _by_others(patch: Callable, extra: dict, args: dict) -> dict:
        return patch(args, extra)

    def _run(self, run: Callable[[dict], dict], args: dict) -> dict:
        self.inside = True
        try:
            return run(args)
        finally:
            self.inside = False

    def _attend(self, function: Callable, *args, **kwargs) -> Tensor:
        if self._attention_given is not None:  # a user's own kernel stays
            function = functools.partial(self._attention_given, function)
        return self.attend_plain(function, *args, **kwargs)

    def attend_plain(self, function: Callable, *args, **kwargs) -> Tensor:
        """In the place of the host's attention, where no kernel of the user's is asked."""
        if not self.inside:
            return function(*args, **kwargs)
        return self.attend(AttentionCall.read(function, args, kwargs))

    def at_length(self, run: Callable[[Tensor], Tensor], row: Tensor) -> Tensor:
        """What a layer that takes the row of all tokens apart gives for those in `row`."""
        return run(row) if self.part is None else self.part.at_length(run, row)

    def of_part(self, row: Tensor) -> Tensor:
        """The part that is computed now of the rows of all tokens."""
        return row if self.part is None else row[self.part.first : self.part.end]

    def of_all(self, row: Tensor) -> Tensor:
        """The rows of all tokens, of which `row` [tokens, width] is the part that is computed now."""
        raise NotImplementedError

    @property
    def part(self) -> Slices | None:
        """The part of the tokens that is computed now, in a block; None for all, and between blocks."""
        raise NotImplementedError

    def at_block(self, name: tuple[str, int], args: dict, run: Callable[[dict], dict]) -> dict:
        raise NotImplementedError

    def attend(self, call: AttentionCall) -> Tensor:
        raise NotImplementedError


class ShardForward(TokenForward):
    """The forward of one device's tokens."""

    def __init__(self, given: dict, shard: Shard):
        super().__init__(given)
        self.shard = shard
        self._attends = frozenset(shard.form.attends)
        self._calls = 0
        self._slices: Slices | None = None

    def at_block(self, name: tuple[str, int], args: dict, run: Callable[[dict], dict]) -> dict:
        if self._slices is None:
            form = self.shard.form
            self._slices = Slices(args, self.shard.mine, form.image_first, form.prefix)
        out, slices = run(self._slices.part(args)), self._slices
        if self.block == self.shard.form.blocks - 1:
            return {**out, IMAGE: slices.gathered(out[IMAGE], self.shard)}
        return {name: slices.spread(value) if name in OF_IMAGE else value for name, value in out.items()}

    @property
    def part(self) -> Slices | None:
        return self._slices if self.inside else None

    def of_all(self, row: Tensor) -> Tensor:
        [(whole,)] = self.shard.exchange([(row[None],)], 1, self._slices.tokens)
        return whole[0]

    def attend(self, call: AttentionCall) -> Tensor:
        number, self._calls = self._calls, self._calls + 1
        if number not in self._attends:
            return call()
        return call.in_window(self._slices, self.shard.form.window).over_all(self._slices, self.shard)


@dataclass
class Block:
    """A block that is tried: what the whole's attention was called with, and how many of these calls the trial has
    come to; which of them are over all tokens, and the bytes of what crosses in these, for a token. `rows` are those
    that all devices are to have whole."""

    calls: list[AttentionCall]
    rows: list[Tensor] = field(default_factory=list)
    tried: int | None = None
    attends: list[int] = field(default_factory=list)
    bytes: int = 0

    def prefix(self, row: int) -> int:
        """How many of a row's tokens the first ones to attend to all of it leave out, so that they are text."""
        lengths = ((call.q.shape[call.dim], call.k.shape[call.dim]) for call in self.calls)
        return next((row - asking for asking, found in lengths if asking < found == row), 0)


class LookForward(TokenForward):
    """A whole forward that shows how the network can be divided. Its outcome is the plain forward's."""

    also_whole = True

    def __init__(self, given: dict, look: Look):
        super().__init__(given)
        self.look = look
        self.look.form, self.look.reason = None, lines.NO_BLOCK_HOOK()
        self._seen: set[tuple[str, int]] = set()
        self._before = self._bytes = 0  # attention calls in earlier blocks; bytes of what crosses, for a token
        self._attends: list[int] = []
        self._window: tuple[int, float] | None = None
        self._slices: Slices | None = None
        self._now = Block([])

    def at_block(self, name: tuple[str, int], args: dict, run: Callable[[dict], dict]) -> dict:
        if self.block == 0:
            self.look.reason = None if is_row(args.get(IMAGE)) else lines.TOKENS_NOT_A_ROW()
        elif self.look.reason is None:
            self.look.reason = self._unlike_before(name, args)
        if self.look.reason is not None:
            self.look.form = None
            return run(args)
        self._seen.add(name)
        tried = [self._slices] if self._slices else [Slices(args, last_ones, first) for first in (False, True)]
        few = [slices.copied(args) for slices in tried]  # before the block, which may write into what it is given
        before = None if self._slices else {**args, IMAGE: each_tensor(args[IMAGE], Tensor.clone)}
        self._now = Block([])
        out = run(args)
        if before and (prefix := self._now.prefix(row_of(args[IMAGE]).shape[1])):
            tried.append(Slices(before, last_ones, prefix=prefix))
            few.append(tried[-1].copied(before))
        self.look.reason = self._try(tried, few, run, out)
        self._now = Block([])
        if self.look.reason is not None:
            self.look.form = None
        return out

    def _unlike_before(self, name: tuple[str, int], args: dict) -> str | None:
        """Why what comes to a block is no row of the tokens that came to the first."""
        if name in self._seen:
            return lines.TOKENS_ASKED_TWICE()
        fits = is_row(args.get(IMAGE)) and row_of(args[IMAGE]).shape[1] >= self._slices.tokens
        return None if fits else lines.TOKENS_NOT_A_ROW()

    def _try(self, tried: list[Slices], few: list[dict], run: Callable[[dict], dict], out: dict) -> str | None:
        """Run the block with its last tokens, in each of the orders of text and image that are tried.

        Gives why it cannot be divided.
        """
        if not is_row(out.get(IMAGE)) or not out.keys() <= few[0].keys():
            return lines.TOKENS_NOT_A_ROW()
        if not (self._now.calls or self._now.rows):
            return lines.ATTENTION_HIDDEN()
        for slices, args in zip(tried, few):
            self._slices = slices
            try:
                if self._is_right(args, run, row_of(out[IMAGE])):
                    return None
            except comfy.model_management.OOM_EXCEPTION:
                return lines.NO_ROOM_TO_LOOK()
            except FAILS:  # what fits only the whole
                pass
        return lines.TOKENS_NOT_ALONE()

    def _is_right(self, args: dict, run: Callable[[dict], dict], whole: Tensor) -> bool:
        block, slices = self._now, self._slices
        block.tried, block.attends, block.bytes = 0, [], 0
        before = row_of(args[IMAGE]).clone()
        part = row_of(run(args)[IMAGE])
        right = slices.part_of(whole, 1)
        if part.shape != right.shape or not block.bytes or changes_apart(before, right, part) > limit_of(part):
            return False
        self._attends += [self._before + number for number in block.attends]
        self._before += len(block.calls)
        self._bytes += block.bytes
        form = Form(self.block + 1, tuple(self._attends), slices.tokens, slices.undivided, self._bytes)
        order = {"image_first": slices.image_first, "prefix": slices.prefix}
        self.look.form = dataclasses.replace(form, **order, window=self._window)
        return True

    @property
    def part(self) -> Slices | None:
        return None if self._now.tried is None else self._slices

    def of_all(self, row: Tensor) -> Tensor:
        block, part = self._now, self.part
        if part is None:
            block.rows.append(row)
            return row
        block.bytes += row.shape[-1] * row.element_size()
        whole = block.rows.pop(0)
        block.rows.append(whole)  # for another trial
        return torch.cat([whole[: part.first], row, whole[part.end :]])

    def attend(self, call: AttentionCall) -> Tensor:
        block = self._now
        if block.tried is None:
            if self.look.reason is None:
                block.calls.append(call.without_queries())
            return call()
        number, whole = block.tried, block.calls[block.tried]
        block.tried += 1
        if not call.is_divided(whole):
            return call()
        block.attends.append(number)
        block.bytes += call.bytes_a_token()
        if window := window_of(whole):
            if self._window not in (None, window):
                raise NotDivided(lines.TOKENS_NOT_ALONE())
            self._window, call = window, call.in_window(self._slices, window)
        return call.over_all(self._slices, Recorded(whole, call, self._slices))


def renamed(values: dict, name: str, other: str) -> dict:
    """`values` with `other` as the name of what is called `name` in it."""
    return {other if key == name else key: value for key, value in values.items()}


def as_row(run: Callable[[dict], dict]) -> Callable[[dict], dict]:
    """`run`, a block that calls its image ROW."""
    return lambda args: renamed(run(renamed(args, IMAGE, ROW)), ROW, IMAGE)


def last_ones(tokens: int) -> tuple[int, int]:
    """The part of so many tokens that is tried."""
    return tokens - max(1, tokens // LOOKED_AT), tokens


def changes_apart(before: Tensor, right: Tensor, part: Tensor) -> float:
    """How far apart two blocks are in what they change; rounding of what they leave as it is does not count."""
    rounding = ROUNDINGS * torch.finfo(part.dtype).eps
    before, right, part = before.float(), right.float(), part.float()
    changed = (right - before).abs().mean() + rounding * right.abs().mean()
    return float((right - part).abs().mean() / changed.clamp_min(1e-30))


def limit_of(part: Tensor) -> float:
    """How far apart they may be."""
    return LIMITS.get(part.dtype, LIMIT)


def forward_of(given: dict, through: Look | Shard) -> TokenForward:
    """The forward that `through` goes through, in the place of the hooks in the transformer_options `given`."""
    return LookForward(given, through) if isinstance(through, Look) else ShardForward(given, through)
