"""How long each of the network's blocks takes on each device, measured in the first exact calls."""

from __future__ import annotations

from ..call import Call, Parts, Piece
from ..network.lead import measure
from ..report import StepRecord
from ..share import Unit, share
from ..team import Team
from ..waiting import wait_for
from ..workers.exchange import Exchange
from ..workers.watch import WorkerLost

MEASURED_CALLS = 3  # the least time of a block counts, for the first call is slow and others are disturbed


class BlockTimes:
    """The times so far; `shares` are the units that each device had in the last call."""

    def __init__(self, team: Team):
        self.team = team
        self.shares: list[list[Unit]] = []
        self._own: dict = {}
        self._calls = 0

    @property
    def settled(self) -> bool:
        return self._calls >= MEASURED_CALLS

    def exact(self, call: Call, record: StepRecord) -> Parts:
        """Exact, every block timed; a device that has no unit of its own computes one for the times alone."""
        team = self.team
        self.shares = share(call.units, len(team.devices))
        record.conds = [len(mine) for mine in self.shares]
        idle = [exchange for exchange, mine in zip(team.exchanges, self.shares[1:]) if not mine]
        for exchange in list(idle):
            try:
                exchange.submit(call.x, call.sigma, call.units[:1], kind="measure")
            except WorkerLost as error:
                idle.remove(exchange)
                team.drop(exchange, error)
        parts = team.exact(call, self.shares, record, lambda units: self._here(call, units), kind="measure")
        for exchange in idle:
            try:
                team.collected(exchange, record)
            except WorkerLost as error:
                team.drop(exchange, error)
        self._calls += 1
        return parts

    def _here(self, call: Call, units: list[Unit]) -> Parts:
        parts = []
        for unit in units:
            prediction, self._own = measure(call.one, unit, lambda: wait_for(call.x.device), self._own)
            parts.append(Piece([unit], prediction))
        return parts

    def of_devices(self) -> dict[Exchange | None, dict]:
        """Of each device {"times": seconds of each block, "rest": the other seconds}. Raises WorkerLost."""
        return {None: self._own} | {exchange: exchange.measured(self.team.check) for exchange in self.team.exchanges}
