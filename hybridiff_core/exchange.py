"""This process's end of one worker: requests, and steps in two halves, submit and collect.

Between submit and collect the worker computes while this process does its own share. Bytes and
times are counted where they arise.
"""

from __future__ import annotations

import itertools
import queue
import secrets
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from concurrent.futures import wait as wait_for
from dataclasses import dataclass

import torch

from .channel import Channel, ChannelBroken, PipeStore, choose_backend, connect
from .devices import Place
from .launch_local import WorkerProcess
from .share import Unit
from .wire import Kinds, Ledger, Parcel

START_LIMIT_S = 180.0
LOAD_LIMIT_S = 900.0
FIRST_STEP_LIMIT_S = 300.0
POLL_S = 0.05
CONDS_FIRST_NUMBER = 1 << 40
HEADER = ((3,), torch.int64)  # step number, status (0 = right), microseconds of computing


class WorkerLost(Exception):
    """The worker cannot finish what it was given: dead, stuck, or failed. The text says why."""


@dataclass(frozen=True)
class Answer:
    """What a worker computed in one step: a prediction per branch, and what it took."""

    predictions: dict[int, torch.Tensor]
    compute_s: float
    wait_s: float
    bytes_sent: int
    bytes_received: int


@dataclass(frozen=True)
class Loading:
    """What giving a worker its model took: bytes of tensors sent, whether it read the model anew, seconds."""

    sent_bytes: int = 0
    read_anew: bool = False
    seconds: float = 0.0


@dataclass(frozen=True)
class _Pending:
    number: int
    branches: list[int]
    device: torch.device
    bytes_sent: int
    bytes_received: int
    message: Future


