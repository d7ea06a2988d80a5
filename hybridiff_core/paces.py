"""Which device is slower than another, from run to run and within one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .ways import Tried

KEPT_CALLS = 4  # of a run, the least time counts
LEAST_CALLS = 2  # exact calls that show which device is slower
CHANGED = 0.9  # units are dealt anew where the busiest device is then done in less than this part of the time
UNEQUAL, UNEQUAL_S = 1.25, 0.005  # devices whose times for a unit differ by less count as equal
SLOWER = 1.05  # a shared call that takes this many times as long as one alone is a loss
STRIKES = 2  # runs in a row in which a device was too slow
LEFT_OUT_RUNS = 8  # runs after them that do without it, before it is measured again

Key = tuple[object, str]  # the model, the units and the latent; the device
Paced = Sequence[float] | None


@dataclass
class Paces:
    """What a process knows of its devices, from run to run: seconds for a unit, and who is left out for how long."""

    seconds: dict[Key, float] = field(default_factory=dict)
    left_out: dict[Key, tuple[int, float]] = field(default_factory=dict)
    strikes: dict[Key, int] = field(default_factory=dict)
    alone: dict[object, float] = field(default_factory=dict)  # this process's least seconds for a whole call
    ways: dict[tuple, Tried] = field(default_factory=dict)  # by the name and the devices
    _alone: dict[object, deque[float]] = field(default_factory=dict)

    def of(self, name: object, labels: Sequence[str]) -> list[float] | None:
        """Each device's seconds for a unit; None where one is not known, or they count as equal."""
        found = [self.seconds.get((name, label)) for label in labels]
        return None if None in found else unequal(found)

    def took_alone(self, name: object, seconds: float) -> None:
        """This process computed a whole call; the least of the last ones counts."""
        taken = self._alone.setdefault(name, deque(maxlen=KEPT_CALLS))
        taken.append(seconds)
        self.alone[name] = min(taken)

    def leave_out(self, name: object, label: str, times: float) -> None:
        """A run did without a device that took `times` as long; after a second one it is not loaded for some runs."""
        key = name, label
        self.strikes[key] = self.strikes.get(key, 0) + 1
        if self.strikes[key] >= STRIKES:
            self.left_out[key] = (LEFT_OUT_RUNS, times)

    def helped(self, name: object, label: str) -> None:
        """A device was worth it in a run."""
        self.strikes.pop((name, label), None)

    def skips(self, name: object, label: str) -> float | None:
        """Asked once a run: how many times as long the device took, where this run does without it."""
        runs, times = self.left_out.pop((name, label), (0, 0.0))
        if runs > 1:
            self.left_out[name, label] = (runs - 1, times)
        return times if runs else None


def unequal(paces: Sequence[float]) -> list[float] | None:
    """The paces, or None where the devices count as equal."""
    least, most = min(paces), max(paces)
    return None if most <= UNEQUAL * least or most - least < UNEQUAL_S else list(paces)


class Pacing:
    """A run's measurements, for the devices that there are.

    `paces` is how units are dealt: seconds of each device for a unit, None where they count as equal.
    """

    def __init__(self, known: Paces, name: object, labels: Sequence[str]):
        self.known, self.name, self.labels = known, name, tuple(labels)
        self.paces = known.of(name, self.labels)
        self.said = False  # to the user, that units are dealt by it
        self._of_device: list[deque[float]] = [deque(maxlen=KEPT_CALLS) for _ in self.labels]
        self._walls: deque[float] = deque(maxlen=KEPT_CALLS)

    @property
    def alone_s(self) -> float | None:
        """This process's least seconds for a whole call, where it computed one alone."""
        return self.known.alone.get(self.name)

    def take(
        self, loads: Sequence[float], seconds: Sequence[float], wall_s: float, again: Callable[[Paced], Sequence[float]]
    ) -> None:
        """An exact call's times: each device's for its load, in units, and the whole.

        `again` gives the loads that the same call would have by other paces.
        """
        for times, load, took in zip(self._of_device, loads, seconds):
            if load:
                times.append(took / load)
        self._walls.append(wall_s)
        if min(map(len, self._of_device)) < LEAST_CALLS:
            return
        measured = [min(times) for times in self._of_device]
        self.known.seconds |= {(self.name, label): pace for label, pace in zip(self.labels, measured)}
        better = unequal(measured)
        before, after = _last(loads, measured), _last(again(better), measured)
        if after < CHANGED * before and before - after >= UNEQUAL_S:
            self.paces = better

    @property
    def settled(self) -> bool:
        """Whether there were enough calls to judge by."""
        return len(self._walls) >= LEAST_CALLS

    @property
    def loses(self) -> bool:
        """Whether sharing took longer than this process alone."""
        if self.alone_s is None or not self.settled:
            return False
        least = min(self._walls)
        return least > SLOWER * self.alone_s and least - self.alone_s > UNEQUAL_S

    @property
    def wall_s(self) -> float:
        return min(self._walls)


def _last(loads: Sequence[float], paces: Sequence[float]) -> float:
    """The seconds of the device that is done last."""
    return max(load * pace for load, pace in zip(loads, paces))
