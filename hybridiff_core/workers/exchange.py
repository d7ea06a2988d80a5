"""This process's end of one worker: requests, and steps in two halves, submit and collect.

Between submit and collect the worker computes while this process does its own share. Bytes and
times are counted where they arise.
"""

from __future__ import annotations

import contextlib
import itertools
import secrets
import socket
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

from ..network.split import Cut, State
from ..share import Unit
from .channel import Channel, ChannelBroken, Expected, connect
from .devices import Place
from .launch_local import WorkerProcess
from .ledger import Ledger, Parcel
from .messages import FAILED, GROUP_LOST, HEAD, RIGHT, inner_frame, step_frame
from .sockets import Line, Stranger, pair
from .wire import Kinds, read_description

START_LIMIT_S = 180.0
LOAD_LIMIT_S = 900.0
FIRST_STEP_LIMIT_S = 300.0
LOOK_S = 1.0  # how often a worker that is waited for is asked whether it still moves
SLOW_S, STUCK_S = 1.0, 6.0  # no answer for the first, then nothing done for the second: it is given up
POLL_S = 0.05
CONDS_FIRST_NUMBER = 1 << 40
PASSED_ON = {"inner"}  # frames that workers may send each other through this process
FAILURES_LIMIT = 100


_launched = itertools.count()


class WorkerLost(Exception):
    """The worker cannot finish what it was given: dead, stuck, or failed. The text says why."""


class GroupLost(WorkerLost):
    """A lead worker lost the inner devices of its group; it can still compute whole steps."""


@dataclass(frozen=True)
class Answer:
    """What a worker computed in one step, and what it took.

    `parts` are predictions with the units they are of: a branch's, or single ones. `error` is that
    of the worker's expected inner results, as a share of them.
    """

    parts: list[tuple[list[Unit], torch.Tensor]]
    compute_s: float
    wait_s: float
    bytes_sent: int
    bytes_received: int
    error: float | None = None


@dataclass(frozen=True)
class Loading:
    """What giving a worker its model took: bytes of tensors sent, whether it read the model anew, seconds."""

    sent_bytes: int = 0
    read_anew: bool = False
    seconds: float = 0.0


@dataclass(frozen=True)
class _Pending:
    """A message on its way here: an answer to a step (`of` then has the units of each part), or an inner result.

    `x` is what was sent, `since` when.
    """

    number: int
    of: list[list[Unit]]
    x: torch.Tensor
    bytes_sent: int
    expected: Expected
    since: float


