"""The devices of one run: this process and its workers. Who computes what of an exact call, and who is lost."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence

from . import lines
from .call import Call, Parts, Piece
from .handshake import Handshake
from .paces import UNEQUAL, Paces, Pacing
from .report import RunReport, StepRecord
from .share import Unit, share
from .waiting import wait_for
from .workers.exchange import Exchange
from .workers.watch import GroupLost, WorkerLost


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
        self._compared = False  # in the call under way

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
        self.lanes[exchange] = max(self.lanes.values(), default=0) + 1
        self.pacing = None

    # -- an exact call

    def at_pace_of(self, name: object) -> None:
        """The calls that follow are of the model, units and latent called `name`."""
        if self.known is not None and (self.pacing is None or self.pacing.name != name):
            self.pacing = Pacing(self.known, name, self.labels, self.known.alone.get(name))

    def deal(self, units: Sequence[Unit], record: StepRecord) -> list[list[Unit]]:
        """The units of each device in an exact call."""
        shares = share(units, len(self.devices), self.paces)
        if self.paces and shares != share(units, len(self.devices)):
            self._say_slow()
        record.conds = [len(mine) for mine in shares]
        return shares

    def exact(
        self,
        call: Call,
        shares: Sequence[list[Unit]],
        record: StepRecord,
        own: Callable[[list[Unit]], Parts] | None = None,
        **how: object,
    ) -> Parts:
        """Compute `shares[0]` here, by `own`, and the others on the workers, as `how` says (Exchange.submit)."""

        def plain(units: list[Unit]) -> Parts:
            if not units:
                return []
            return [Piece([unit for unit in units if unit.branch == b], d) for b, d in call.here(units).items()]

        given: list[tuple[Exchange, list[Unit]]] = []
        fallen: list[Unit] = []
        for exchange, mine in zip(list(self.exchanges), shares[1:]):
            if mine:
                try:
                    exchange.submit(call.x, call.sigma, mine, **how)
                    given.append((exchange, mine))
                except WorkerLost as error:
                    fallen += self.drop(exchange, mine, error)

        parts = self.timed(call, record, lambda: (own or plain)(shares[0]))
        self._compared = False
        for exchange, mine in given:
            try:
                theirs = self.collected(exchange, record)
            except WorkerLost as error:
                fallen += self.drop(exchange, mine, error)
                continue
            parts += self._compare(exchange, call, theirs, record, plain)
        if fallen:
            parts += plain(fallen)
        return parts

    def timed(self, call: Call, record: StepRecord, work: Callable[[], Parts]) -> Parts:
        """Do this process's part, and take down how long it took."""
        started = time.perf_counter()
        parts = work()
        wait_for(call.x.device)  # kernels run on after their launch; what follows needs their results anyway
        record.compute_s.append(time.perf_counter() - started)
        record.lanes.append(0)
        return parts

    def collected(self, exchange: Exchange, record: StepRecord, check: Callable[[], None] | None = None) -> Parts:
        """A worker's part of the call. Raises WorkerLost."""
        answer = exchange.collect(check or self.check)
        record.compute_s.append(answer.compute_s)
        record.lanes.append(self.lanes[exchange])
        record.wait_s += answer.wait_s
        record.bytes_sent += answer.bytes_sent
        record.bytes_received += answer.bytes_received
        record.helpers += 1
        if answer.error is not None:
            record.error = max(answer.error, record.error or 0.0)
        return answer.parts

    def _compare(
        self, exchange: Exchange, call: Call, theirs: Parts, record: StepRecord, plain: Callable[[list[Unit]], Parts]
    ) -> Parts:
        """A worker's part; this process's own in its place where it was to be compared and is something else."""
        if not self.handshake.due(exchange, call, record.step):
            return theirs
        self._compared = True
        own = [plain(piece.units)[0] for piece in theirs]
        off = max(self.handshake.off(call, a.prediction, b.prediction) for a, b in zip(theirs, own))
        if off <= self.handshake.allowed(exchange):
            self.handshake.passed(exchange, call)
            return theirs
        self.handshake.failed(exchange, call, off)
        record.helpers -= 1
        self.remove(exchange)
        self.report.note(lines.ANOTHER_PICTURE(device=exchange.place.label, off=off))
        return own

    # -- paces

    def learn(self, record: StepRecord, shares: Sequence[list[Unit]], wall_s: float) -> None:
        """An exact call's times: who is slower, and whether sharing is worth it."""
        if self.pacing is None:  # or a device was lost in this call
            return
        if len(self.devices) == 1:
            name = self.pacing.name
            self.known.alone[name] = min(wall_s, self.known.alone.get(name, wall_s))
            return
        took = dict(zip(record.lanes, record.compute_s))
        lanes = [0, *(self.lanes[exchange] for exchange in self.exchanges)]
        busy = [lane for lane, mine in zip(lanes, shares) if mine]
        if self._compared or len(lanes) != len(shares) or not took.keys() >= set(busy):
            return
        self.pacing.take(shares, [took.get(lane, 0.0) for lane in lanes], wall_s)
        if self.pacing.loses:
            self._leave_out_slowest(self.pacing.wall_s, self.pacing.alone_s)
        elif self.pacing.settled and self.pacing.alone_s:
            for exchange, mine in zip(self.exchanges, shares[1:]):
                if mine:
                    self.known.helped(self.model, label(exchange))

    def _say_slow(self) -> None:
        """Say which devices are slower, and that prompts are dealt by that."""
        if self.pacing.said:
            return
        self.pacing.said = True
        for device, pace in zip(self.devices, self.paces):
            times = pace / min(self.paces)
            if times >= UNEQUAL:
                name = self.report.devices[0] if device is None else label(device)
                self.report.note(lines.DEVICE_SLOWER(device=name, times=times))

    def _leave_out_slowest(self, shared_s: float, alone_s: float) -> None:
        name, known = self.pacing.name, self.known.seconds  # a device that had no part has no time
        slowest = max(self.exchanges, key=lambda exchange: known.get((name, label(exchange)), 0.0))
        self.known.leave_out(self.model, slowest.place.label, shared_s / alone_s)
        self.remove(slowest)
        times = {"shared": shared_s * 1e3, "alone": alone_s * 1e3}
        self.report.note(lines.SHARING_LOST_TIME(device=slowest.place.label, **times))

    def leave_out_slow(self, exchange: Exchange, times: float) -> None:
        """A worker took `times` as long as this process for the same: it would only be waited for."""
        if self.known is not None:
            self.known.leave_out(self.model, exchange.place.label, times)
        self.report.note(lines.TOO_SLOW(device=exchange.place.label, times=times))

    # -- losses

    def drop(self, exchange: Exchange, units: list[Unit], error: WorkerLost) -> list[Unit]:
        """Leave a worker out for the rest of the run; gives back the units that somebody else has to compute."""
        self.remove(exchange)
        self.report.note(lines.TOOK_OVER(reason=error))
        return units

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
                self.drop(exchange, [], error)
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
                    self.drop(exchange, [], error)

    def look_after(self, exchanges: Sequence[Exchange]) -> None:
        """While a lead worker computes: a lost device of its group is stopped, so that the lead hears of it at once."""
        self.check()
        for exchange in exchanges:
            with contextlib.suppress(WorkerLost):
                exchange.look()
            if exchange.broken and exchange.process.alive():
                exchange.process.stop(0.0)


def label(device: Exchange | None) -> str:
    return "here" if device is None else device.place.label
