"""A model's file that a worker on another machine lacks: sent there, where the user allows it."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

import torch

from .. import lines
from .exchange import Exchange
from .pieces import send_whole
from .requests import LOAD_LIMIT_S

PIECE_BYTES = 4 << 20
AHEAD = 2  # pieces that are not answered
SENT_AS = ".safetensors"  # a file of this form has no code in it
GB = 1e9


class NotBrought(Exception):
    """The file does not get there; the text says why, in words for users."""


@dataclass(frozen=True)
class ModelFile:
    """A file of this machine that models are read from.

    `name` is what users call it, `kind` which of ComfyUI's kinds of folders it lies in; `stamp` is its size in bytes
    and a digest of samples, by which another machine knows it.
    """

    path: str
    name: str
    kind: str
    stamp: tuple[int, str]


@dataclass(frozen=True)
class Progress:
    """How far it is: a share of 1."""

    name: str
    machine: str
    share: float


_at_machine: dict[str, threading.Lock] = {}


def bring(exchange: Exchange, file: ModelFile, tell: Callable[[Progress | None], None]) -> str | None:
    """See to it that the worker's machine has `file`; `tell` is told how far it is. Returns where it was put, if so.

    Raises NotBrought, and WorkerLost.
    """
    machine = exchange.place.machine
    with _at_machine.setdefault(machine, threading.Lock()):  # the machine's other devices may want the same
        try:
            if _ask(exchange, part="seek", kind=file.kind, size=file.stamp[0], digest=file.stamp[1])["there"]:
                return None
            if not file.path.lower().endswith(SENT_AS):
                raise NotBrought(lines.NOT_SENT_KIND(machine=machine, file=file.name, ending=SENT_AS))
            tell(Progress(file.name, machine, 0.0))
            _ask(exchange, part="begin", kind=file.kind, size=file.stamp[0], digest=file.stamp[1])
            return _send(exchange, file, lambda share: tell(Progress(file.name, machine, share)))
        except OSError as error:
            raise NotBrought(lines.FILE_NOT_SENT(machine=machine, file=file.name, reason=error)) from error
        finally:
            tell(None)


def _send(exchange: Exchange, file: ModelFile, tell: Callable[[float], None]) -> str:
    digest, out = hashlib.blake2b(), deque()
    sent, size = 0, max(file.stamp[0], 1)
    with open(file.path, "rb") as source:
        while (piece := _piece(source)) is not None:
            digest.update(piece.numpy())
            item = {"shape": [len(piece)], "dtype": "uint8"}
            out.append(exchange.requests.ask("file", part="piece", tensors=[item]))
            with exchange.watch.connection():
                send_whole(exchange.channel, piece)
            if len(out) > AHEAD:
                _answer(exchange, out.popleft())
            sent += len(piece)
            tell(min(1.0, sent / size))
    while out:
        _answer(exchange, out.popleft())
    return str(_ask(exchange, part="end", whole=digest.hexdigest())["place"])


def _piece(source: BinaryIO) -> torch.Tensor | None:
    data = bytearray(PIECE_BYTES)
    count = source.readinto(data)
    return torch.frombuffer(data, dtype=torch.uint8)[:count] if count else None


def _ask(exchange: Exchange, **fields: object) -> dict:
    return _answer(exchange, exchange.requests.ask("file", **fields))


def _answer(exchange: Exchange, reply) -> dict:
    told = exchange.watch.wait(reply, LOAD_LIMIT_S, lambda: None, lines.DID_NOT_TAKE_FILE())
    if "refused" in told:
        raise NotBrought(str(told["refused"]))
    return told


def told_of(file: ModelFile, machine: str, place: str, since: float) -> str:
    """For the log: what sending took, from `since` (time.perf_counter) to now."""
    seconds = time.perf_counter() - since
    return lines.FILE_SENT(file=file.name, machine=machine, gb=file.stamp[0] / GB, seconds=seconds, place=place)
