"""One sampling, from its first call to its last."""

from __future__ import annotations

import functools
import logging
import operator
import os
import time
from collections.abc import Sequence
from dataclasses import replace

import comfy.model_management
import comfy.model_sampling
import torch
from comfy.model_patcher import ModelPatcher

from ...hybridiff_core import lines
from ...hybridiff_core.engine import Engine
from ...hybridiff_core.modes import CUTTING, mode_for
from ...hybridiff_core.paces import Paces
from ...hybridiff_core.plan import HybridPlan
from ...hybridiff_core.report import RunReport
from ...hybridiff_core.setting import Cuts, Forms, Setting
from ...hybridiff_core.share import Unit
from ...hybridiff_core.workers.devices import own_title
from . import obstacles, options
from .control import Controls
from .cuts import may_divide, splitter_for
from .demand import never_divided, places_for, undividable_batch, wanted
from .events import StepEvents
from .guidance import Guidance
from .host_call import HostCall
from .leases import Leases
from .need import need_of
from .recipe import name_of
from .remaking import Remaking
from .rows import let_go
from .run_setting import setting_of
from .second_model import second_model_on

log = logging.getLogger("hybridiff")

# set to 1, a run waits for its workers, and none is left out for its pace: for tests and measurements
WAIT = "HYBRIDIFF_WAIT"
PATIENCE_S = 0.25  # for a worker that is running: a changed LoRA has to get there


@functools.cache
def known() -> tuple[Cuts, Paces, Forms]:
    """Where this ComfyUI process has cut networks so far, which devices it found slower, what networks showed."""
    return {}, Paces(), {}


