"""Watching over one worker: whether it still moves, and how and when it was lost."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet

from .. import lines
from .channel import ChannelBroken
from .launch_local import WorkerProcess

LOOK_S = 1.0  # how often a worker that is waited for is asked whether it still moves
SLOW_S, STUCK_S = 1.0, 6.0  # no answer for the first, then nothing done for the second: it is given up
FAR_S = 8.0  # one on another machine, of which only its answers show that it moves
QUICK_LOOK_S, STOPPED_S = 0.2, 0.8  # while others wait for it in the middle of a forward: one that is stopped
POLL_S = 0.05


class WorkerLost(Exception):
    """The worker cannot finish what it was given: dead, stuck, or failed. The text says why."""


class GroupLost(WorkerLost):
    """A lead worker lost the inner devices of its group; it can still compute whole steps."""


class Watch:
    """What is known of one worker's life. `ping` asks it for a sign; whoever reads its answer calls `pong`.

    `broken` says why it was lost, `lost_at` when that was noticed (time.perf_counter).
    """

    def __init__(self, process: WorkerProcess, label: str, ping: Callable[[], None]):
        self.process, self.label, self.ping = process, label, ping
        self.broken: str | None = None
        self.lost_at: float | None = None
        self._pinged_at: float | None = None
        self._looked_at = self._moved_at = 0.0

    def close(self, text: str) -> None:
        """Watch no more: the worker is ended here."""
        self.broken = self.broken or text
        self.ping = lambda: None  # it holds what watches, which would keep both until Python looks for cycles

    def alive(self) -> bool:
        return self.broken is None and self.process.alive()

    # -- does it move?

    def look(self, quick: bool = False) -> None:
        """Every second: is the worker still moving? Raises WorkerLost.

        Its reading thread answers at once, whatever its main thread does; while it is being started,
        that it uses its processor or disk has to do. `quick` finds one that the system has stopped within 2 s;
        any other that does not answer may only wait for a processor that others use.
        """
        now = time.perf_counter()
        if now - self._looked_at < (QUICK_LOOK_S if quick else LOOK_S):
            return
        self._looked_at = now
        pinged_at = self._pinged_at
        if pinged_at is None:
            self._pinged_at = self._moved_at = now
            self.ping()
        elif quick or now - pinged_at > SLOW_S:
            if self.process.has_moved():
                self._moved_at = now
            stuck_s = FAR_S if self.process.elsewhere else STUCK_S
            stuck_s = STOPPED_S if quick and self.process.is_stopped() else stuck_s
            if now - self._moved_at > stuck_s and self._pinged_at is not None:
                raise self.lost(lines.STUCK(seconds=stuck_s))

    def pong(self) -> None:
        """The worker answered."""
        self._pinged_at = None

    def wait(self, waiting: Future, limit_s: float, check: Callable[[], None], failed: str):
        """The result of `waiting`, with an eye on the worker; `check` is called meanwhile and may raise.

        `failed` is the line that says what the worker did not do where it is late. Raises WorkerLost.
        """
        deadline = time.perf_counter() + limit_s
        while True:
            came = waiting.done()  # asked before: what comes while it is waited for is seen the next time round
            try:
                return waiting.result(0.0 if came else POLL_S)
            except NotYet:
                if came:  # the error is its own
                    raise
            except ChannelBroken as error:
                reason = lines.CONNECTION_BROKE(error=error)
                raise self.lost(lines.FAILED_BY_CONNECTION(what=failed, reason=reason)) from error
            check()
            if self.broken and not waiting.done():
                raise self.lost(self.broken)
            self.look()
            if time.perf_counter() > deadline:
                raise self.lost(lines.TOO_LATE(what=failed, seconds=limit_s))

    # -- how it was lost

    def broke(self, text: str) -> None:
        """The worker is lost, and why; the first reason counts."""
        if self.broken is None:
            self.broken, self.lost_at = text, time.perf_counter()

    def ended(self, otherwise: str, within_s: float = 0.3) -> None:
        """The worker is lost: by its end, where it ends `within_s` seconds, which is the better reason."""
        if not self.broken:
            self.broke(self.process.last_words(within_s) or otherwise)

    def lost(self, text: str) -> WorkerLost:
        """Give the worker up: after a lost message nothing on its channel can be trusted."""
        self.ended(text)  # a broken connection is how an end shows first
        return self.error(self.broken)

    @contextlib.contextmanager
    def connection(self) -> Iterator[None]:
        """What is done by the channel; that it broke is the worker's loss. Raises WorkerLost."""
        try:
            yield
        except ChannelBroken as error:
            raise self.lost(lines.CONNECTION_BROKE(error=error)) from error

    def require(self) -> None:
        """Raises WorkerLost where the worker is known to be lost."""
        if self.broken:
            raise self.error(self.broken)

    def error(self, text: str) -> WorkerLost:
        return WorkerLost(lines.WORKER_OUT(device=self.label, reason=text))
