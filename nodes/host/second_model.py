"""The other model of a guider of two (DualModelGuider): a worker that holds it alone computes its calls ahead.

The guider asks its own model for one branch, then the other model for the other one, at the same x and sigma.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Sequence

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher

from ...hybridiff_core import lines
from ...hybridiff_core.ahead import Ahead
from ...hybridiff_core.call import Call
from ...hybridiff_core.handshake import Handshake
from ...hybridiff_core.paces import Paces
from ...hybridiff_core.plan import HybridPlan
from ...hybridiff_core.report import RunReport
from ...hybridiff_core.setting import Setting
from ...hybridiff_core.share import Unit
from ...hybridiff_core.workers.place import Place
from ...hybridiff_core.workers.wire import CannotCross, dtype_name
from . import obstacles
from .comparing import fingerprint, output_of
from .control import Controls
from .host_call import HostCall
from .leases import Leases
from .need import need_of
from .recipe import name_of
from .remaking import Remaking


class SecondModel:
    """A run's worker at `place`, which holds `patcher`'s model.

    `tell` tells the page of a step that is done. `paces` remembers which devices are too slow; without it the run waits
    for the worker. `wish` and `sends` are as in Leases, `shape` is the latent's. Raises CannotCross where no worker can
    have the model.
    """

    def __init__(
        self,
        patcher: ModelPatcher,
        place: Place,
        report: RunReport,
        tell: Callable[[], None],
        wish: tuple[str, ...],
        shape: Sequence[int],
        sigmas: Sequence[float],
        paces: Paces | None,
        sends: bool,
    ):
        self.patcher, self.report, self.tell, self.waits = patcher, report, tell, paces is None
        self.controls = Controls((), patcher.model)  # a prompt with a ControlNet stays here
        self.made = Remaking(patcher, patcher.model_options, None)
        if reason := obstacles.obstacle(patcher, patcher.model_options) or self.made.make(()):
            raise CannotCross(reason)
        recipe = self.made.recipe
        self.leases = Leases(
            patcher, recipe, (place,), wish, self.controls, report, False, paces or Paces(),
            need_of(patcher, recipe, shape), sends,
        )  # fmt: skip
        self.leases.start(1)
        held, name = weakref.ref(patcher), name_of(recipe)
        setting = Setting(
            HybridPlan(mode="exact"), sigmas, name=name, proof=lambda: fingerprint(held()),
            output=output_of(patcher.get_model_object("model_sampling")),
            dtype=dtype_name(patcher.model.get_dtype_inference()),
        )  # fmt: skip
        check = comfy.model_management.throw_exception_if_processing_interrupted
        self.ahead = Ahead(report, Handshake(setting), paces, name, check)

    def begin(self, call: HostCall) -> None:
        """The run's own model is asked for the first time at an x and sigma."""
        self.tell()  # of the step before: both models' calls are in its record
        self.ahead.begin(call.x, call.timestep)

    def predict(self, call: HostCall) -> list[torch.Tensor]:
        """What the host's calc_cond_batch answers of this model; taken down with the run's own call before it."""
        units, started = call.units(self.controls), time.perf_counter()
        if call.model is not self.patcher.model or not (units and self.report.steps):
            return call.by_the_host()
        told, record = call.plain(self.controls), self.report.steps[-1]
        if changed := self.leases.changes(told):
            self.ahead.forget()
        asked = Call(call.x, call.timestep, units, call.network(units, None), call.weight)
        predictions = call.answer(self.ahead.predict(asked, record))
        self._prepare(call, units, told, changed)
        record.seconds += time.perf_counter() - started
        return predictions

    def _prepare(self, call: HostCall, units: list[Unit], told: dict, changed: bool) -> None:
        """Have the worker know what a call like this one is of, where another such can be computed by it."""
        reason = self.made.code_in(call.executor, call.model, call.model_options)
        if reason or any(unit.local for unit in units):
            reason = reason or obstacles.all_stay(call.all_conds, self.controls)
            self.report.note(lines.SECOND_MODEL_STAYS(reason=reason))
            return
        if self.ahead.exchange is None and not self.ahead.left:
            for exchange in self.leases.ready(1) if self.waits else self.leases.arrived(1):
                self.ahead.meet(exchange)
                changed = True
        if (exchange := self.ahead.exchange) is None:
            return
        failed = (changed or exchange.behind) and self.leases.tell([exchange], told, [exchange])
        if not (failed or exchange.behind):
            self.ahead.expect(units)

    def close(self, finished: bool) -> None:
        """Give the worker back. Safe in any state, also after an interrupt."""
        if finished:
            self.leases.late(())
            self.ahead.conclude()
        self.leases.close()


def second_model_on(
    patcher: ModelPatcher | None, places: Sequence[Place], report: RunReport, *of_run: object
) -> tuple[SecondModel | None, Sequence[Place]]:
    """`patcher`'s model on the first of `places`, and the other ones; None where there is none, or it has to stay here.

    `of_run` is what SecondModel is given beside these.
    """
    if patcher is None or not places:
        return None, places
    try:
        return SecondModel(patcher, places[0], report, *of_run), places[1:]
    except CannotCross as error:
        report.note(lines.SECOND_MODEL_STAYS(reason=error))
        return None, places