class Run:
    """One sampling: its workers, its engine, its report.

    `alone` is why no device helps, `misfit` what is wrong with the latent, both in words for users. With `sends` other
    machines may be sent the model's file. The caller sets `finished` where the sampling came to its end.
    """

    def __init__(
        self,
        guider: object,
        plan: HybridPlan,
        devices: tuple[str, ...],
        noise: torch.Tensor,
        sampler: object,
        sigmas: torch.Tensor,
        shapes: list | None = None,
        node: str | None = None,
        made: Remaking | None = None,
        sends: bool = False,
    ):
        steps = len(sigmas) - 1
        plan.for_run(steps)  # before anything runs: a plan that does not fit is refused
        self.plan, self.sampler, self.sigmas = plan, sampler, sigmas.tolist()
        self.patcher: ModelPatcher = guider.model_patcher
        self.made = made or Remaking(self.patcher, guider.model_options, None)
        self.splitter = splitter_for(self.patcher.model.diffusion_model)
        self.guidance = Guidance(guider)
        self.controls = Controls(self.guidance.all_conds, self.patcher.model)
        self.report = RunReport(plan.mode, [own_title(self.patcher.load_device)], total=steps)
        self.events = StepEvents(node, self.report)
        self.question = Question()
        self.engine: Engine | None = None
        self.finished = False
        self._code: str | None = None
        self._exact_for: str | None = None
        self._fault: str | None = None  # what shows on the way of code in the network
        # `_owed`: workers are waited for, once that code is trusted
        self._one_unit = self._timed = self._owed = False
        self._divides = may_divide(self.patcher.model.diffusion_model)
        if reason := _why_exact(plan, self.sigmas, self.made):
            self.report.note(reason)
            self.plan = HybridPlan(mode="exact")
        self.mode = mode_for(self.plan, steps)
        self.misfit = obstacles.misfit(self.patcher, noise, shapes)
        self.alone: str | None = None
        self.leases = self._leases(devices, guider.model_options, noise.shape, sends)
        if self.alone is None:
            self._divides &= self.leases.near and not never_divided(known()[2], name_of(self.leases.recipe))
            sampling = self.patcher.get_model_object("model_sampling")
            if conds := obstacles.expected_conds(self.guidance, self.controls, sampling, self.sigmas):
                self.leases.start(self.leases.most if self._divides else conds - 1)

    def _leases(self, devices: tuple[str, ...], model_options: dict, shape: Sequence[int], sends: bool) -> Leases:
        """The workers, none started yet; where there can be none, `alone` says why."""
        found, missing = places_for(devices, self.patcher.load_device, self.mode in CUTTING)
        nobody = None if found else "; ".join(missing) or lines.NO_DEVICE_CHOSEN()
        self.alone = (
            self.misfit
            or nobody
            or obstacles.obstacle(self.patcher, model_options)
            or obstacles.none_crosses(self.guidance, self.controls)
        )
        other, paces = None if self.misfit else self.guidance.other_model, None if _steady() else known()[1]
        of_run = (self.report, self.events.step, devices, shape, self.sigmas, paces, sends)
        self.second, found = second_model_on(other, found, *of_run)
        if found or not self.second:  # a recipe takes time: not where nobody needs it
            self.alone = self.alone or self.made.make(self.controls.networks)
        for line in missing if (recipe := self.made.recipe) or self.second else ():
            self.report.note(line)
        need = need_of(self.patcher, recipe, shape) if recipe else None
        given = (self.controls, self.report, self.mode == "pipeline", known()[1])
        return Leases(self.patcher, recipe, found if recipe else (), devices, *given, need, sends)

    # -- the sampler's course

    def begin(self, sampler: object, sigmas: torch.Tensor) -> None:
        """The sampler begins: by what it was given, the stages are told."""
        if sampler is not self.sampler or sigmas.tolist() != self.sigmas:
            self.stay_exact(lines.RESAMPLED())

    def stay_exact(self, reason: str) -> None:
        """From now on nothing is predicted or cut."""
        self._exact_for = self._exact_for or reason
        if self.engine is not None and self.engine.mode_name != "exact":
            self.engine.stay_exact(reason)

    def predict(self, call: HostCall) -> list[torch.Tensor]:
        """What the host's calc_cond_batch answers: a prediction of x's shape per cond list."""
        started = time.perf_counter()
        predictions = self._predict(call)
        if fault := self.made.fault():
            self._leave_out(fault)
        self.report.steps[-1].seconds = time.perf_counter() - started
        if not self.second:
            self.events.step()
        return predictions

    def _predict(self, call: HostCall) -> list[torch.Tensor]:
        units = call.units(self.controls)
        self._timed = self._timed or len(units) < 2 <= call.branches
        self.made.several = len(units) > 1
        if options.goes_on(call.model_options["transformer_options"]):
            self.stay_exact(lines.CALLS_IN_TURN())
        if (first := self.question.is_first()) and self.second:
            self.second.begin(call)
        code = self.made.code_in(call.executor, call.model, call.model_options)
        if self.made.by_graph:
            call = replace(call, executor=self.made.watching.around(call.executor, first))
        if self._takes_an_engine(units):
            divided = self._wanted(call, units) > 0
            self._one_unit = len(units) == 1 and (divided or self.mode in ("pipeline", "predict"))
            self._code = code
            self._make_engine(call, units)
        if self.engine is not None and self.engine.mode_name != "exact":
            self.engine.guided(self.guidance.scale)
        if first and code and self.made.by_graph:
            self._leave_out(code)
        # a guidance node's extra call may patch the network for itself (skip-layer, perturbed attention)
        exact = self.engine is not None and self.engine.mode_name == "exact"
        one = self._one_unit or (first and exact and self._wanted(call, units) > 0)
        if self.engine is None or (self.question.repeats(call, units) and exact) or len(units) < (1 if one else 2):
            return self._by_the_host(call, units)
        if first and self.made.trusted and not (code or all(unit.local for unit in units)):
            self._welcome(self._wanted(call, units))
        if self.engine.everyone:
            units = _with_controls(call, units, self.controls, self.report)
        if not self._allows(code, first):
            return self._by_the_host(call, units)
        if self.engine.everyone:
            told = call.plain(self.controls, bool(self.made.code))
            for exchange in self.leases.tell(self.engine.everyone, told, self.engine.newcomers.exchanges):
                self.engine.remove(exchange)
        here, named = self.made.noting(call.network(units, self.splitter)), call.names(units)
        told = {"again": not first, "undividable": undividable_batch(call), "kinds": call.kinds(units)}
        helpers = self.engine.everyone
        predictions = self.engine.step(call.x, call.timestep, units, here, call.weight, named, **told)
        self.made.hear(exchange.steps.doubt for exchange in helpers)
        self.made.try_apart(call.x, call.timestep, units, here, call.weight, predictions)
        return call.by_the_host() if self.made.torn(units) else call.answer(predictions)

    def _leave_out(self, fault: str) -> None:
        """Go on alone, for what the code in the network does."""
        if self._fault:
            return
        self._fault = fault
        if self.engine is not None:
            self.engine.dismiss()
        if self.report.shared_steps:
            self.report.note(fault)
        else:
            self.alone = fault

    def _wanted(self, call: HostCall, units: list[Unit]) -> int:
        """How many devices beside this process's have something to do."""
        undivided = self.engine is not None and isinstance(self.engine.sharing.form, str)
        return wanted(call, units, self.leases.most, self._divides and not undivided)

    def _by_the_host(self, call: HostCall, units: list[Unit]) -> list[torch.Tensor]:
        self.report.open_step(float(call.timestep[0]), [units])
        return call.by_the_host()

    def _allows(self, code: str | None, first: bool) -> bool:
        """Whether the engine can have a call with `code` of other nodes in the network; workers do not have that."""
        if first and code != self._code:  # it came or went while the run goes on
            self.engine.forget()
            self._code = code
        if first and code and self.engine.everyone:
            self.report.note(code)
            if self.engine.mode_name != "exact":  # what is predicted does not hang on how many devices there are
                self.engine.dismiss()
        return code == self._code and not (code and self.engine.everyone)

    # -- the engine

    @property
    def _predicts_alone(self) -> bool:
        """Whether steps are predicted though no device helps: that takes none."""
        return self.alone is not None and self.mode == "predict"

    def _takes_an_engine(self, units: list[Unit]) -> bool:
        if self.alone is not None and not self._predicts_alone:
            return False
        # the second branch may come later, where a node raises the CFG on the way
        return self.engine is None or bool(self._waits and self._one_unit and len(units) > 1 and self.leases.places)

    def _make_engine(self, call: HostCall, units: list[Unit]) -> None:
        """Meet the workers, once there is something for them to do, and be an engine with them."""
        if not units or (len(units) < 2 and not self._one_unit):
            return
        helpers = self._wanted(call, units)
        if self._predicts_alone or (self._one_unit and self.mode == "predict" and not helpers):
            if self.alone is None and not self.second:
                self.report.note(self._why_one())
        elif all(unit.local for unit in units):
            self.report.note(obstacles.all_stay(call.all_conds, self.controls))
            if self.mode != "predict":
                self.report.mode = "exact"
                return
        waits = self._waits and not self.alone
        self._owed = waits and not self.made.trusted
        exchanges = self.leases.ready(helpers) if waits and self.made.trusted else []
        check = comfy.model_management.throw_exception_if_processing_interrupted
        self.engine = Engine(exchanges, self.report, self._setting(), check)
        self.report.devices[1:] = [exchange.place.label for exchange in exchanges]

    @property
    def _waits(self) -> bool:
        """Whether the run waits for its workers: where the network is cut, that is done for the devices there are."""
        return self.mode in CUTTING or _steady()

    def _welcome(self, wanted: int) -> None:
        """Workers that have got ready are to join."""
        for exchange in self.leases.ready(wanted) if self._owed else ():
            self.engine.admit(exchange)
        self._owed = False
        for exchange in () if self._waits else self.leases.arrived(wanted, 0.0 if self.report.steps else PATIENCE_S):
            self.engine.welcome(exchange)

    def _setting(self) -> Setting:
        windows = lines.CONTEXT_WINDOWS() if self.guidance.in_windows else None
        plan, scale = _exact_where(self.plan, self.report, self._exact_for, windows), self.guidance.scale
        return setting_of(self.made, plan, self.sampler, self.sigmas, scale, self.splitter, known(), not _steady())

    # -- the end

    def _why_one(self) -> str:
        reason = obstacles.why_one(self.guidance, bool(self.report.steps) or not self.finished, self._timed)
        undivided = self.engine.sharing.undivided if self.engine and self._one_unit else None
        return lines.AND_UNDIVIDED(reason=reason, why=undivided) if undivided else reason

    def close(self) -> None:
        """Give the workers back and say what happened. Safe in any state, also after an interrupt."""
        if self.engine is not None:
            if self.finished and not self._fault:
                self.leases.late(self.engine.newcomers.untried)
            self.engine.close()
        self.leases.close()
        if self.second:
            self.second.close(self.finished)
        let_go()
        if self.engine is not None:
            self.engine.conclude()
        elif self.report.mode == "auto":
            self.report.mode = "exact"  # nothing was predicted, and nobody helped
        if (self.alone and not self.report.shared_steps) or not (self.report.lines or self.report.shared_steps):
            self.report.note(lines.RAN_ON_ONE_DEVICE(reason=self.alone or self._why_one()))
        self.events.finish(self.finished)
        for line in (self.report.summary(), *self.report.lines):
            log.info("Hybridiff: %s", line)


