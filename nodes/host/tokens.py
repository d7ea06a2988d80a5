"""A transformer's forward by tokens, through ComfyUI's hooks: looked at whole (Look), or one device's part (Shard).

At the first block the image's tokens are sliced, at each block what goes with them (rotary positions, a timestep
for each token), in each attention over all of them keys and values cross, and behind the last block the parts
are put together. Text is not divided; it stands before the image in every network of this host.

Which attention that is, and whether a part gives what the whole gives, is not guessed from names: in the whole
forward that is looked at, each block is run a second time with its last tokens, on the keys and values of the whole.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import comfy.model_management
import torch
from torch import Tensor

from ...hybridiff_core import lines
from ...hybridiff_core.network.tokens import Form, Look, Shard
from .attention import AttentionCall
from .token_slices import IMAGE, Slices, is_row, row_of

LOOKED_AT = 8  # one token in so many is tried
SAMPLED = 64  # tokens that are compared from one block to the next
# of what a block changes: beyond rounding, in a wide format and in others
LIMITS = {torch.float32: 1e-3, torch.float64: 1e-3}
LIMIT = 0.1
FAILS = (RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError)


class Recorded:
    """Stands for the other devices where a block is tried: gives the whole's tensors with the tried part's in them."""

    halves = 1

    def __init__(self, whole: AttentionCall, part: AttentionCall, slices: Slices):
        self._whole, self._slices, self._columns = whole, slices, part.columns(slices)

    def exchange(self, pairs: Sequence[tuple[Tensor, ...]], dim: int, n: int) -> Iterator[tuple[Tensor, ...]]:
        (parts,) = pairs
        yield tuple(self._joined(whole, part, dim, n) for whole, part in zip(self._wholes(dim), parts))

    def _wholes(self, dim: int) -> list[Tensor]:
        found = [self._whole.k, self._whole.v]
        return found + [self._whole.mask_along(dim)] if self._columns else found

    def _joined(self, whole: Tensor, part: Tensor, dim: int, n: int) -> Tensor:
        before = whole.shape[dim] - n
        return torch.cat([whole.narrow(dim, before, self._slices.first), part], dim)


class TokenForward:
    """What both kinds of forward have: the hooks at blocks and in attention. For one forward."""

    def __init__(self, given: dict):
        self._blocks_given = given.get("patches_replace", {}).get("dit", {})
        self._attention_given = given.get("optimized_attention_override")
        self.block = 0
        self.inside = False

    def hooks(self, given: dict, names: Sequence[tuple[str, int]]) -> dict:
        """`given`, a forward's transformer_options, with this one's hooks at the blocks of these names."""
        blocks = {name: functools.partial(self._asked, name) for name in names}
        replaced = {**given.get("patches_replace", {}), "dit": blocks}
        return {**given, "patches_replace": replaced, "optimized_attention_override": self._attend}

    def _asked(self, name: tuple[str, int], args: dict, extra: dict) -> dict:
        run = extra["original_block"]
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
        if not self.inside:
            return function(*args, **kwargs)
        return self.attend(AttentionCall.read(function, args, kwargs))

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
            self._slices = Slices(args, self.shard.mine)
            args = self._slices.image(args)
        out = run(self._slices.along(args))
        if self.block != self.shard.form.blocks - 1:
            return out
        return {**out, IMAGE: self._slices.gathered(out[IMAGE], self.shard)}

    def attend(self, call: AttentionCall) -> Tensor:
        number, self._calls = self._calls, self._calls + 1
        return call.over_all(self._slices, self.shard) if number in self._attends else call()


@dataclass
class Block:
    """A block that is tried: what the whole's attention was called with, and how far the trial has come."""

    calls: list[AttentionCall]
    tried: int | None = None


