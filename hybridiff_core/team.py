"""The devices of one run: this process and its workers. Who computes what of an exact call, and who is lost."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence

from . import lines
from .call import Call, Parts, Piece
from .handshake import Handshake
from .judging import Judging, label
from .paces import Paces, Pacing
from .report import RunReport, StepRecord
from .share import Unit, share
from .waiting import wait_for
from .workers.exchange import Exchange
from .workers.steps import Answer
from .workers.watch import GroupLost, WorkerLost

Job = tuple[Exchange, list[Unit], "tuple[int, int] | None"]  # what of a call a worker is given, of which batch items


class Team:
    """`exchanges` are the workers beside this process; `check` may raise to interrupt.

    A worker that fails, or computes something else than this process (`handshake`), is left out for
    the rest of the run and its part is computed here, so the picture is finished and right whatever
    happens to it; the report says so. `left` is called with each worker that is asked for nothing more.
    `known` remembers paces from run to run, `model` is the name of the run's model there; without it
    devices count as equal.
    """

    def __init__(
        self,
        exchanges: Sequence[Exchange],
        report: RunReport,
        handshake: Handshake,
        check: Callable[[], None] = lambda: None,
        left: Callable[[Exchange], None] = lambda exchange: None,
        known: Paces | None = None,
        model: object = None,
    ):
        self.exchanges = list(exchanges)
        self.lanes = {exchange: lane for lane, exchange in enumerate(exchanges, 1)}
        self.report, self.handshake, self.check, self.left = report, handshake, check, left
        self.known, self.model = known, model
        self.pacing: Pacing | None = None
        self.judging = Judging(self)
        self.compared = False  # whether a device or a way was, in the call under way: its times say nothing

    @property
    def devices(self) -> list[Exchange | None]:
        """None stands for this process."""
        return [None, *self.exchanges]

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(map(label, self.devices))

    @property
    def paces(self) -> list[float] | None:
        """Seconds of each device for a unit; None where they count as equal."""
        return self.pacing.paces if self.pacing else None

    def join(self, exchange: Exchange) -> None:
        """One more worker, from the next call on."""
        self.exchanges.append(exchange)
        known = (*self.lanes.values(), len(self.report.devices) - 1)  # one of them may be of another team
        self.lanes[exchange] = max(known) + 1
        self.pacing = None

    # -- an exact call

    def at_pace_of(self, name: object) -> None:
        """The calls that follow are of the model, units and latent called `name`."""
        if self.known is not None and (self.pacing is None or self.pacing.name != name):
            self.pacing = Pacing(self.known, name, self.labels)

    def deal(self, units: Sequence[Unit], record: StepRecord) -> list[list[Unit]]:
        """The units of each device in an exact call."""
        shares = share(units, len(self.devices), self.paces)
        if self.paces and shares != share(units, len(self.devices)):
            self.judging.say_slow()
        record.conds = [len(mine) for mine in shares]
        return shares

    def plain(self, call: Call, units: Sequence[Unit], rows: tuple[int, int] | None = None) -> Parts:
        """Compute `units` here, of batch items `rows` or of all."""
        if not units:
            return []
        found = call.here(list(units), rows=call.rows(rows)) if rows else call.here(list(units))
        return [Piece([unit for unit in units if unit.branch == b], d, rows) for b, d in found.items()]

    def exact(
        self,
        call: Call,
        shares: Sequence[list[Unit]],
        record: StepRecord,
        own: Callable[[list[Unit]], Parts] | None = None,
        **how: object,
    ) -> Parts:
        """Compute `shares[0]` here, by `own`, and the others on the workers, as `how` says (Exchange.submit)."""
        own = own or (lambda units: self.plain(call, units))
        given = [(exchange, mine, None) for exchange, mine in zip(self.exchanges, shares[1:]) if mine]
        return self.together(call, given, record, lambda: own(shares[0]), **how)

    def together(
        self, call: Call, given: Sequence[Job], record: StepRecord, own: Callable[[], Parts], **how: object
    ) -> Parts:
        """Do `own` here while workers compute what they are `given`; what a lost one had is computed here."""
        started: list[Job] = []
        fallen: list[Job] = []
        for job in given:
            exchange, units, rows = job
            try:
                exchange.submit(call.x, call.sigma, units, call.rows(rows), **how)
                started.append(job)
            except WorkerLost as error:
                self.drop(exchange, error)
                fallen.append(job)
        self.compared = False
        parts = self.timed(call, record, own)
        for job in started:
            try:
                theirs = self.collected(job[0], record)
            except WorkerLost as error:
                self.drop(job[0], error)
                fallen.append(job)
                continue
            parts += self._compare(job[0], call, theirs, record)
        for _, units, rows in fallen:
            parts += self.plain(call, units, rows)
        return parts

    def timed(self, call: Call, record: StepRecord, work: Callable[[], Parts]) -> Parts:
        """Do this process's part, and take down how long it took."""
        started = time.perf_counter()
        parts = work()
        wait_for(call.x.device)  # kernels run on after their launch; what follows needs their results anyway
        record.took(0, time.perf_counter() - started)
        return parts

    def collected(self, exchange: Exchange, record: StepRecord, check: Callable[[], None] | None = None) -> Parts:
        """A worker's part of the call. Raises WorkerLost."""
        answer = exchange.collect(check or self.check)
        self.take_down(exchange, answer, record)
        record.wait_s += answer.wait_s
        if answer.error is not None:
            record.error = max(answer.error, record.error or 0.0)
        return answer.parts

    def take_down(self, exchange: Exchange, answer: Answer, record: StepRecord) -> None:
        """Note what a worker's answer took."""
        record.helpers += self.lanes[exchange] not in record.lanes
        record.took(self.lanes[exchange], answer.compute_s)
        record.bytes_sent += answer.bytes_sent
        record.bytes_received += answer.bytes_received

    def _compare(self, exchange: Exchange, call: Call, theirs: Parts, record: StepRecord) -> Parts:
        """A worker's part; this process's own in its place where it was to be compared and is something else."""
        if exchange not in self.exchanges or not self.handshake.due(exchange, call, record.step):
            return theirs
        self.compared = True
        own = [self.plain(call, piece.units, piece.rows)[0] for piece in theirs]
        pairs = [(a.prediction, b.prediction, call.rows(b.rows)) for a, b in zip(theirs, own)]
        off = max(self.handshake.off(call, *pair) for pair in pairs)
        if off <= self.handshake.allowed(exchange):
            self.handshake.passed(exchange, call)
            return theirs
        self.handshake.failed(exchange, call, off)
        record.helpers -= 1
        self.remove(exchange)
        once_more = [self.plain(call, piece.units, piece.rows)[0] for piece in theirs]
        itself = max(
            self.handshake.off(call, a.prediction, b.prediction, call.rows(b.rows)) for a, b in zip(once_more, own)
        )
        device = exchange.place.label
        random = itself > self.handshake.allowed(exchange)
        self.report.note(
            lines.RANDOM_FROM_CALL_TO_CALL(device=device) if random else lines.ANOTHER_PICTURE(device=device, off=off)
        )
        return own

    # -- losses

    def drop(self, exchange: Exchange, error: WorkerLost) -> None:
        """Leave a worker out for the rest of the run; somebody else has to compute its part."""
        self.remove(exchange)
        self.report.note(lines.TOOK_OVER(reason=error))

    def remove(self, exchange: Exchange) -> None:
        """Ask a worker for nothing more in this run."""
        if exchange in self.exchanges:
            self.exchanges.remove(exchange)
        self.pacing = None  # it was for the devices there were
        self.left(exchange)

    def lose(self, error: WorkerLost) -> None:
        """A step was lost: what remains of the workers computes whole steps."""
        for exchange in list(self.exchanges):
            if exchange.broken:
                self.drop(exchange, error)
        if isinstance(error, GroupLost):
            self.report.note(lines.REST_IN_WHOLE_STEPS(reason=error))
        self.drain()

    def drain(self) -> None:
        """Receive what is still under way from workers that remain, so that nothing comes in between later."""
        for exchange in list(self.exchanges):
            try:
                exchange.drain(self.check)
            except WorkerLost as error:
                if exchange.broken:
                    self.drop(exchange, error)

    def look_after(self, exchanges: Sequence[Exchange]) -> None:
        """While a lead worker computes: a lost device of its group is stopped, so that the lead hears of it at once."""
        self.check()
        for exchange in exchanges:
            with contextlib.suppress(WorkerLost):
                exchange.look()
            if exchange.broken and exchange.process.alive():
                exchange.process.stop(0.0)
