"""Predicted steps in a run: from what was computed to what the sampler is given."""

from __future__ import annotations

from ..call import Call, Eps, Predictions
from ..report import StepRecord
from ..rules import MADE_UP
from .estimates import Predictor
from .expectation import Expectation, Noise
from .mode import RunState


class Predicting:
    """A run's Predictor, asked by step."""

    def __init__(self, state: RunState):
        self.state, self.predictor = state, Predictor()
        self.expectation = Expectation(Noise(state.setting.flow, state.setting.scale))

    @property
    def ready(self) -> bool:
        return self.predictor.ready(self.state.branches)

    def expected(self, step: int) -> float | None:
        """How far a prediction of `step` may be off, by the errors measured before; None where none was."""
        if not self.ready:
            return None
        # a sampler with two calls a step (heun) asked at this sigma before: what it asks next counts
        spread = self.predictor.spread(self._time(step)) or self.predictor.spread(self._time(step + 1))
        return self.expectation.at(self._noise(step), spread)

    def reach(self, step: int) -> float:
        return self.predictor.reach(self._time(step))

    def predict(self, call: Call, record: StepRecord) -> Predictions:
        return call.denoised(self.predictor.predict(call.time, self._move(record.step)))

    def error(self, call: Call, eps: Eps, step: int) -> float | None:
        """How far a prediction of `step` would have been from the computed `eps`; what is expected goes by it."""
        error = self.predictor.error(call.time, eps, self.state.setting.cfg)
        if error is not None:
            self.expectation.note(self._noise(step), error, self.predictor.spread(call.time))
        return error

    def take(self, call: Call, eps: Eps, record: StepRecord) -> Eps:
        """Note the computed `eps`; gives it, or with what predicted steps before it were off by."""
        given = eps
        if self.state.setting.first_order:
            given = self.predictor.make_up(call.time, self._move(record.step), eps)
        self.predictor.observe(call.time, eps)
        return given

    def left_of(self, off: float) -> float:
        """What is left of how far predicted steps were off, where some of it is made up for."""
        return off * (1.0 - MADE_UP if self.state.setting.first_order else 1.0)

    def _move(self, step: int) -> float:
        noise = self.state.schedule.noise
        return noise[step + 1] - noise[step]

    def _noise(self, step: int) -> float:
        return self.state.schedule.noise[step]

    def _time(self, step: int) -> float:
        return self.state.setting.time(self.state.schedule.sigmas[step])
