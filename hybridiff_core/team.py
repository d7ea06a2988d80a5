"""The devices of one run: this process and its workers. Who computes what of an exact call, and who is lost."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence

from . import lines
from .call import Call, Parts
from .report import RunReport, StepRecord
from .setting import Paces
from .share import Unit, share
from .waiting import wait_for
from .workers.exchange import Exchange
from .workers.watch import GroupLost, WorkerLost

PACED_CALLS = 3  # exact calls that show which device is slower
UNEQUAL, UNEQUAL_S = 1.25, 0.005  # devices whose times for a call differ by less count as equal


class Team:
    """`exchanges` are the workers beside this process; `check` may raise to interrupt.

    A worker that fails is left out for the rest of the run and its part is computed here, so the
    picture is finished whatever happens to it; the report says so. `left` is called with each
    worker that is asked for nothing more.
    """

    def __init__(
        self,
        exchanges: Sequence[Exchange],
        report: RunReport,
        check: Callable[[], None] = lambda: None,
        left: Callable[[Exchange], None] = lambda exchange: None,
    ):
        self.exchanges = list(exchanges)
        self.lanes = {exchange: lane for lane, exchange in enumerate(exchanges, 1)}
        self.report, self.check, self.left = report, check, left
        self.paces: list[float] | None = None  # seconds of each device for a unit; None where they count as equal
        self._paces: list[list[float]] = []

    @property
    def devices(self) -> list[Exchange | None]:
        """None stands for this process."""
        return [None, *self.exchanges]

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(map(label, self.devices))

    # -- an exact call

    def deal(self, units: Sequence[Unit], record: StepRecord) -> list[list[Unit]]:
        """The units of each device in an exact call."""
        shares = share(units, len(self.devices), self.paces)
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
            return [([unit for unit in units if unit.branch == b], d) for b, d in call.here(units).items()]

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
        for exchange, mine in given:
            try:
                parts += self.collected(exchange, record)
            except WorkerLost as error:
                fallen += self.drop(exchange, mine, error)
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

    def learn_paces(self, record: StepRecord, shares: Sequence[list[Unit]], known: Paces, name: object) -> None:
        """After some exact calls: who is slower, where that is beyond noise.

        Decided once and kept in `known`, under `name` and the devices.
        """
        busy = [mine for mine in shares if mine]
        if not len(busy) == len(shares) == len(record.compute_s):
            return
        self._paces.append([s / sum(unit.cost for unit in mine) for s, mine in zip(record.compute_s, busy)])
        if len(self._paces) != PACED_CALLS:
            return
        paces = [min(of_device) for of_device in zip(*self._paces)]
        equal = max(paces) <= UNEQUAL * min(paces) or max(paces) - min(paces) < UNEQUAL_S
        self.paces = known.setdefault((name, self.labels), None if equal else paces)

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
        self.paces = None  # it was for the devices there were
        self._paces = []
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
