"""Which way an exact call is shared: the one that took the least time here, tried where it should take less.

All ways give the same picture, so the choice may hang on measured times. What was found is remembered by the model,
the units, the latent's shape and the devices.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from .share import Deal, Link, Way

TRIED = 2  # calls by a way before it is judged
KEPT_CALLS = 4  # the least time of the last ones counts
GAIN = 0.95  # a way is tried where it should take less than this part of the time of the best that there is
AGAIN = 8  # runs after which a way that lost is tried once more
LITTLE = 0.8  # a gain that one more call alone costs less than it may save


@dataclass
class Tried:
    """What is known of the ways for one model, latent and set of devices: seconds of whole calls."""

    seconds: dict[Way, deque[float]] = field(default_factory=dict)
    runs: int = 0

    def begin(self) -> None:
        """A run begins: now and then what lost is tried again, for it may have been another program's doing."""
        self.runs += 1
        judged = [way for way in self.seconds if self.of(way) is not None]
        if self.runs % AGAIN == 0 and judged:
            best = min(judged, key=self.of)
            self.seconds = {best: self.seconds[best]}

    def of(self, way: Way) -> float | None:
        """The least lately; None before it can be judged."""
        taken = self.seconds.get(way, ())
        return min(taken) if len(taken) >= TRIED else None

    def usual(self, way: Way) -> float | None:
        """What it takes most often, to tell a user."""
        return statistics.median(self.seconds[way]) if self.of(way) else None

    def note(self, way: Way, seconds: float) -> None:
        self.seconds.setdefault(way, deque(maxlen=KEPT_CALLS)).append(seconds)


class Ways:
    """A run's choice, for the devices that there are. Without `tried` it goes by what ways should take."""

    def __init__(self, tried: Tried | None = None):
        self.tried = tried

    def pick(self, deals: Sequence[Deal], paces: Sequence[float], known: bool, alone_s: float | None = None) -> Deal:
        """The deal to go by. `paces` are in seconds where they are `known`, else in any scale.

        `alone_s` is what this process alone takes for the call, where that was measured.

        The first of `deals` is the one that needs nothing that is not known, and each is tried only where it gains
        against those before it.
        """
        link = Link() if known else None
        expected = {deal.way: deal.seconds(paces, link) for deal in deals}
        measured = {deal.way: self._measured(deal.way) for deal in deals}
        for deal in deals:
            if not any(deal.loads(len(paces))[1:]):
                measured[deal.way] = alone_s
        best = deals[0]
        for deal in deals[1:]:
            if expected[deal.way] < GAIN * expected[best.way]:
                best = deal
        if measured[best.way] is None:
            found = [seconds for seconds in measured.values() if seconds is not None]
            if not found or not known or expected[best.way] < GAIN * min(found):
                return best
        judged = [deal for deal in deals if measured[deal.way] is not None]
        return min(judged, key=lambda deal: measured[deal.way]) if judged else best

    def gains_little(self, way: Way, alone_s: float) -> bool:
        """Whether a way is so little faster than this process alone that what was measured may mislead."""
        seconds = self._measured(way)
        return seconds is not None and LITTLE * alone_s < seconds < alone_s

    def note(self, way: Way, seconds: float) -> None:
        """A whole call took so long by `way`."""
        if self.tried:
            self.tried.note(way, seconds)

    def _measured(self, way: Way) -> float | None:
        return self.tried.of(way) if self.tried else None
