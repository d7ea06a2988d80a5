"""Frames to one worker and from it: what it is asked and what it answers, by its pipe."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from concurrent.futures import Future
from concurrent.futures import wait as wait_for

from .. import lines
from .launch_local import WorkerProcess
from .sockets import Line
from .watch import POLL_S, Watch, WorkerLost

LOAD_LIMIT_S = 900.0
PASSED_ON = {"inner"}  # frames that workers may send each other through this process
FAILURES_LIMIT = 100
PIPE_ROOM = 4096  # bytes that every system's pipe takes, whatever its reader does


class Requests:
    """This process's end of a worker's pipe. `ready` has what the worker tells of itself once it started.

    `peers` are the workers that this one is connected with: it may have frames passed on to them.
    """

    def __init__(self, process: WorkerProcess, watch: Watch, name: str):
        self.watch, self.name = watch, name
        self.ready: Future = Future()
        self.peers: dict[str, Requests] = {}
        self._pipe = process.pipe
        self._writer = Line(f"hybridiff-write-{name}")  # a stuck worker's pipe is full at some time
        self._order = threading.Lock()
        self._queued = 0  # frames that the writer still has
        self._given = self._seen = 0  # bytes that were given to the pipe, and that the worker is known to have read
        self._pinged = 0
        self._numbers = itertools.count(1)
        self._replies: dict[int, tuple[Future, int]] = {}
        self._last: Future | None = None
        self._failures: dict[int, str] = {}
        threading.Thread(target=self._read, name=f"hybridiff-frames-{name}", daemon=True).start()

    def send(self, frame: dict) -> int:
        """Send a frame, at once where the pipe has room.

        Returns what `saw` is to be told when the worker has shown that it read the frame.
        Raises WorkerLost, CannotCross for too large a frame.
        """
        return self._send(self._pipe.pack(frame))

    def saw(self, given: int) -> None:
        """The worker has read all up to the frame for which `send` gave this."""
        self._seen = max(self._seen, given)

    def ask(self, op: str, **fields: object) -> Future:
        """Send a request; the result is the worker's reply, or WorkerLost. Raises WorkerLost, CannotCross."""
        number, reply = next(self._numbers), Future()
        frame = self._pipe.pack({"op": op, "id": number, **fields})  # before anybody waits for the reply
        self.watch.require()
        with self._order:
            self._replies[number] = (reply, self._given + len(frame))
            self._last = reply
            self._put(frame)
        return reply

    def ping(self) -> None:
        """Ask for a sign. Raises WorkerLost."""
        self._pinged = self.send({"op": "ping"})

    def let_finish(self) -> None:
        """Wait for the last request that nobody waited for: while it runs, the worker takes no tensors."""
        deadline = time.perf_counter() + LOAD_LIMIT_S
        while not self.settled:
            if self.watch.broken or time.perf_counter() > deadline:
                raise self.watch.lost(lines.DID_NOT_FINISH())
            wait_for([self._last], POLL_S)

    @property
    def settled(self) -> bool:
        """Whether the last request is answered."""
        return self._last is None or self._last.done()

    def failure(self, number: int) -> str:
        """Why a step failed."""
        # the reason comes by the pipe, sent before the message that we have
        deadline = time.perf_counter() + 1.0
        while number not in self._failures and time.perf_counter() < deadline:
            time.sleep(0.01)
        return self._failures.pop(number, lines.COMPUTATION_FAILED())

    def close(self) -> None:
        """Nothing more is sent; the worker's peers are told that it is gone."""
        self._writer.close()
        for other in list(self.peers.values()):
            other.peers.pop(self.name, None)
            with contextlib.suppress(WorkerLost):
                other.send({"op": "unlink", "peer": self.name})
        self.peers.clear()

    def _send(self, frame: bytes) -> int:
        self.watch.require()
        with self._order:
            return self._put(frame)

    def _put(self, frame: bytes) -> int:
        """Write it here where the pipe is known to have room, for what is asked before a forward must not wait."""
        self._given += len(frame)
        if not self._queued and self._given - self._seen <= PIPE_ROOM:
            self._write(frame)
        else:
            self._queued += 1
            self._writer.do(self._write_later, frame)
        return self._given

    def _write_later(self, frame: bytes) -> None:
        self._write(frame)
        with self._order:
            self._queued -= 1

    def _write(self, frame: bytes) -> None:
        try:
            self._pipe.write(frame)
        except (OSError, ValueError) as error:
            self.watch.ended(lines.PIPE_BROKE(error=error))

    def _read(self) -> None:
        try:
            while frame := self._pipe.receive():
                self._take(frame)
        except Exception as error:  # noqa: BLE001 - whatever a worker sends, this process lives on
            self.watch.broke(lines.UNREADABLE(error=error))
        self.watch.ended(lines.PIPE_CLOSED(), within_s=1.0)
        for waiting in [self.ready, *(reply for reply, _ in list(self._replies.values()))]:
            if not waiting.done():
                waiting.set_exception(self.watch.error(self.watch.broken))

    def _take(self, frame: dict) -> None:
        match frame:
            case {"op": "pong"}:
                self.saw(self._pinged)
                self.watch.pong()
            case {"op": "ready", **info}:
                self.ready.set_result(info)
            case {"op": "lost", "text": str(text)}:
                self.watch.broke(text)
            case {"op": "failed", "number": int(), "text": str(text), "inner": str(whose)} if whose:
                self._blame(whose, text)
            case {"op": "failed", "number": int(number), "text": str(text)}:
                if len(self._failures) >= FAILURES_LIMIT:
                    raise ValueError(lines.FAILURES_UNASKED(limit=FAILURES_LIMIT))
                self._failures[number] = text
            case {"op": "pass", "peer": str(peer), "frame": {"op": str(op)} as passed} if (
                peer in self.peers and op in PASSED_ON
            ):
                with contextlib.suppress(WorkerLost):  # its own reader says so
                    self.peers[peer].send(passed)
            case {"op": "reply", "id": int(number), **info} if number in self._replies:
                waiting, given = self._replies.pop(number)
                self.saw(given)
                if "error" in info:
                    waiting.set_exception(self.watch.error(str(info["error"])))
                else:
                    waiting.set_result(info)
            case _:
                raise ValueError(lines.UNKNOWN_FRAME(frame=str(frame)[:80]))

    def _blame(self, whose: str, text: str) -> None:
        """An inner part failed. No message will come; whose fault it is, the worker says."""
        if whose == self.name:
            self.watch.broke(text)
        elif peer := self.peers.get(whose):
            peer.watch.ended(text)
