"""This process's end of the channels for tokens: made between all devices that divide forwards together, and closed."""

from __future__ import annotations

import contextlib
import itertools
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import torch

from .. import lines
from .channel import Channel, connect
from .exchange import Exchange
from .requests import LOAD_LIMIT_S
from .room import first_memory
from .shared import Segment
from .sockets import Line, Stranger, pair
from .watch import GroupLost, WorkerLost

_numbers = itertools.count(1)


class TokenLinks:
    """A channel between any two of `devices`; None stands for this process, with the device `own`.

    `each_way` bytes of memory are shared by two, where both can map it. `channels` are this process's.
    Raises WorkerLost, and what `check` raises; then nothing is left open.
    """

    def __init__(
        self,
        devices: Sequence[Exchange | None],
        own: torch.device,
        each_way: int,
        check: Callable[[], None] = lambda: None,
    ):
        self.number, self.each_way, self.own = next(_numbers), each_way, own
        self.workers = [exchange for exchange in devices if exchange]
        self.channels: dict[Exchange, Channel] = {}
        self._line = Line("hybridiff-connect") if None in devices else None  # one end waits for the other to answer
        self._connecting: list[Future] = []
        try:
            for exchange in self.workers:
                exchange.wait_idle(check)  # or another one would wait for it at the door
            made = [self._tie(here, there) for here, there in itertools.combinations(devices, 2)]
            self._wait([reply for replies in made for reply in replies], check)
        except BaseException:
            self.close()
            raise
        finally:
            if self._line:
                self._line.close()

    def close(self) -> None:
        """Hang up, everywhere at once: who waits for something knows that it will not come."""
        for exchange in self.workers:
            with contextlib.suppress(WorkerLost):
                exchange.requests.send({"op": "tokens_end", "connection": self.number})
        for connecting in self._connecting:
            connecting.add_done_callback(_close)
        self.channels.clear()

    def _tie(self, here: Exchange | None, there: Exchange) -> list[_Reply]:
        """Have two devices meet. Does not wait for it. Raises WorkerLost."""
        token = secrets.token_bytes(32)
        both = [exchange for exchange in (here, there) if exchange]
        memory = first_memory(self.each_way) if all(exchange.channel.room for exchange in both) else None
        replies = []
        try:
            ends = pair()
        except (Stranger, OSError) as error:
            raise there.watch.lost(lines.NO_WAY_TO_ANOTHER(error=error)) from error
        with contextlib.ExitStack() as given:
            if memory:
                given.callback(memory.close_file)
            connecting = None
            for rank, (mine, other) in enumerate(((here, there), (there, here))):
                if mine is None:
                    connecting = self._line.do(connect, ends[rank], rank, self.own, token)
                    self._connecting.append(connecting)
                    continue
                given.enter_context(ends[rank])
                told = {"connection": self.number, "peer": other.name if other else "", "rank": rank}
                reply = mine.requests.ask("tokens", token=token.hex(), **told, **mine.hand(ends[rank], memory))
                replies.append(_Reply(mine, reply, connecting, memory))
        return replies

    def _wait(self, replies: Sequence[_Reply], check: Callable[[], None]) -> None:
        refused = None
        for one in replies:
            told = one.exchange.watch.wait(one.reply, LOAD_LIMIT_S, check, lines.DID_NOT_CONNECT_TO_ANOTHER())
            if "refused" in told:  # whose fault that was another's reply may say
                refused = refused or lines.GROUP_OUT(device=one.exchange.watch.label, reason=told["refused"])
            elif one.connecting:
                channel = one.exchange.watch.wait(one.connecting, LOAD_LIMIT_S, check, lines.DID_NOT_CONNECT())
                if one.memory and told.get("shared"):
                    channel.adopt(one.memory)
                    channel.use()
                self.channels[one.exchange] = channel
        if refused:
            raise GroupLost(refused)


@dataclass(frozen=True)
class _Reply:
    """What a worker was asked for, and this process's own end of it, where it has one."""

    exchange: Exchange
    reply: Future
    connecting: Future | None
    memory: Segment | None


def _close(connecting: Future) -> None:
    if not connecting.exception():
        connecting.result().close()
