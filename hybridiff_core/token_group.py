"""Devices that divide a call's forwards by the image's tokens (network/tokens.py)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict

import psutil
import torch

from . import lines
from .call import Call, Parts, Piece, Rows
from .network.tokens import SHARES, Form, NotDivided, Shard
from .share import Unit
from .workers.channel import Channel, ChannelBroken
from .workers.exchange import Exchange
from .workers.loop import describe
from .workers.shared import MOST_BYTES
from .workers.steps import Answer
from .workers.token_links import TokenLinks
from .workers.token_ways import POLL_S, TokenWay
from .workers.watch import GroupLost, WorkerLost

MESSAGES = 2  # that two devices' memory has room for, in each direction: a device may be one ahead
OF_FREE = 8  # one part in so many of the free RAM may be shared memory; what has no room goes by the sockets
ROUND = 1 << 20
BACKSTOP_S = 600.0  # for a worker that waits for tokens: this process sees to it that it need not wait so long


class TokenGroup:
    """`devices` in the order of their parts. None is this process, with the torch device `own`: the first, if any.

    `check` may raise, to interrupt. After what any method raises the group's channels are closed, and made anew for
    the next call; workers that are not lost can be given other steps at once. To be kept for the calls of a run.
    """

    def __init__(
        self,
        devices: Sequence[Exchange | None],
        own: torch.device,
        check: Callable[[], None] = lambda: None,
    ):
        self.devices, self.own_device, self.check = list(devices), own, check
        if None in self.devices[1:]:
            raise ValueError(f"None at {self.devices.index(None, 1)}, not 0")
        self.workers = [exchange for exchange in devices if exchange]
        self.waited_s = 0.0  # of this process, for the others, in the last call
        self.moved = (0, 0)  # bytes of tokens that this process sent and received in it
        self._links: TokenLinks | None = None
        self._interrupted = False
        self._out: list[Exchange] = []  # workers whose answers are out
        self._answers: dict[Exchange, Answer] = {}

    # -- a call

    def submit(
        self,
        call: Call,
        units: Sequence[Unit],
        form: Form,
        bounds: Sequence[int],
        halves: int = 1,
        rows: Rows | None = None,
    ) -> None:
        """Start `units` on the group's workers, of batch items `rows` or of all.

        `bounds` and `halves` as in Shard. Raises WorkerLost.
        """
        self._units, self._form, self._bounds, self._halves = list(units), form, tuple(bounds), halves
        self._rows = rows
        if len(bounds) != len(self.devices) + 1:
            raise ValueError(f"{len(bounds)} bounds, {len(self.devices)} devices")
        self._answers.clear()
        try:
            self._tie(call)
            self._limit_s = max((exchange.steps.limit() for exchange in self.workers), default=0.0)
            how = {
                "kind": "tokens",
                "connection": self._links.number,
                "form": asdict(form),
                "bounds": list(bounds),
                "halves": halves,
                "peers": [exchange.name if exchange else "" for exchange in self.devices],
                "limit_s": max(BACKSTOP_S, 2 * self._limit_s),
            }
            for rank, exchange in enumerate(self.devices):
                if exchange:
                    exchange.submit(call.x, call.sigma, self._units, rows, rank=rank, **how)
                    self._out.append(exchange)
        except BaseException:
            self.abandon()
            raise

    def own(self, call: Call) -> Parts:
        """This process's part of the units' forwards, and so their predictions; none where it is not in the group.

        Raises WorkerLost, of the worker at fault, and what `check` and the network raise.
        """
        self.waited_s, self.moved, parts = 0.0, (0, 0), []
        if None not in self.devices:
            return parts
        channels = [self._links.channels[one] for one in self.workers]
        before = _moved(channels)
        ways = [None, *(TokenWay(channel, self._limit_s, self._tend) for channel in channels)]
        try:
            for unit in self._units:
                shard = Shard(self._form, 0, self._bounds, ways, self._halves)
                prediction = call.here([unit], shard, self._rows)[unit.branch]
                parts.append(Piece([unit], prediction, self._rows and self._rows[:2]))
                self.waited_s += shard.waited_s
                if not shard.gathered:
                    raise NotDivided(lines.NOT_DIVIDED())
        except BaseException as error:
            if isinstance(error, ChannelBroken):
                raise self._fault(error) from error
            self.abandon()
            # what the network cannot do in parts it may do whole
            if isinstance(error, Exception) and not (self._interrupted or isinstance(error, WorkerLost)):
                raise self._lost(describe(error)) from error
            raise
        self.moved = tuple(now - then for now, then in zip(_moved(channels), before))
        return parts

    def collect(self) -> list[tuple[Exchange, Answer]]:
        """Every worker's answer; the predictions are in that of the first device, where that is a worker.

        Raises WorkerLost, of the worker at fault, and what `check` raises.
        """
        try:
            lost = self._gather()
            if lost or self._out:
                raise self._fault(lost or "")
        except BaseException:
            self.abandon()
            raise
        return [(exchange, self._answers[exchange]) for exchange in self.workers]

    def abandon(self) -> None:
        """The call is over: nobody waits for another's tokens any more, and nobody for an answer."""
        self._untie()
        for exchange in self._out:
            exchange.steps.disown()
        self._out.clear()

    # -- how it is done

    def _tie(self, call: Call) -> None:
        """Connect the devices, where they are not, or with too little memory."""
        form, largest = self._form, max(end - first for first, end in zip(self._bounds, self._bounds[1:]))
        items = self._rows[1] - self._rows[0] if self._rows else len(call.x)
        message = items * form.tokens * largest // SHARES * form.bytes_a_token // max(1, len(form.attends))
        each_way = min(-(-max(1, MESSAGES * message) // ROUND) * ROUND, MOST_BYTES, self._most())
        if self._links and self._links.each_way < each_way:
            self._untie()
        if self._links is None:
            self._links = TokenLinks(self.devices, self.own_device, each_way, self.check)

    def _most(self) -> int:
        """Bytes each way for two devices, by the RAM that is free."""
        pairs = len(self.devices) * (len(self.devices) - 1) // 2
        return max(ROUND, psutil.virtual_memory().available // OF_FREE // (2 * pairs))

    def _tend(self) -> None:
        """While something is waited for. Raises WorkerLost where a worker is dead or stuck, and what `check` raises."""
        try:
            self.check()
        except BaseException:
            self._interrupted = True
            raise
        for exchange in self.workers:
            if not exchange.process.alive():
                raise exchange.watch.lost(lines.PIPE_CLOSED())
            exchange.watch.require()
            exchange.watch.look(quick=True)

    def _gather(self) -> GroupLost | None:
        """Take the answers that are out, or those that come in time. Gives one that says that a device was lost.

        Raises WorkerLost, of the worker at fault.
        """
        deadline, lost = time.perf_counter() + self._limit_s, None
        while self._out and time.perf_counter() < deadline:
            for exchange in list(self._out):
                if exchange.steps.here(POLL_S if exchange is self._out[0] else 0.0):
                    try:
                        self._answers[exchange] = exchange.collect(self.check)
                    except GroupLost as error:
                        lost = lost or error
                        self._untie()  # the others need not wait for it
                    self._out.remove(exchange)
            self._tend()
        return lost

    def _fault(self, reason: object) -> WorkerLost:
        """Whose fault it was that a forward broke off: a worker's that is dead, stuck or failed; else the group's."""
        self._untie()  # all answer now that can
        try:
            lost = self._gather()
            if self._out:
                late = lines.TOO_LATE(what=lines.DID_NOT_ANSWER(), seconds=self._limit_s)
                return self._out[0].watch.lost(late)
            return lost or self._lost(reason)
        except WorkerLost as error:
            return error
        finally:
            self.abandon()

    def _lost(self, reason: object) -> GroupLost:
        return GroupLost(lines.GROUP_OUT(device=self.workers[0].watch.label, reason=reason))

    def _untie(self) -> None:
        if self._links:
            self._links.close()
            self._links = None


def _moved(channels: Sequence[Channel]) -> tuple[int, int]:
    return sum(channel.bytes_sent for channel in channels), sum(channel.bytes_received for channel in channels)
