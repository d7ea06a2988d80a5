"""How far a prediction will be off, by how the measured errors grew, and where nothing is known of it."""

from __future__ import annotations

import itertools
import math
from collections import deque
from dataclasses import dataclass

from ..rules import FALL, GROWTHS, MOST_GROWTH, NEAR


@dataclass(frozen=True)
class Noise:
    """What a sampling's sigma says: a flow's is its time; `scale` is the noise at 1, beside a picture of size 1."""

    flow: bool = False
    scale: float = 1.0

    def level(self, sigma: float) -> float:
        """The noise beside the picture: its logarithm where it is large, in proportion where it is small."""
        return math.asinh(self.scale * (sigma / max(1.0 - sigma, 1e-6) if self.flow else sigma))

    def told(self, sigma: float) -> float:
        """How much of a network's output is not in its input already; all of a flow's velocity."""
        return 1.0 if self.flow else 1.0 / math.hypot(1.0, self.scale * sigma)


class Expectation:
    """How far predictions will be off.

    What a line through two values misses of a curve grows with the product of the distances to both, its
    `spread`. An error without it is a bend, and bends are followed along the noise levels.
    """

    def __init__(self, noise: Noise):
        self.noise = noise
        self._bends: deque[tuple[float, float]] = deque(maxlen=GROWTHS + 1)  # each with its level
        self._sigma = 0.0  # the last one's

    def note(self, sigma: float, error: float, spread: float) -> None:
        """Take an error that was measured at `sigma`."""
        if spread > 0.0:
            self._sigma = sigma
            self._bends.append((self.noise.level(sigma), error / (spread * self.noise.told(sigma))))

    def at(self, sigma: float, spread: float) -> float | None:
        """The error expected at `sigma`, infinite where that is far from the last one measured; None where none was."""
        if not self._bends:
            return None
        way = self._bends[-1][0] - self.noise.level(sigma)
        fell = not self.noise.flow and sigma < FALL * self._sigma
        if way > NEAR or fell or spread == 0.0:
            return math.inf
        before, now = [bend for _, bend in [self._bends[0], *self._bends][-2:]]
        bend = math.sqrt(now * max(now, before))  # one alone may be low by chance
        return bend * min(math.exp(self._growth() * way), MOST_GROWTH) * spread * self.noise.told(sigma)

    def _growth(self) -> float:
        """Of a bend's logarithm, a unit of level: the fastest lately; 0 where they fell, as they may rise again."""
        found = [0.0]
        for (before, less), (now, more) in itertools.pairwise(self._bends):
            if before > now and less > 0.0 < more:
                found.append(math.log(more / less) / (before - now))
        return max(found)