class Exchange:
    """One worker, connected. Steps and requests come from one thread at a time.

    `own` is this process's torch device, `kinds` says how host objects cross.
    """

    def __init__(self, process: WorkerProcess, place: Place, own: torch.device, kinds: Kinds | None = None):
        self.place, self.own, self.kinds = place, own, kinds
        self.name = f"{place.key}.{next(_launched)}"  # a new process at a place is another one to its peers
        self.process = process
        self.channel: Channel | None = None
        self.info: dict = {}
        self.loading = Loading()
        self.broken: str | None = None
        self.lost_at: float | None = None
        self.spent = False  # alive, but not to be trusted with another run: it failed to load a model
        self._writer = Line(f"hybridiff-write-{place.key}")  # a stuck worker's pipe is full at some time
        self._pinged_at: float | None = None
        self._looked_at = self._moved_at = 0.0
        self._numbers = itertools.count(1)
        self._replies: dict[int, Future] = {}
        self._ready: Future = Future()
        self._failures: dict[int, str] = {}
        self._pending: deque[_Pending] = deque()
        self._last_reply: Future | None = None
        self._recipe = Ledger(by_content=False)
        self._conds = Ledger(by_content=True, first_number=CONDS_FIRST_NUMBER)
        self._loaded: object = None
        self._peers: dict[str, Exchange] = {}
        self._step_times: deque[float] = deque(maxlen=50)
        self._step_shape: torch.Size | None = None
        threading.Thread(target=self._read_frames, name=f"hybridiff-frames-{place.key}", daemon=True).start()

    # -- life

    def open(self, start: dict, check: Callable[[], None] = lambda: None) -> None:
        """Tell the worker what it is to be, wait until it is ready, and connect the channel.

        Raises WorkerLost.
        """
        hello = {"op": "start", "device": self.place.device, "name": self.name, **self.process.hello}
        self._send_frame({**hello, **start})
        self.info = self._wait(self._ready, START_LIMIT_S, check, "did not start")
        token = secrets.token_bytes(32)
        try:
            here, there = pair()
            with there:
                reply = self._request("connect", token=token.hex(), **self._hand(there))
                self.channel = connect(here, 0, self.own, token)
                self._wait(reply, LOAD_LIMIT_S, check, "did not connect")
        except (ChannelBroken, Stranger, OSError) as error:
            raise self._lost(f"its connection broke ({error})") from error

    def alive(self) -> bool:
        return self.broken is None and self.process.alive()

    def close(self) -> None:
        lost, self.broken = self.broken, self.broken or "it was closed"
        self.process.stop(grace_s=0.0 if lost else 2.0)
        self._writer.close()
        if self.channel:
            self.channel.close()
        for other in list(self._peers.values()):
            other._peers.pop(self.name, None)
            with contextlib.suppress(WorkerLost):
                other._send_frame({"op": "unlink", "peer": self.name})
        self._peers.clear()

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
        try:
            info = self._wait(reply, LOAD_LIMIT_S, check, "did not load the model")
        except WorkerLost:
            self.spent, self.lost_at = True, self.lost_at or time.perf_counter()
            raise
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

    def measured(self, check: Callable[[], None] = lambda: None) -> dict:
        """The block times of the last timed step: {"times": seconds of each block, "rest": the other seconds}."""
        return self._wait(self._request("measured"), LOAD_LIMIT_S, check, "did not tell its times")

    def set_cut(
        self,
        cut: Cut,
        delay: int = 1,
        route: Sequence[tuple[Exchange, tuple[int, int]]] = (),
        extrapolate: bool = True,
    ) -> None:
        """Say where the network is cut, for steps that take z; `route` makes this worker a group's lead."""
        hops = [[exchange.name, *segment] for exchange, segment in route]
        self._request("cut", bounds=list(cut.bounds), delay=delay, route=hops, extrapolate=extrapolate)

    def history(self, unit: Unit, count: int, check: Callable[[], None] = lambda: None) -> list[tuple[float, State]]:
        """The last `count` inner results of `unit` that the worker took in exact steps, with the model's times."""
        reply = self._request("history", unit=[unit.branch, unit.index], count=count)
        told = self._wait(reply, LOAD_LIMIT_S, check, "did not tell its inner results")
        try:
            values = [(float(at), [read_description(tensor) for tensor in state]) for at, state in told["values"]]
        except (KeyError, TypeError, ValueError) as error:
            raise self._lost(f"it told its inner results in no known form ({error})") from error
        try:
            expected = self.channel.expect([part for _, state in values for part in state])
        except ChannelBroken as error:
            raise self._lost(f"its connection broke ({error})") from error
        self._wait(expected.coming, self._step_limit(), check, "did not send its inner results")
        tensors = iter([tensor.to(self.own, copy=True) for tensor in expected.wait(0)])
        expected.release()
        return [(at, tuple(next(tensors) for _ in state)) for at, state in values]

    def link(self, other: Exchange, check: Callable[[], None] = lambda: None) -> None:
        """Connect this worker with another one, so that tensors go between them directly. Raises WorkerLost."""
        if other.name in self._peers:
            return
        token = secrets.token_bytes(32).hex()
        self._peers[other.name], other._peers[self.name] = other, self
        try:
            ends = pair()
        except (Stranger, OSError) as error:
            raise self._lost(f"it has no connection to another worker ({error})") from error
        with ends[0], ends[1]:
            replies = [
                here._request("link", peer=there.name, rank=rank, token=token, **here._hand(ends[rank]))
                for rank, (here, there) in enumerate(((self, other), (other, self)))
            ]
            for here, reply in zip((self, other), replies):
                here._wait(reply, LOAD_LIMIT_S, check, "did not connect to another worker")

    def _hand(self, end: socket.socket) -> dict:
        try:
            return self.process.hand(end, int(self.info["pid"]))
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise self._lost(f"it cannot be given a connection ({error})") from error

    def drain(self, check: Callable[[], None] = lambda: None) -> None:
        """Wait for the answers that an interrupted run left behind. Raises WorkerLost."""
        while self._pending:
            self._take_answer(check)

    # -- steps

    def submit(self, x: torch.Tensor, sigma: torch.Tensor, units: Sequence[Unit], **how: object) -> None:
        """Start a step: the worker predicts `units` at (x, sigma). Raises WorkerLost.

        x [batch, channels, ...]; sigma [batch]. The answer has x's shape and dtype for each branch,
        or for each unit where `how` asks for another kind of step than the plain one.
        """
        if self._step_shape != x.shape:
            self._step_shape = x.shape
            self._step_times.clear()
        number = next(self._numbers)
        of = [[unit] for unit in units] if how else _by_branch(units)
        self._send_frame(step_frame(number, x, sigma, units, how))
        sent = self._send([x, sigma])
        self._expect(number, of, [HEAD, ((len(of), *x.shape), x.dtype)], x, sent)
        self.look()

    def collect(self, check: Callable[[], None] = lambda: None) -> Answer:
        """Finish the oldest step that `submit` started; calls `check` while it waits.

        Raises WorkerLost; what `check` raises goes through, and the answer is left for `drain`.
        """
        started = time.perf_counter()
        pending, (_, _, microseconds, millionths), (predictions,) = self._take_answer(check)
        waited = time.perf_counter() - started
        if not predictions.isfinite().all() and pending.x.isfinite().all():
            raise self._lost("its result has values that are not numbers")
        self._step_times.append(microseconds / 1e6)
        return Answer(
            list(zip(pending.of, predictions)),
            microseconds / 1e6,
            waited,
            pending.bytes_sent,
            pending.expected.size,
            None if millionths < 0 else millionths / 1e6,
        )

    # -- inner parts

    def hand_on(
        self,
        unit: Unit,
        x: torch.Tensor,
        sigma: torch.Tensor,
        h: State,
        z: State,
        cut: Cut,
        route: Sequence[Exchange],
    ) -> tuple[int, int]:
        """Start the inner part of `unit` on this worker with the state `h`; `route` are the workers after it.

        `z` shows the shapes of the result.

        Returns the number under which the last worker of the route answers, and the bytes sent.
        x is not sent: of it only the shape counts here. Raises WorkerLost.
        """
        number = next(self._numbers)
        peers = [exchange.name for exchange in route]
        self._send_frame(inner_frame(number, unit, x, sigma, h, z, cut.segments, peers, ""))
        return number, self._send(h)

    def expect_inner(self, number: int, z: State, sent: int) -> None:
        """Get ready for the result that `hand_on` started, of the shapes of `z`. Raises WorkerLost."""
        self._expect(number, [], [HEAD, *((tuple(tensor.shape), tensor.dtype) for tensor in z)], z[0], sent)
        self.look()

    def collect_inner(self, check: Callable[[], None] = lambda: None) -> Answer:
        """The oldest inner result that is still out; its tensors are the answer's parts. Raises WorkerLost."""
        started = time.perf_counter()
        pending, (_, _, microseconds, _), z = self._take_answer(check)
        waited = time.perf_counter() - started
        parts = [([], tensor) for tensor in z]
        return Answer(parts, microseconds / 1e6, waited, pending.bytes_sent, pending.expected.size)

    def _send(self, tensors: Sequence[torch.Tensor]) -> int:
        try:
            return self.channel.send(tensors)
        except ChannelBroken as error:
            raise self._lost(f"its connection broke ({error})") from error

    def _expect(self, number: int, of: list, parts: Sequence, x: torch.Tensor, sent: int) -> None:
        try:
            expected = self.channel.expect(parts)
        except ChannelBroken as error:
            raise self._lost(f"its connection broke ({error})") from error
        self._pending.append(_Pending(number, of, x, sent, expected, time.perf_counter()))

    def _take_answer(self, check: Callable[[], None]) -> tuple[_Pending, list[int], list[torch.Tensor]]:
        """The oldest message's pending entry, its header, and its tensors, copied out of the buffer."""
        pending = self._pending[0]
        self._wait(pending.expected.coming, self._step_limit(), check, "did not answer a step")
        header, *tensors = pending.expected.wait(0)
        self._pending.popleft()
        numbers = header.tolist()
        copied = [tensor.to(pending.x.device, copy=True) for tensor in tensors]
        pending.expected.release()
        if numbers[0] != pending.number:
            raise self._lost(f"it answered step {numbers[0]} instead of {pending.number}")
        if numbers[1] == GROUP_LOST:
            raise GroupLost(f"the group of {self.place.label} is out: {self._failure(pending.number)}")
        if numbers[1] == FAILED:
            raise self._lost(self._failure(pending.number))
        if numbers[1] != RIGHT or not 0 <= numbers[2] <= 1e6 * (1.0 + time.perf_counter() - pending.since):
            raise self._lost(f"its answer's head cannot be right ({numbers})")
        return pending, numbers, copied

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

    # -- what comes by the pipe

    def _read_frames(self) -> None:
        try:
            while frame := self.process.pipe.receive():
                self._take(frame)
        except Exception as error:  # noqa: BLE001 - whatever a worker sends, this process lives on
            self._break(f"it sent something unreadable ({error})")
        if not self.broken:
            self._break(self.process.last_words(1.0) or "its pipe is closed")
        for waiting in [self._ready, *list(self._replies.values())]:
            if not waiting.done():
                waiting.set_exception(WorkerLost(self._sentence(self.broken)))

    def _take(self, frame: dict) -> None:
        match frame:
            case {"op": "pong"}:
                self._pinged_at = None
            case {"op": "ready", **info}:
                self._ready.set_result(info)
            case {"op": "failed", "number": int(number), "text": str(text), **more}:
                if more.get("inner"):  # no message will come; whose fault it is, is said
                    if more["inner"] == self.name:
                        self._break(text)
                    elif peer := self._peers.get(str(more["inner"])):
                        peer._break(peer.process.last_words(0.3) or text)
                    return
                if len(self._failures) >= FAILURES_LIMIT:
                    raise ValueError(f"{FAILURES_LIMIT} failures that nobody asked about")
                self._failures[number] = text
            case {"op": "pass", "peer": str(peer), "frame": {"op": str(op)} as passed} if (
                peer in self._peers and op in PASSED_ON
            ):
                with contextlib.suppress(WorkerLost):  # its own reader says so
                    self._peers[peer]._send_frame(passed)
            case {"op": "reply", "id": int(number), **info} if number in self._replies:
                waiting = self._replies.pop(number)
                if "error" in info:
                    waiting.set_exception(WorkerLost(self._sentence(str(info["error"]))))
                else:
                    waiting.set_result(info)
            case _:
                raise ValueError(f"an unknown frame: {str(frame)[:80]}")

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
        self._writer.do(self._write, self.process.pipe.pack(frame))

    def _write(self, frame: bytes) -> None:
        try:
            self.process.pipe.write(frame)
        except (OSError, ValueError) as error:
            self._break(self.process.last_words(0.3) or f"its pipe is closed ({error})")

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
            self.look()
            if time.perf_counter() > deadline:
                raise self._lost(f"it {failed} within {limit_s:.0f} s")

    def look(self) -> None:
        """Every second: is the worker still moving? Raises WorkerLost.

        Its reading thread answers at once, whatever its main thread does; while it is being started,
        that it uses its processor or disk has to do.
        """
        now = time.perf_counter()
        if now - self._looked_at < LOOK_S:
            return
        self._looked_at = now
        pinged_at = self._pinged_at
        if pinged_at is None:
            self._pinged_at = self._moved_at = now
            self._send_frame({"op": "ping"})
        elif now - pinged_at > SLOW_S:
            if self.process.has_moved():
                self._moved_at = now
            if now - self._moved_at > STUCK_S and self._pinged_at is not None:
                raise self._lost(f"it has not moved for {STUCK_S:.0f} s")

    def _break(self, text: str) -> None:
        if self.broken is None:
            self.broken, self.lost_at = text, time.perf_counter()

    def _lost(self, text: str) -> WorkerLost:
        """Give this worker up: after a lost message nothing on its channel can be trusted."""
        # a broken connection is how an end shows first; the end itself is the better reason
        if not self.broken:
            self._break(self.process.last_words(0.3) or text)
        return WorkerLost(self._sentence(self.broken))

    def _sentence(self, text: str) -> str:
        return f"the worker on {self.place.label} is out: {text}"


