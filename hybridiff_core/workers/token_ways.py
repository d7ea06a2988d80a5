"""The channels by which the tokens' keys and values cross, between any two devices that divide a forward.

Devices that compute together have channels of their own for it, which a number names. After a call that failed they
are closed, all of them, and others are made: so nothing stale is ever read, and closing is how a device tells the
others that the call is over.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError as NotYet

import torch

from .. import lines
from ..network.tokens import Form, Shard
from .channel import Channel, ChannelBroken, Expected, Parts, Stowed

POLL_S = 0.05


class TokenWay:
    """A Way (network/tokens.py) over a channel. Waits `limit_s` seconds for a message, with `meanwhile` called."""

    def __init__(self, channel: Channel, limit_s: float, meanwhile: Callable[[], None] = lambda: None):
        self.channel, self.limit_s, self.meanwhile = channel, limit_s, meanwhile

    def stow(self, tensors: Sequence[torch.Tensor]) -> Stowed:
        return self.channel.stow(tensors, self.limit_s, self.meanwhile)

    def send(self, stowed: Stowed) -> None:
        self.channel.send_stowed(stowed)

    def expect(self, parts: Parts) -> Expected:
        return self.channel.expect(parts)

    def receive(self, expected: Expected) -> list[torch.Tensor]:
        """Raises ChannelBroken, and what `meanwhile` raises."""
        deadline = time.monotonic() + self.limit_s
        while True:
            try:
                expected.result(POLL_S)
                return expected.wait(0.0)
            except NotYet as error:
                if time.monotonic() > deadline:
                    raise ChannelBroken(lines.NOTHING_CAME(seconds=self.limit_s)) from error
            self.meanwhile()

    def release(self, expected: Expected) -> None:
        expected.release()


class TokenChannels:
    """A worker's channels for tokens: by the number of the devices' connection, and the other device's name.

    The reading thread ends a connection while the main thread makes or uses it.
    """

    def __init__(self) -> None:
        self._open: dict[int, dict[str, Channel]] = {}
        self._ended = 0  # all connections up to this one that are not open
        self._lock = threading.Lock()

    def add(self, number: int, peer: str, channel: Channel) -> None:
        with self._lock:
            if number > self._ended:
                self._open.setdefault(number, {})[peer] = channel
                return
        channel.close()

    def end(self, number: int) -> None:
        """Close the channels of a connection; it is not made any more."""
        with self._lock:
            self._ended = max(self._ended, number)
            channels = self._open.pop(number, {})
        for channel in channels.values():
            channel.close()

    def end_all(self) -> None:
        for number in list(self._open):
            self.end(number)

    def shard(self, frame: dict, own_name: str) -> Shard:
        """This device's part of the forward that `frame` tells of. Raises ChannelBroken where it has ended."""
        open_ = self._open.get(frame["connection"], {})
        if set(frame["peers"]) - {own_name, *open_}:
            raise ChannelBroken(lines.OTHER_WORKER_GONE())
        ways = [None if peer == own_name else TokenWay(open_[peer], frame["limit_s"]) for peer in frame["peers"]]
        return Shard(Form.of(frame["form"]), frame["rank"], frame["bounds"], ways, frame["halves"])
