"""An exact call on the devices that there are: by conds, by batch items or by tokens, whichever is fastest here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from . import lines
from .call import Call, Parts, Piece
from .checking import Checking
from .dividing import Dividing
from .gain import obstacle_among
from .handshake import Handshake
from .judging import label
from .network.tokens import Form, Look
from .report import StepRecord
from .setting import Setting
from .share import Deal, Link, Parcel, Unit, Way, by_conds, by_rows, by_rows_and_tokens, by_tokens
from .team import Team
from .ways import GAIN, Tried, Ways
from .workers.exchange import Exchange
from .workers.watch import WorkerLost

CHECKED = 2  # the call of a run that this process computes alone, to compare, where sharing gains little
SAID = {
    Way.ROWS: lines.SHARED_BY_ROWS,
    Way.TOKENS: lines.SHARED_BY_TOKENS,
    Way.ROWS_AND_TOKENS: lines.SHARED_BY_ROWS_AND_TOKENS,
}


@dataclass
class Course:
    """A run's calls of one model, units, latent and set of devices; others may come between them.

    `last` is the way of the last one, `calls` how many there were.
    """

    ways: Ways
    last: Way | None = None
    calls: int = 0


class Sharing:
    """A run's exact calls. `hoped` is how many devices there are, those included that are to join.

    What the network showed of its tokens is kept in the setting's `forms`, by the name of model, units and latent:
    a Form, or why its forwards cannot be divided, in words for users.
    """

    def __init__(self, setting: Setting, team: Team, handshake: Handshake):
        self.setting, self.team = setting, team
        self.checking = Checking(setting, team, handshake)
        self.hoped = 1
        self._course = Course(Ways())
        self._courses: dict[tuple, Course] = {}  # by the name and the devices
        self._dividing = Dividing(team, self._broke_off)
        self._own_paces: dict[object, float] = {}  # this process's seconds for a unit in this run, by the name
        self._times: float | None = None  # what dividing by tokens should take, beside now, where it does not gain

    def met(self, devices: int) -> None:
        """So many devices have shown that they compute, this process's among them."""
        self.hoped = max(self.hoped, devices)

    def call_for(self, name: object, tolerance: float = 0.0) -> None:
        """The calls that follow are of the model, units and latent called `name`; `tolerance` as in Checking."""
        self.checking.name, self.checking.tolerance = name, tolerance

    @property
    def name(self) -> object:
        """That of the calls' model, units and latent."""
        return self.checking.name

    @property
    def form(self) -> Form | str | None:
        """What is known of the network's tokens; None for nothing yet."""
        return self.setting.forms.get(self.name)

    @property
    def undivided(self) -> str | None:
        """Why forwards are not divided by tokens, in words for users; None where they may be."""
        if isinstance(self.form, str):
            return self.form
        return None if self._times is None else lines.DIVIDING_WOULD_BE_SLOWER(times=self._times)

    # -- which way

    def deals(self, call: Call, paces: Sequence[float], far: bool = False) -> list[Deal]:
        """All ways to share `call` among devices with these paces, the plainest first.

        `far` says of a last device that is not in the team yet that it is another machine's.
        """
        units, batch = call.units, len(call.x)
        together = bool(len(units) > 1 and self.checking.barred(Way.CONDS))  # its prompts are not computed apart
        found = [by_conds(units, batch, paces[:1] if together else paces)]
        if len(paces) < 2:
            return found
        rows = batch > 1 and call.undividable is None and not self.checking.barred(Way.ROWS)
        if rows:
            found.append(by_rows(units, batch, paces))
        if isinstance(self.form, Form) and not any(unit.local for unit in units):
            here = near(self.team.exchanges, paces, far)
            found.append(tokens_among(here, call, paces, self.form, together))
            if rows and paces.count(paces[0]) == len(paces) == len(here):
                found.append(by_rows_and_tokens(units, batch, paces, self.form))
        return [deal for deal in found if deal]

    def _choose(self, call: Call) -> Deal:
        paces, known = self._paces()
        deals, alone_s = self.deals(call, paces), self._alone_s
        course = self._course
        deal = course.ways.pick(deals, paces, known, alone_s)
        doubtful = alone_s and course.ways.gains_little(deal.way, alone_s)
        return deals[0] if doubtful and course.calls == CHECKED and len(call.units) == 1 else deal

    @property
    def _alone_s(self) -> float | None:
        return self.team.known.alone.get(self.name) if self.team.known else None

    @property
    def _own_s(self) -> float | None:
        """This process's seconds for a unit, lately."""
        known = self.team.known
        return self._own_paces.get(self.name) or (known.seconds.get((self.name, label(None))) if known else None)

    def _paces(self) -> tuple[list[float], bool]:
        """Each device's seconds for a unit, and whether they are seconds."""
        paces = self.team.paces
        if paces is None:
            paces = [self._own_s or 1.0] * len(self.team.devices)
        return list(paces), self._own_s is not None and self.team.known is not None

    def helps(self, call: Call, paces: Sequence[float], far: bool = False) -> bool:
        """Whether the last of these devices, `far` away or not, would make the call faster; `paces` are in seconds."""
        with_it, without = self._expected(call, paces, Link(), far), self._expected(call, paces[:-1], Link())
        helps = with_it < GAIN * without
        if isinstance(self.form, Form) and not helps:
            deal = tokens_among(near(self.team.exchanges, paces, far), call, paces, self.form)
            self._times = deal.seconds(paces, Link()) / without if deal else self._times
        return helps

    def _expected(self, call: Call, paces: Sequence[float], link: Link | None = None, far: bool = False) -> float:
        return min(deal.seconds(paces, link) for deal in self.deals(call, paces, far))

    # -- a call

    def exact(self, call: Call, record: StepRecord) -> Parts:
        """Every unit of `call`."""
        team = self.team
        team.at_pace_of(self.name)
        labels = self._meet_devices()
        if (line := self.checking.barred(Way.CONDS)) and max(self.hoped, len(team.devices)) > 1:
            team.report.note(line)
        deal = self._choose(call)
        record.way = deal.way.value
        record.share = deal.loads(len(team.devices))[0] / sum(unit.cost for unit in call.units)
        record.conds = [deal.units_of(device) for device in range(len(team.devices))]
        if team.paces and deal != self._same_way(deal, call, None):
            team.judging.say_slow()
        started = time.perf_counter()
        helpers = [team.exchanges[place - 1] for place in deal.places if place]
        parts = self._compute(deal, call, record)
        wall_s = time.perf_counter() - started
        right = self.checking.checked(deal, helpers, call, record.step, parts)
        if right is not parts:  # they count for nothing
            parts, record.helpers = right, 0
        course = self._course
        course.calls += 1
        first, course.last = course.last is not deal.way, deal.way
        if first or team.compared or team.labels != labels:  # slow for other reasons
            return parts
        self._learn(deal, call, record, wall_s)
        return parts

    def _meet_devices(self) -> tuple[str, ...]:
        """The call's course; gives the devices' labels."""
        labels, known = self.team.labels, self.team.known
        key = (self.name, labels)
        if key not in self._courses:
            tried = known.ways.setdefault(key, Tried()) if known else None
            if tried:
                tried.begin()
            self._courses[key] = Course(Ways(tried))
        self._course = self._courses[key]
        return labels

    def _learn(self, deal: Deal, call: Call, record: StepRecord, wall_s: float) -> None:
        load = deal.loads(1 + len(self.team.exchanges))[0]
        if load and record.lanes and record.lanes[0] == 0:
            self._own_paces[self.name] = min(record.compute_s[0] / load, self._own_s or float("inf"))
        self._course.ways.note(deal.way, wall_s)

        self.team.judging.learn(record, deal, wall_s, lambda paces: self._same_way(deal, call, paces))
        if self._choose(call).way is deal.way:  # or another way is tried next
            self.team.judging.judge(deal)

    def _same_way(self, deal: Deal, call: Call, paces: Sequence[float] | None) -> Deal:
        """The call dealt in the same way by other paces, None for equal ones."""
        found = self.deals(call, paces or [1.0] * len(self.team.devices))
        return next((one for one in found if one.way is deal.way), deal)

    def _compute(self, deal: Deal, call: Call, record: StepRecord) -> Parts:
        whole = [parcel for parcel in deal.parcels if not parcel.bounds]
        mine = [parcel for parcel in whole if parcel.devices == (0,)]
        given = [
            (self.team.exchanges[parcel.devices[0] - 1], list(parcel.units), parcel.rows)
            for parcel in whole
            if parcel.devices != (0,)
        ]
        divided = [parcel for parcel in deal.parcels if parcel.bounds]
        team, parts = self.team, []
        devices = team.devices  # as they are now: one that is lost on the way has no place any more
        self.team.compared = False
        if whole or not divided:
            parts += team.together(call, given, record, lambda: self._own(call, mine))
        if divided:
            parts += self._dividing.compute(divided, deal.form, devices, call, record)
        return parts

    def _own(self, call: Call, mine: Sequence[Parcel]) -> Parts:
        parts: Parts = []
        for parcel in mine:
            units = list(parcel.units)
            if self._wants_look(call, units):
                piece = self._look(call, units[0], parcel.rows)
                if self._may_be_apart(call):
                    parts.append(piece)
                    units = units[1:]
            parts += self.team.plain(call, units, parcel.rows)
        return parts

    def _may_be_apart(self, call: Call) -> bool:
        """Whether this process may compute the call's units one by one."""
        if len(call.units) < 2:
            return True
        others = self.team.exchanges
        return bool(others and not self.checking.barred(Way.CONDS) and self.checking.apart(others, call))

    # -- by tokens

    def _wants_look(self, call: Call, units: Sequence[Unit]) -> bool:
        """Whether the network should show what it does with tokens: where dividing by them could be faster."""
        devices = max(self.hoped, len(near(self.team.exchanges, self.team.devices)))
        if self.form is not None or devices < 2 or any(unit.local for unit in call.units):
            return False
        paces = self._paces()[0]
        paces = [paces[place] for place in near(self.team.exchanges, paces)]
        paces += [paces[0]] * (devices - len(paces))
        ideal = sum(unit.cost for unit in call.units) / sum(1.0 / pace for pace in paces)
        return ideal < GAIN * self._expected(call, paces)

    def _look(self, call: Call, unit: Unit, rows: tuple[int, int] | None) -> Piece:
        look = Look()
        self.team.compared = True  # looking takes a part of a forward more
        piece = Piece([unit], call.here([unit], look, call.rows(rows))[unit.branch], rows)
        self.setting.forms[self.name] = look.form or look.reason or lines.NO_BLOCKS()
        return piece

    def _broke_off(self, error: WorkerLost) -> None:
        self.checking.bar(lines.NOT_BY_TOKENS(reason=error), self.name)

    # -- the end

    def conclude(self) -> None:
        """Say how calls were shared otherwise than by conds, and what it brought, where that means something."""
        tried, last = self._course.ways.tried, self._course.last
        helpers = [exchange.place.label for exchange in self.team.exchanges]
        if not tried or self.team.known is None or obstacle_among(self.team.report.devices[0], helpers):
            return
        alone_s, of = self._alone_s, tried.of
        lost = [seconds / alone_s for seconds in map(of, (Way.ROWS, Way.TOKENS)) if seconds and alone_s]
        count = 1 + len(self.team.exchanges)
        if last in SAID and alone_s and (seconds := tried.usual(last)):
            self.team.report.note(SAID[last](devices=count, times=min(alone_s / seconds, count)))
        elif last is Way.CONDS and lost and min(lost) > 1.0:
            self.team.report.note(lines.DIVIDING_IS_SLOWER(times=min(lost)))

    def close(self) -> None:
        """The run is over, or interrupted."""
        self._dividing.close()


def near(exchanges: Sequence[Exchange], devices: Sequence, far: bool = False) -> list[int]:
    """Of so many devices those on this machine: keys and values are too much for a network."""
    others = {place for place, exchange in enumerate(exchanges, 1) if exchange.place.machine}
    return [place for place in range(len(devices) - far) if place not in others]


def tokens_among(
    here: Sequence[int], call: Call, paces: Sequence[float], form: Form, together: bool = False
) -> Deal | None:
    """The call divided by tokens among the devices `here`, all units by all where they belong `together`.

    None where no unit would be.
    """
    groups = 1 if together else len(call.units)
    deal = by_tokens(call.units, len(call.x), [paces[place] for place in here], form, groups) if here[1:] else None
    return deal and deal.on(here)
