"""What is estimated in the place of a computed prediction. No device is asked for anything here."""

from __future__ import annotations

import torch

from ..call import Eps
from ..discrepancy import relative_error
from ..extrapolation import History, between, factor
from ..rules import FOLLOWED, FURTHEST, GAIN_STEPS, MADE_UP, MOST_GAIN, NO_GAIN_STEPS


def guided(eps: Eps, cfg: float) -> torch.Tensor:
    """eps_u + w (eps_c - eps_u); the cond branch where it is alone."""
    return torch.lerp(eps[1], eps[0], cfg) if len(eps) == 2 and 1 in eps else eps[min(eps)]


class Predictor:
    """The cond branch's eps on the line through its last two computed values, the others' beside it.

    Another branch's slope is the mean of its own and the first branch's: the difference between
    branches, which guidance multiplies, follows its own slope half way, as it bends more.
    """

    def __init__(self) -> None:
        self.histories: dict[int, History] = {}
        self._predicted: list[tuple[float, float, Eps]] = []

    def ready(self, branches: set[int]) -> bool:
        return self.histories.keys() == branches and all(len(history) == 2 for history in self.histories.values())

    def observe(self, time: float, eps: Eps) -> None:
        for branch, value in eps.items():
            self.histories.setdefault(branch, History()).add(time, (value,))
        self._predicted.clear()

    def estimate(self, time: float) -> Eps:
        first, *others = sorted(self.histories)
        ((then, older), (now, newer)) = self.histories[first]
        f = factor(then, now, time)
        done = {first: torch.lerp(older[0], newer[0], 1.0 + f)}
        for branch in others:
            (_, before), (_, last) = self.histories[branch]
            done[branch] = last[0] + FOLLOWED * f * (last[0] - before[0] + newer[0] - older[0])
        return done

    def predict(self, time: float, move: float) -> Eps:
        """The estimate for a step that is not computed; `move` is how far sigma goes in it."""
        eps = self.estimate(time)
        self._predicted.append((time, move, eps))
        return eps

    def make_up(self, time: float, move: float, eps: Eps) -> Eps:
        """What to give the sampler in place of the computed `eps`, so that it makes up for the steps predicted before.

        A line between the computed values around a predicted step tells better what it should have
        been. Half of what it was off, times how far sigma went, is added over this step's own move:
        in a sampler whose steps add up eps times that move, it takes back as much. All of it would
        do harm where the network is far from smooth. Call before `observe`.
        """
        if not self._predicted or move == 0.0:
            return eps
        done = {}
        for branch, value in eps.items():
            before, (last,) = self.histories[branch].newest
            done[branch] = value
            for then, moved, given in self._predicted:
                share = min(max(moved / move, -FURTHEST), FURTHEST)
                done[branch] = done[branch] + MADE_UP * share * (
                    between(before, last, time, value, then) - given[branch]
                )
        return done

    def error(self, time: float, eps: Eps, cfg: float) -> float | None:
        """How far the estimate for `time` is from the computed `eps`, guided, as a share of it.

        With more than two branches (DualCFG, PerpNeg) the largest of the first branch with each other one.
        """
        if not self.ready(set(eps)):
            return None
        estimate, (first, *others) = self.estimate(time), sorted(eps)
        pairs = [(first, other) for other in others] or [(first,)]

        def together(of: Eps, pair: tuple[int, ...]) -> torch.Tensor:
            return guided(dict(enumerate(of[branch] for branch in pair)), cfg)

        return max(relative_error((together(estimate, pair),), (together(eps, pair),)) for pair in pairs)

    def reach(self, time: float) -> float:
        """How far the estimate for `time` lies beyond the last computed value, by the distance of the last two."""
        return abs(factor(*self._times(), time))

    def spread(self, time: float) -> float:
        """The product of the distances to the last two computed values."""
        then, now = self._times()
        return abs((time - then) * (time - now))

    def _times(self) -> tuple[float, float]:
        ((then, _), (now, _)) = self.histories[min(self.histories)]
        return then, now


class Alternator:
    """One branch is computed a turn, the other told by the guidance difference D.

    D = eps_c - eps_u is known where both branches are: at exact steps, and at a branch's turn,
    the other branch then being put on the line through its own turns around it. `gain` damps D's
    slope: with few steps, or a second-order sampler, following it fully does harm.
    """

    def __init__(self, gain: float):
        self.gain = gain
        self.turns: dict[int, History] = {0: History(), 1: History()}
        self.difference = History()

    @property
    def ready(self) -> bool:
        return len(self.difference) == 2

    def observe(self, time: float, eps: Eps) -> None:
        """An exact step: both branches are known."""
        for branch, history in self.turns.items():
            history.add(time, (eps[branch],))
        self.difference.add(time, (eps[0] - eps[1],))

    def complete(self, time: float, branch: int, eps: torch.Tensor) -> Eps:
        """Both branches at `time`, of which `branch` was computed."""
        sign = 1 if branch == 0 else -1
        then, (other,) = self.turns[1 - branch].newest
        before, (mine,) = self.turns[branch].newest
        if then != before:
            self.difference.add(then, (sign * (between(before, mine, time, eps, then) - other),))
        self.turns[branch].add(time, (eps,))
        return {branch: eps, 1 - branch: eps - sign * self.difference.at(time, self.gain)[0]}

    def error(self, time: float, eps: Eps, branch: int, cfg: float) -> float | None:
        """How far both branches would be off, guided, had only `branch` been computed at `time`."""
        if not self.ready:
            return None
        sign = 1 if branch == 0 else -1
        estimate = {branch: eps[branch], 1 - branch: eps[branch] - sign * self.difference.at(time, self.gain)[0]}
        return relative_error((guided(estimate, cfg),), (guided(eps, cfg),))


def difference_gain(steps: int) -> float:
    """How much of D's slope to follow in a run of `steps` steps."""
    return min(max((steps - NO_GAIN_STEPS) / GAIN_STEPS, 0.0), MOST_GAIN)