class Question:
    """What the sampler asks for at once, while it is entered: the first call in it is its own, others are nodes'."""

    def __init__(self) -> None:
        self._depth = self._calls = 0
        self._asked: list[tuple[tuple, torch.Tensor]] = []

    def __enter__(self) -> None:
        if self._depth == 0:
            self._calls = 0
            self._asked.clear()
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1

    def is_first(self) -> bool:
        """Whether the call now made is the question's first; asked once a call. Outside a question each one is."""
        first, self._calls = self._calls == 0 or not self._depth, self._calls + 1
        return first

    def repeats(self, call: HostCall, units: list[Unit]) -> bool:
        """Whether a call of the same question had these conds at this (x, sigma); asked once a call.

        Who asks the same again changed something between, perhaps in the network itself, where it does not show.
        """
        if not self._depth:
            return False
        what = (call.names(units), float(call.timestep[0]), call.x.dtype, call.x.device)
        found = any(what == before and torch.equal(call.x, x) for before, x in self._asked)
        self._asked.append((what, call.x))
        return found


def _steady() -> bool:
    return os.environ.get(WAIT) == "1"


def _why_exact(plan: HybridPlan, sigmas: Sequence[float], made: Remaking) -> str | None:
    """Why nothing can be predicted or cut, whatever the plan says; None where it can."""
    if plan.effective.mode == "exact":
        return None
    if not all(map(operator.ge, sigmas, sigmas[1:])):
        return lines.SIGMAS_DO_NOT_FALL()
    cuts = mode_for(plan, len(sigmas) - 1) in CUTTING
    return lines.NOT_CUT_WITH_CODE() if cuts and made.code and made.origin else None


def _exact_where(plan: HybridPlan, report: RunReport, *reasons: str | None) -> HybridPlan:
    """The plan, or an exact one where there is a reason, which the user hears."""
    for reason in reasons:
        if reason and plan.effective.mode != "exact":
            report.note(reason)
            plan = HybridPlan(mode="exact")
    return plan


def _with_controls(call: HostCall, units: list[Unit], controls: Controls, report: RunReport) -> list[Unit]:
    """The units, with the ControlNets' hints made ready for workers; what only now shows to stay here does."""
    if not any("control" in cond for cond in call.all_conds):
        return units
    controls.prepare(call.all_conds, call.x, call.timestep)
    now = call.units(controls)
    if all(unit.local for unit in now) and not all(unit.local for unit in units):
        report.note(obstacles.all_stay(call.all_conds, controls))
    return now
