"""A forward divided by the image's tokens: what is known of the network, and one device's part in it.

In a transformer only self-attention mixes tokens. So each of D devices computes a part of the image's tokens and all
of the text's; in each such attention the devices' keys and values cross, and each attends with its own queries to
all of them; behind the last block the parts are put together. Nothing is approximated. As in Ulysses and ring
attention, with parts of unequal size.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .. import lines
from ..waiting import wait_for
from .split import Reached

SHARES = 4096  # parts of the tokens are told in so many
Parts = Sequence[tuple[tuple[int, ...], torch.dtype]]


@dataclass(frozen=True)
class Form:
    """What a whole forward showed of a network.

    `blocks` is how often its block hook was asked; `attends` which attention calls within them, counted from 0
    through the forward, are over all image tokens: their keys and values cross. `tokens` and `text` are the image's
    and the text's tokens, `bytes_a_token` the bytes of all that crosses for one token of one batch item: for estimates.
    `image_first`: where text and image stand in one row, the image's tokens come before the text's. `prefix`: how many
    tokens of the first block's row are text. `window`: how far from itself a token attends to others, where attention
    makes a mask of that, and what it adds for those beyond.
    """

    blocks: int
    attends: tuple[int, ...]
    tokens: int
    text: int
    bytes_a_token: int
    image_first: bool = False
    prefix: int = 0
    window: tuple[int, float] | None = None

    @classmethod
    def of(cls, told: dict) -> Form:
        """Undo `dataclasses.asdict`, after JSON too."""
        window = told.get("window")
        return cls(**{**told, "attends": tuple(told["attends"]), "window": window and tuple(window)})


class NotDivided(Exception):
    """The network does something with its tokens that a divided forward does not do as the whole one does."""


class Look:
    """Given through a whole forward of one unit: the network's side fills in its form, or why it has none."""

    def __init__(self) -> None:
        self.form: Form | None = None
        self.reason: str | None = None


class Way(Protocol):
    """To one other device and back. Messages are lists of tensors, and come in the order in which they were sent.

    Any of these may raise: then the forward is over for all.
    """

    def stow(self, tensors: Sequence[Tensor]) -> object:
        """Begin to copy a message out, on the device's current stream; nobody sees it yet."""

    def send(self, stowed: object) -> None:
        """Wait for the copies, on the device's current stream, and let the other device have them."""

    def expect(self, parts: Parts) -> object:
        """What comes next."""

    def receive(self, expected: object) -> list[Tensor]:
        """Its tensors, in host memory that is theirs until `release`."""

    def release(self, expected: object) -> None:
        """Its tensors are no longer wanted."""