class Chain:
    """The inner devices of a group that this process leads: a Link (lead.py) over their exchanges.

    With several inner devices the state goes from one to the next without passing through here.
    """

    def __init__(self, inner: Sequence[Exchange], cut: Cut, check: Callable[[], None] = lambda: None):
        self.inner, self.cut, self._check = list(inner), cut, check
        self.answers: list[Answer] = []
        self.sent = 0
        self.x = self.sigma = None

    def at(self, x: torch.Tensor, sigma: torch.Tensor) -> None:
        """What the next states to send belong to."""
        self.x, self.sigma = x, sigma

    def send(self, unit: Unit, h: State, z: State) -> None:
        number, sent = self.inner[0].hand_on(unit, self.x, self.sigma, h, z, self.cut, self.inner[1:])
        self.sent += sent
        self.inner[-1].expect_inner(number, z, sent)

    def receive(self) -> State:
        answer = self.inner[-1].collect_inner(self._still_there)
        self.answers.append(answer)
        return tuple(tensor for _, tensor in answer.parts)

    def take_answers(self) -> list[Answer]:
        """What came since the last time this was asked."""
        answers, self.answers = self.answers, []
        return answers

    def take_sent(self) -> int:
        """Bytes sent since the last time this was asked."""
        sent, self.sent = self.sent, 0
        return sent

    def _still_there(self) -> None:
        self._check()
        for exchange in self.inner:
            if exchange.broken:
                raise exchange._lost(exchange.broken)


def _by_branch(units: Sequence[Unit]) -> list[list[Unit]]:
    return [[unit for unit in units if unit.branch == branch] for branch in sorted({unit.branch for unit in units})]