class Exchange:
    """One worker, connected. Steps and requests come from one thread at a time.

    `own` is this process's torch device, `kinds` says how host objects cross.
    """

    def __init__(self, process: WorkerProcess, place: Place, own: torch.device, kinds: Kinds | None = None):
        self.place, self.own, self.kinds = place, own, kinds
        self.process = process
        self.channel: Channel | None = None
        self.info: dict = {}
        self.loading = Loading()
        self.broken: str | None = None
        self._store = PipeStore(lambda key, value: process.pipe.send({"op": "store", "key": key, "value": value.hex()}))
        self._numbers = itertools.count(1)
        self._replies: dict[int, Future] = {}
        self._ready: Future = Future()
        self._failures: dict[int, str] = {}
        self._pending: _Pending | None = None
        self._last_reply: Future | None = None
        self._recipe = Ledger(by_content=False)
        self._conds = Ledger(by_content=True, first_number=CONDS_FIRST_NUMBER)
        self._loaded: object = None
        self._step_times: deque[float] = deque(maxlen=50)
        self._step_shape: torch.Size | None = None
        self._incoming: queue.SimpleQueue = queue.SimpleQueue()
        for work, name in ((self._read_frames, "frames"), (self._receive_messages, "messages")):
            threading.Thread(target=work, name=f"hybridiff-{name}-{place.key}", daemon=True).start()

    # -- life

    def open(self, start: dict, check: Callable[[], None] = lambda: None) -> None:
        """Tell the worker what it is to be, wait until it is ready, and connect the channel.

        Raises WorkerLost.
        """
        self._send_frame({"op": "start", "device": self.place.device, **start})
        self.info = self._wait(self._ready, START_LIMIT_S, check, "did not start")
        token = secrets.token_bytes(32)
        here, there = self.own.type, torch.device(self.place.device).type
        backend = choose_backend(here, there, self.place.same_device)
        reply = self._request("connect", backend=backend, token=token.hex())
        try:
            self.channel = connect(self._store, 0, backend, self.own, token)
        except ChannelBroken as error:
            raise self._lost(f"its connection broke ({error})") from error
        self._wait(reply, LOAD_LIMIT_S, check, "did not connect")

    def alive(self) -> bool:
        return self.broken is None and self.process.alive()

    def close(self) -> None:
        lost, self.broken = self.broken, self.broken or "it was closed"
        self._incoming.put(None)
        self.process.stop(grace_s=0.2 if lost else 2.0)
        if self.channel:
            self.channel.close()

    # -- requests

    def load(self, recipe: object, check: Callable[[], None] = lambda: None) -> Loading:
        """Make the worker hold the model that `recipe` describes; sends only what it lacks.

        Raises WorkerLost, and CannotCross for a recipe with something in it that has no form on
        the wire.
        """
        started = time.perf_counter()
        parcel = self._recipe.pack(recipe, self.kinds, "the model")
        if self._loaded == parcel.value and not parcel.tensors:
            return Loading(seconds=time.perf_counter() - started)
        self._loaded = None
        reply = self._request("load", parcel)
        info = self._wait(reply, LOAD_LIMIT_S, check, "did not load the model")
        self._loaded = parcel.value
        self.info.update(info)
        sent = sum(tensor.nbytes for _, tensor in parcel.tensors)
        return Loading(sent, bool(info.get("read_anew")), time.perf_counter() - started)

    def begin(self, run: object) -> None:
        """Give the worker a run's conditioning and options. Does not wait. Raises WorkerLost, CannotCross."""
        self._step_times.clear()  # another model or latent has other step times, and the first step may load
        self._request("begin", self._conds.pack(run, self.kinds, "the conditioning"))

    def renew(self, run: object) -> None:
        """Like `begin`, for conditioning that changed within a run."""
        self._request("renew", self._conds.pack(run, self.kinds, "the conditioning"))

    def end(self) -> None:
        """The run is over; the worker keeps its model. Does not wait."""
        self._request("end")

    def unload(self) -> None:
        """Ask the worker to give its device memory back; it keeps what it needs to load again quickly."""
        self._request("unload")

    def drain(self, check: Callable[[], None] = lambda: None) -> None:
        """Wait for the answer of a step that an interrupted run left behind. Raises WorkerLost."""
        if self._pending:
            self.collect(check)

    # -- steps

    def submit(self, x: torch.Tensor, sigma: torch.Tensor, units: Sequence[Unit]) -> None:
        """Start a step: the worker predicts `units` at (x, sigma). Raises WorkerLost.

        x [batch, channels, ...]; sigma [batch]. The answer has x's shape and dtype for each branch.
        """
        if self._step_shape != x.shape:
            self._step_shape = x.shape
            self._step_times.clear()
        number = next(self._numbers)
        branches = sorted({unit.branch for unit in units})
        self._send_frame({
            "op": "step",
            "number": number,
            "x": [list(x.shape), str(x.dtype).removeprefix("torch.")],
            "sigma": [list(sigma.shape), str(sigma.dtype).removeprefix("torch.")],
            "units": [[unit.branch, unit.index] for unit in units],
        })  # fmt: skip
        try:
            sent = self.channel.send([x, sigma])
            expected = self.channel.expect([HEADER, ((len(branches), *x.shape), x.dtype)])
        except ChannelBroken as error:
            raise self._lost(f"its connection broke ({error})") from error
        message: Future = Future()
        self._pending = _Pending(number, branches, x.device, sent, expected.size, message)
        self._incoming.put((expected, self._step_limit(), message))

    def collect(self, check: Callable[[], None] = lambda: None) -> Answer:
        """Finish the step that `submit` started; calls `check` while it waits.

        Raises WorkerLost; what `check` raises goes through, and the answer is left for `drain`.
        """
        pending = self._pending
        started = time.perf_counter()
        header, predictions = self._wait(pending.message, self._step_limit(), check, "did not answer a step")
        self._pending = None
        waited = time.perf_counter() - started
        number, status, microseconds = header.tolist()
        if number != pending.number:
            raise self._lost(f"it answered step {number} instead of {pending.number}")
        if status != 0:
            raise self._lost(self._failure(number))
        self._step_times.append(microseconds / 1e6)
        by_branch = {
            # cloned: the buffer is written again in the next step
            branch: predictions[i].to(pending.device, copy=True)
            for i, branch in enumerate(pending.branches)
        }
        return Answer(by_branch, microseconds / 1e6, waited, pending.bytes_sent, pending.bytes_received)

    def _step_limit(self) -> float:
        if not self._step_times:
            return FIRST_STEP_LIMIT_S
        return max(10.0, 20.0 * statistics.median(self._step_times))

    def _failure(self, number: int) -> str:
        # the reason comes by the pipe, sent before the message that we have
        deadline = time.perf_counter() + 1.0
        while number not in self._failures and time.perf_counter() < deadline:
            time.sleep(0.01)
        return self._failures.pop(number, "its forward failed")

    # -- the two readers

    def _read_frames(self) -> None:
        try:
            while frame := self.process.pipe.receive():
                self._take(frame)
        except (OSError, ValueError) as error:
            self.broken = self.broken or f"it sent something unreadable ({error})"
        self.broken = self.broken or self.process.last_words(1.0) or "its pipe is closed"
        for waiting in [self._ready, *self._replies.values()]:
            if not waiting.done():
                waiting.set_exception(WorkerLost(self._sentence(self.broken)))

    def _take(self, frame: dict) -> None:
        match frame:
            case {"op": "store", "key": str(key), "value": str(value)}:
                self._store.put(key, bytes.fromhex(value))
            case {"op": "ready", **info}:
                self._ready.set_result(info)
            case {"op": "failed", "number": int(number), "text": str(text)}:
                self._failures[number] = text
            case {"op": "reply", "id": int(number), **info} if number in self._replies:
                waiting = self._replies.pop(number)
                if "error" in info:
                    waiting.set_exception(WorkerLost(self._sentence(str(info["error"]))))
                else:
                    waiting.set_result(info)
            case _:
                raise ValueError(f"an unknown frame: {str(frame)[:80]}")

    def _receive_messages(self) -> None:
        while item := self._incoming.get():
            expected, limit, message = item
            try:
                # longer than who waits for it, whose words on a late answer are the better ones
                message.set_result(expected.wait(limit + 5.0))
            except ChannelBroken as error:
                message.set_exception(error)

    # -- plumbing

    def _request(self, op: str, parcel: Parcel | None = None, **fields: object) -> Future:
        number = next(self._numbers)
        reply = self._replies[number] = Future()
        if parcel and parcel.tensors:
            self._let_finish()
        self._last_reply = reply
        frame = {"op": op, "id": number, **fields}
        if parcel:
            frame |= {"value": parcel.value, "tensors": parcel.describe(self.own), "forget": parcel.forget}
        self._send_frame(frame)
        try:
            for _, tensor in parcel.tensors if parcel else ():
                self.channel.send_whole(tensor)
        except ChannelBroken as error:
            raise self._lost(f"its connection broke ({error})") from error
        return reply

    def _let_finish(self) -> None:
        """Wait for the last request that nobody waited for: while it runs, the worker takes no tensors."""
        deadline = time.perf_counter() + LOAD_LIMIT_S
        while not (self._last_reply is None or self._last_reply.done()):
            if self.broken or time.perf_counter() > deadline:
                raise self._lost("it did not finish what it was asked before")
            wait_for([self._last_reply], POLL_S)

    def _send_frame(self, frame: dict) -> None:
        if self.broken:
            raise WorkerLost(self._sentence(self.broken))
        try:
            self.process.pipe.send(frame)
        except (OSError, ValueError) as error:
            raise self._lost(f"its pipe is closed ({error})") from error

    def _wait(self, waiting: Future, limit_s: float, check: Callable[[], None], failed: str):
        deadline = time.perf_counter() + limit_s
        while True:
            try:
                return waiting.result(POLL_S)
            except NotYet:
                if waiting.done():
                    raise
            except ChannelBroken as error:
                raise self._lost(f"it {failed}: its connection broke ({error})") from error
            check()
            if self.broken and not waiting.done():
                raise self._lost(self.broken)
            if time.perf_counter() > deadline:
                raise self._lost(f"it {failed} within {limit_s:.0f} s")

    def _lost(self, text: str) -> WorkerLost:
        """Give this worker up: after a lost message nothing on its channel can be trusted."""
        # a broken connection is how an end shows first; the end itself is the better reason
        self.broken = self.broken or self.process.last_words(0.3) or text
        return WorkerLost(self._sentence(self.broken))

    def _sentence(self, text: str) -> str:
        return f"the worker on {self.place.label} is out: {text}"
