"""One worker's steps, in two halves: started, and their answers collected later.

Between the two the worker computes while this process does its own share. Bytes and times are
counted where they arise.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

import torch

from .. import lines
from ..call import Parts, Piece, Rows
from ..network.split import Cut, State
from ..share import Unit
from .channel import Channel, Expected
from .messages import DOUBTED, FAILED, GROUP_LOST, HEAD, NOT_NUMBERS, RIGHT, inner_frame, step_frame
from .requests import LOAD_LIMIT_S, Requests
from .room import Room
from .watch import GroupLost, Watch, WorkerLost
from .wire import read_description

FIRST_STEP_LIMIT_S = 300.0  # at the least
OWN_TIMES = 5.0  # a first step may take so many times as long as this process's own part
SPARE = 4096  # bytes for what a message has beside the tensors that count


@dataclass(frozen=True)
class Answer:
    """What a worker computed in one step, and what it took.

    `parts` are predictions of a branch's units, or of single ones. `error` is that
    of the worker's expected inner results, as a share of them.
    """

    parts: Parts
    compute_s: float
    wait_s: float
    bytes_sent: int
    bytes_received: int
    error: float | None = None


@dataclass(frozen=True)
class _Pending:
    """A message on its way here: an answer to a step (`of` then has the units of each part), or an inner result.

    `x` is what was sent, `since` when, `rows` which batch items of the call's; `given` is for Requests.saw.
    """

    number: int
    of: list[list[Unit]]
    x: torch.Tensor
    bytes_sent: int
    expected: Expected
    since: float
    given: int
    rows: tuple[int, int] | None = None


@dataclass
class _Owed:
    """Inner results that were asked for: first the reply comes, which tells their shapes, then the message."""

    reply: Future
    states: list | None = None
    expected: Expected | None = None


class Steps:
    """What one worker was given to compute and has not answered. `own` is this process's torch device."""

    def __init__(self, channel: Channel, requests: Requests, watch: Watch, own: torch.device, room: Room):
        self.channel, self.requests, self.watch, self.own, self.room = channel, requests, watch, own, room
        self._numbers = itertools.count(1)
        self._pending: deque[_Pending] = deque()
        self._owed: deque[_Owed] = deque()
        self._copying: deque[Expected] = deque()  # messages that this process's device still copies
        self._times: deque[float] = deque(maxlen=50)
        self._shape: torch.Size | None = None
        self.answers = 0  # right ones so far
        self.own_s = 0.0  # what this process takes for its part of such a step, where that is known
        self.doubt: str | None = None  # why the worker's next answers may not be right, in words for users
        self._handed = 0
        self._unwanted = 0  # of the oldest answers that are out

    def submit(
        self, x: torch.Tensor, sigma: torch.Tensor, units: Sequence[Unit], rows: Rows | None = None, **how: object
    ) -> None:
        """Start a step: the worker predicts `units` at (x, sigma). Raises WorkerLost.

        x [batch, channels, ...]; sigma [batch]. The answer has x's shape and dtype for each branch,
        or for each unit where `how` asks for another kind of step than the plain one. With `rows`
        the worker gets those batch items alone, and the answer's predictions have no others.
        """
        if self._shape != x.shape:
            self._shape = x.shape
            self._times.clear()
        if rows:
            x, sigma = x[rows[0] : rows[1]], sigma[rows[0] : rows[1]]
        number = next(self._numbers)
        of = [[unit] for unit in units] if how else _by_branch(units)
        of = [] if how.get("rank") else of  # not the lead of those that divide a forward by tokens
        self.room.see_to(x.nbytes * max(len(of), 1) + SPARE)
        given = self.requests.send(step_frame(number, x, sigma, units, how, rows))
        sent = self._send([x, sigma])
        self._expect(number, of, [HEAD, *[(tuple(x.shape), x.dtype)] * len(of)], x, sent, given, rows and rows[:2])
        self.watch.look()

    def collect(self, check: Callable[[], None] = lambda: None) -> Answer:
        """Finish the oldest step that `submit` started; calls `check` while it waits.

        Raises WorkerLost; what `check` raises goes through, and the answer is left for `drain`.
        """
        self._skip(check)
        self._see_own_part()
        pending, predictions, answer = self._take(check)
        self._times.append(answer.compute_s)
        return replace(answer, parts=[Piece(*found, pending.rows) for found in zip(pending.of, predictions)])

    @property
    def pending(self) -> int:
        """Steps that were submitted and not collected."""
        return len(self._pending)

    def answered(self) -> bool:
        """Whether the oldest step's answer is here, or the worker is lost. Never waits, never raises."""
        if self.here():
            return True
        if self.pending > self._unwanted and not self.watch.broken:
            pending = self._pending[self._unwanted]
            with contextlib.suppress(WorkerLost):
                self.watch.look()
                if time.perf_counter() - pending.since > self.limit():
                    self.watch.broke(lines.TOO_LATE(what=lines.DID_NOT_ANSWER(), seconds=self.limit()))
        return not self.watch.alive()

    def here(self, limit_s: float = 0.0) -> bool:
        """Whether the oldest step's answer is here within so many seconds, or the connection broke. Never raises."""
        with contextlib.suppress(WorkerLost):
            while self._unwanted and self._pending[0].expected.done():
                self._skip_one(lambda: None)
        if self.watch.broken or len(self._pending) <= self._unwanted:
            return False
        return self._pending[0].expected.done(limit_s) and not self._unwanted

    def disown(self) -> None:
        """Nobody wants the answers that are out. They are passed over when they come."""
        self._unwanted = len(self._pending)

    def _skip(self, check: Callable[[], None]) -> None:
        while self._unwanted:
            self._skip_one(check)

    def _skip_one(self, check: Callable[[], None]) -> None:
        with contextlib.suppress(GroupLost):
            self._take(check)
        self._unwanted -= 1

    def drain(self, check: Callable[[], None] = lambda: None) -> None:
        """Wait for the answers that an interrupted run left behind. Raises WorkerLost."""
        self.disown()
        self._skip(check)
        while self._owed:
            self._settle(self._owed[0], check)

    def forget_times(self) -> None:
        """Steps take another time from here on, and the first may take long."""
        self._times.clear()
        self.own_s, self.doubt = 0.0, None

    # -- inner parts

    def history(self, unit: Unit, count: int, check: Callable[[], None]) -> list[tuple[float, State]]:
        """The last `count` inner results of `unit` in the worker, with the model's times; all before is collected.

        Raises WorkerLost; what `check` raises goes through, and the rest is left for `drain`.
        """
        reply = self.requests.ask("history", unit=[unit.branch, unit.index], count=count)
        self._owed.append(_Owed(reply))
        return self._settle(self._owed[-1], check)

    def _settle(self, owed: _Owed, check: Callable[[], None]) -> list[tuple[float, State]]:
        told = self.watch.wait(owed.reply, LOAD_LIMIT_S, check, lines.DID_NOT_TELL_INNER())
        if owed.expected is None:
            try:
                owed.states = [(float(at), list(map(read_description, state))) for at, state in told["values"]]
            except (KeyError, TypeError, ValueError) as error:
                raise self.watch.lost(lines.INNER_UNREADABLE(error=error)) from error
            with self.watch.connection():
                owed.expected = self.channel.expect([part for _, state in owed.states for part in state])
        self.watch.wait(owed.expected, self.limit(), check, lines.DID_NOT_SEND_INNER())
        tensors = iter([tensor.to(self.own, copy=True) for tensor in owed.expected.wait(0)])
        self._release_copied()  # in the order in which they came; this copy waited for those before it
        owed.expected.release()
        self._owed.remove(owed)
        return [(at, tuple(next(tensors) for _ in state)) for at, state in owed.states]

    def hand_on(
        self,
        unit: Unit,
        x: torch.Tensor,
        sigma: torch.Tensor,
        h: State,
        z: State,
        cut: Cut,
        route: Sequence[str],
    ) -> tuple[int, int]:
        """Start the inner part of `unit` on this worker with the state `h`; `route` names the workers after it.

        `z` shows the shapes of the result.

        Returns the number under which the last worker of the route answers, and the bytes sent.
        Raises WorkerLost.
        """
        number = next(self._numbers)
        self.room.see_to(sum(tensor.nbytes for tensor in (x, *h)) + SPARE)
        self._handed = self.requests.send(inner_frame(number, unit, x, sigma, h, z, cut.segments, list(route), ""))
        return number, self._send((x, *h))

    def expect_inner(self, number: int, z: State, sent: int) -> None:
        """Get ready for the result that `hand_on` started, of the shapes of `z`. Raises WorkerLost."""
        self.room.see_to(sum(tensor.nbytes for tensor in z) + SPARE)
        parts = [HEAD, *((tuple(tensor.shape), tensor.dtype) for tensor in z)]
        self._expect(number, [], parts, z[0], sent, self._handed)
        self.watch.look()

    def collect_inner(self, check: Callable[[], None] = lambda: None) -> Answer:
        """The oldest inner result that is still out; its tensors are the answer's parts. Raises WorkerLost."""
        self._see_own_part()
        _, z, answer = self._take(check)
        return replace(answer, parts=[Piece([], tensor) for tensor in z])

    # -- messages

    def _send(self, tensors: Sequence[torch.Tensor]) -> int:
        with self.watch.connection():
            sent = self.channel.send(tensors, self.limit(), self.watch.look)
        self._release_copied()  # sending waited for the device
        return sent

    def _release_copied(self) -> None:
        while self._copying:
            self._copying.popleft().release()

    def _expect(
        self,
        number: int,
        of: list,
        parts: Sequence,
        x: torch.Tensor,
        sent: int,
        given: int,
        rows: tuple[int, int] | None = None,
    ) -> None:
        with self.watch.connection():
            expected = self.channel.expect(parts)
        self._pending.append(_Pending(number, of, x, sent, expected, time.perf_counter(), given, rows))

    def _take(self, check: Callable[[], None]) -> tuple[_Pending, list[torch.Tensor], Answer]:
        """The oldest message: what it answers, its tensors copied out of the buffer, and an answer without them."""
        started = time.perf_counter()
        pending = self._pending[0]
        self.watch.wait(pending.expected, self.limit(), check, lines.DID_NOT_ANSWER())
        head, *tensors = pending.expected.wait(0)
        self._pending.popleft()
        self.requests.saw(pending.given)
        number, status, microseconds, millionths = numbers = head.tolist()
        copied = self._copied(tensors, pending)
        now = time.perf_counter()
        if number != pending.number:
            raise self.watch.lost(lines.WRONG_STEP(given=number, asked=pending.number))
        if status == GROUP_LOST:
            raise GroupLost(lines.GROUP_OUT(device=self.watch.label, reason=self.requests.failure(number)))
        if status == FAILED:
            raise self.watch.lost(self.requests.failure(number))
        if status == NOT_NUMBERS and pending.x.isfinite().all():
            raise self.watch.lost(lines.NOT_NUMBERS())
        if status == DOUBTED:
            self.doubt = self.requests.failure(number)
        if status not in (RIGHT, NOT_NUMBERS, DOUBTED) or not 0 <= microseconds <= 1e6 * (1.0 + now - pending.since):
            raise self.watch.lost(lines.WRONG_HEAD(numbers=numbers))
        error = None if millionths < 0 else millionths / 1e6
        self.answers += 1
        answer = Answer([], microseconds / 1e6, now - started, pending.bytes_sent, pending.expected.size, error)
        return pending, copied, answer

    def _see_own_part(self) -> None:
        # what the worker was given was sent before this process began its own part
        self.own_s = max(self.own_s, time.perf_counter() - self._pending[0].since)

    def _copied(self, tensors: list[torch.Tensor], pending: _Pending) -> list[torch.Tensor]:
        """Out of the message's memory. A GPU that copies by itself does so while this process goes on."""
        by_itself = self.channel.pinned
        copied = [tensor.to(pending.x.device, copy=True, non_blocking=by_itself) for tensor in tensors]
        if by_itself:
            self._copying.append(pending.expected)
        else:
            pending.expected.release()
        return copied

    def limit(self) -> float:
        """The seconds within which a step is to be answered."""
        if not self._times:
            return max(FIRST_STEP_LIMIT_S, OWN_TIMES * self.own_s)
        return max(10.0, 20.0 * statistics.median(self._times))


def _by_branch(units: Sequence[Unit]) -> list[list[Unit]]:
    return [[unit for unit in units if unit.branch == branch] for branch in sorted({unit.branch for unit in units})]