class Shard:
    """Given through a forward that is divided by tokens: the part of the device with `rank`; 0 is the lead.

    `bounds` are D + 1 numbers from 0 to SHARES, `ways` lead to the device of each rank, None in this one's place.
    `halves` is into how many parts the heads should be divided, so that a part travels while another is computed.
    """

    def __init__(self, form: Form, rank: int, bounds: Sequence[int], ways: Sequence[Way | None], halves: int = 1):
        self.form, self.rank, self.bounds, self.halves = form, rank, tuple(bounds), halves
        if self.bounds[0] != 0 or self.bounds[-1] != SHARES or list(self.bounds) != sorted(self.bounds):
            raise ValueError(f"bounds {self.bounds}: not 0 ... {SHARES}")
        self.waited_s = 0.0  # for other devices, while this one had nothing to do
        self.gathered = False
        self._others = [(other, way) for other, way in enumerate(ways) if other != rank]
        self._held: list[tuple[Way, object]] = []  # messages that the device may still copy from

    def mine(self, n: int, rank: int | None = None) -> tuple[int, int]:
        """The first token, of `n`, of this device's part or that of `rank`, and the one behind its last."""
        rank = self.rank if rank is None else rank
        return n * self.bounds[rank] // SHARES, n * self.bounds[rank + 1] // SHARES

    def exchange(self, pairs: Sequence[tuple[Tensor, ...]], dim: int, n: int) -> Iterator[tuple[Tensor, ...]]:
        """For each tuple of this device's parts of tensors along `dim`, the same tensors of all `n` tokens.

        A later tuple travels while the caller computes with an earlier one. All are to be taken.
        """
        device = pairs[0][0].device
        expected = [[way.expect(self._parts(some, dim, n, rank)) for rank, way in self._others] for some in pairs]
        self._send(self._stow(pairs[0]))
        self._release()  # sending waited for the device
        wholes = [tuple(self._begun(part, dim, n) for part in some) for some in pairs]
        beside = _Beside(device) if len(pairs) > 1 else None
        stowed = None
        for number, whole in enumerate(wholes):
            last = number + 1 == len(pairs)
            if not last:
                with beside or contextlib.nullcontext():
                    stowed = self._stow(pairs[number + 1])
                if not beside.streams:  # copied already
                    self._send(stowed)
            with beside if number else contextlib.nullcontext():
                self._receive(expected[number], whole, dim, n, idle=not number or not beside.streams)
            if number:
                beside.join()
            yield whole
            if not last and beside.streams:
                with beside:
                    self._send(stowed)

    def gather(self, part: Tensor, dim: int, n: int) -> Tensor:
        """The whole of which each device has a part along `dim`, for rank 0; every other rank's forward ends here.

        Raises Reached there.
        """
        if self.rank:
            _, lead = self._others[0]
            lead.send(lead.stow([part]))
            self.gathered = True
            self._release()
            raise Reached((part,))
        expected = [way.expect(self._parts([part], dim, n, rank)) for rank, way in self._others]
        whole = self._begun(part, dim, n)
        self._receive(expected, [whole], dim, n)
        if self._held:
            wait_for(part.device)
            self._release()
        self.gathered = True
        return whole

    def _parts(self, tensors: Sequence[Tensor], dim: int, n: int, rank: int) -> Parts:
        """The shapes of what `rank` has of the same tensors."""
        first, end = self.mine(n, rank)
        return [(_with_size(tensor, dim, end - first), tensor.dtype) for tensor in tensors]

    def _begun(self, part: Tensor, dim: int, n: int) -> Tensor:
        """A whole in which there is only this device's part."""
        first, end = self.mine(n)
        if part.shape[dim] != end - first:
            raise NotDivided(lines.OTHER_TOKENS(found=part.shape[dim], expected=end - first))
        whole = part.new_empty(_with_size(part, dim, n))
        whole.narrow(dim, first, end - first).copy_(part)
        return whole

    def _stow(self, tensors: Sequence[Tensor]) -> list[object]:
        return [way.stow(tensors) for _, way in self._others]

    def _send(self, stowed: list[object]) -> None:
        for (_, way), one in zip(self._others, stowed):
            way.send(one)

    def _receive(self, expected: list[object], wholes: Sequence[Tensor], dim: int, n: int, idle: bool = True) -> None:
        for (rank, way), one in zip(self._others, expected):
            started = time.perf_counter()
            came = way.receive(one)
            if idle:
                self.waited_s += time.perf_counter() - started
            first, end = self.mine(n, rank)
            for whole, part in zip(wholes, came):
                whole.narrow(dim, first, end - first).copy_(part, non_blocking=True)
            self._held.append((way, one))
        if wholes[0].device.type == "cpu":
            self._release()

    def _release(self) -> None:
        for way, expected in self._held:
            way.release(expected)
        self._held.clear()


class _Beside:
    """Work for a CUDA device beside its current stream, begun when that has done what it was given so far."""

    def __init__(self, device: torch.device):
        self.streams = device.type == "cuda"
        if self.streams:
            self._main = torch.cuda.current_stream(device)
            self._side = torch.cuda.Stream(device)
            self._side.wait_stream(self._main)

    def __enter__(self) -> None:
        if self.streams:
            self._context = torch.cuda.stream(self._side)
            self._context.__enter__()

    def __exit__(self, *failure: object) -> None:
        if self.streams:
            self._context.__exit__(*failure)

    def join(self) -> None:
        """What the current stream is given from here on waits for it."""
        if self.streams:
            self._main.wait_stream(self._side)


def _with_size(tensor: Tensor, dim: int, size: int) -> tuple[int, ...]:
    shape = list(tensor.shape)
    shape[dim] = size
    return tuple(shape)