class LookForward(TokenForward):
    """A whole forward that shows how the network can be divided. Its outcome is the plain forward's."""

    def __init__(self, given: dict, look: Look):
        super().__init__(given)
        self.look = look
        self.look.form, self.look.reason = None, lines.NO_BLOCK_HOOK()
        self._seen: set[tuple[str, int]] = set()
        self._before = self._bytes = 0  # attention calls in earlier blocks; bytes of what crosses, for a token
        self._attends: list[int] = []
        self._slices: Slices | None = None
        self._left: Tensor | None = None
        self._now = Block([])

    def at_block(self, name: tuple[str, int], args: dict, run: Callable[[dict], dict]) -> dict:
        if self.block == 0:
            self.look.reason = None
        elif self.look.reason is None and name in self._seen:
            self._refuse(lines.TOKENS_ASKED_TWICE())
        if self.look.reason is None and not is_row(args.get(IMAGE)):
            self._refuse(lines.TOKENS_NOT_A_ROW())
        if self.look.reason is not None:
            return run(args)
        self._seen.add(name)
        if self._slices is None:
            self._slices = Slices(args, lambda n: (n - max(1, n // LOOKED_AT), n))
        elif not torch.equal(self._left, self._sample(args[IMAGE])):
            self._refuse(lines.ADDED_BETWEEN_BLOCKS())
            return run(args)
        few = self._slices.copied(args)  # before the block, which may write into what it is given
        before = row_of(few[IMAGE]).clone()
        self._now = Block([])
        out = run(args)
        if not is_row(out.get(IMAGE)) or not out.keys() <= args.keys():
            self._refuse(lines.TOKENS_NOT_A_ROW())
        elif not self._now.calls:
            self._refuse(lines.ATTENTION_HIDDEN())
        else:
            self._try(few, run, before, row_of(out[IMAGE]))
        self._now = Block([])
        return out

    def _try(self, few: dict, run: Callable[[dict], dict], before: Tensor, whole: Tensor) -> None:
        self._left = self._sample(whole)
        self._now.tried = 0
        found = list(self._attends)
        try:
            part = row_of(run(few)[IMAGE])
            right = part.shape == before.shape and self._difference(before, whole, part) < self._limit(part)
        except comfy.model_management.OOM_EXCEPTION:
            self._refuse(lines.NO_ROOM_TO_LOOK())
            return
        except FAILS:  # what fits only the whole
            right = False
        if not right or self._attends == found:
            self._refuse(lines.TOKENS_NOT_ALONE())
            return
        self._before += len(self._now.calls)
        slices = self._slices
        self.look.form = Form(self.block + 1, tuple(self._attends), slices.tokens, slices.text, self._bytes)

    def attend(self, call: AttentionCall) -> Tensor:
        block = self._now
        if block.tried is None:
            if self.look.reason is None:
                block.calls.append(call)
            return call()
        whole, number = block.calls[block.tried], self._before + block.tried
        block.tried += 1
        if not call.is_divided(whole):
            return call()
        self._attends.append(number)
        self._bytes += call.bytes_a_token()
        return call.over_all(self._slices, Recorded(whole, call, self._slices))

    def _refuse(self, reason: str) -> None:
        self.look.form, self.look.reason = None, reason

    def _sample(self, passed: object) -> Tensor:
        """Some of the image's tokens, text before it left out."""
        row = row_of(passed)
        row = row.narrow(1, row.shape[1] - self._slices.tokens, self._slices.tokens)
        return row[:, :: max(1, self._slices.tokens // SAMPLED)].clone()

    def _difference(self, before: Tensor, whole: Tensor, part: Tensor) -> float:
        """Between the whole's tokens and the part's, of what the block changed in them."""
        right, part, before = (value.float() for value in (self._slices.few(whole), part, before))
        rounding = torch.finfo(whole.dtype).eps * right.abs().mean()
        return float((right - part).abs().mean() / ((right - before).abs().mean() + 100 * rounding + 1e-30))

    @staticmethod
    def _limit(part: Tensor) -> float:
        return LIMITS.get(part.dtype, LIMIT)


def forward_of(given: dict, through: Look | Shard) -> TokenForward:
    """The forward that `through` goes through, in the place of the hooks in the transformer_options `given`."""
    return LookForward(given, through) if isinstance(through, Look) else ShardForward(given, through)
