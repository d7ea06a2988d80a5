"""The inner devices of a group that this process leads."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..network.split import Cut, State
from ..share import Unit
from .exchange import Exchange
from .steps import Answer


class Chain:
    """A Link (lead.py) over the exchanges of a group's inner devices.

    With several inner devices the state goes from one to the next without passing through here.
    """

    def __init__(self, inner: Sequence[Exchange], cut: Cut, check: Callable[[], None] = lambda: None):
        self.inner, self.cut, self._check = list(inner), cut, check
        self.answers: list[Answer] = []
        self.sent = 0
        self.x = self.sigma = None

    def at(self, x: torch.Tensor, sigma: torch.Tensor) -> None:
        """What the next states to send belong to."""
        self.x, self.sigma = x, sigma

    def send(self, unit: Unit, h: State, z: State) -> None:
        first, *others = self.inner
        route = [exchange.name for exchange in others]
        number, sent = first.steps.hand_on(unit, self.x, self.sigma, h, z, self.cut, route)
        self.sent += sent
        self.inner[-1].steps.expect_inner(number, z, sent)

    def receive(self) -> State:
        answer = self.inner[-1].steps.collect_inner(self._still_there)
        self.answers.append(answer)
        return tuple(piece.prediction for piece in answer.parts)

    def take_answers(self) -> list[Answer]:
        """What came since the last time this was asked."""
        answers, self.answers = self.answers, []
        return answers

    def take_sent(self) -> int:
        """Bytes sent since the last time this was asked."""
        sent, self.sent = self.sent, 0
        return sent

    def _still_there(self) -> None:
        self._check()
        for exchange in self.inner:
            exchange.watch.require()
