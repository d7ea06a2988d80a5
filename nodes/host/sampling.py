"""The bridge from ComfyUI's sampling to the engine, by the host's own wrappers.

OUTER_SAMPLE holds a run's lifetime, CALC_COND_BATCH hands each denoiser call to the engine. The
run travels in the guider's own transformer_options, so nested and alternating samplings on one
model do not meet.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import operator
import os
import time
from collections.abc import Callable, Iterator

import comfy
import comfy.cli_args
import comfy.k_diffusion.sampling as k_diffusion
import comfy.model_management
import comfy.model_sampling
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP, WrappersMP

from ...hybridiff_core.engine import Engine
from ...hybridiff_core.modes import mode_for
from ...hybridiff_core.network.split import Pass
from ...hybridiff_core.plan import HybridPlan
from ...hybridiff_core.report import RunReport
from ...hybridiff_core.setting import Cuts, Paces, Setting
from ...hybridiff_core.share import Unit
from ...hybridiff_core.workers.devices import Place, places
from ...hybridiff_core.workers.exchange import Exchange
from ...hybridiff_core.workers.pool import Lease, Pool
from ...hybridiff_core.workers.watch import WorkerLost
from ...hybridiff_core.workers.wire import CannotCross, dtype_name
from . import conditioning
from .backend import flags_to_plain
from .control import Controls
from .cuts import hooked, splitter_for
from .events import StepEvents, executing_node
from .foreign import of_the_host, replaced
from .recipe import ADAPTER_KINDS, model_folders, recipe_of

log = logging.getLogger("hybridiff")

KEY = "hybridiff"
ONE_BRANCH = "CFG 1 has one branch, so there is nothing to share"
ONE_BY_ONE = "a node asks for one branch at a time, so there is nothing to share"
ONE_COND = "only one branch has conditioning, so nothing is shared"
NOT_ASKED = "a node computes the branches in code of its own, so there is nothing to share"
WRAPPED = "a node wraps the branches' computation after Hybridiff; put Hybridiff last on the model"
RESAMPLED = "a node changed the sampler or the sigmas after Hybridiff, so every step is exact"
TWO_MODELS = "a guider of two models mixes what is foreseen with the other's, so every step is exact"
# what the host, or this pack, puts into transformer_options for this process alone; no network reads them
OWN_OPTIONS = {"wrappers", "callbacks", "cond_or_uncond", "uuids", "sigmas", "context_window", KEY}
# patches and wrappers that run inside the network, where a worker would need their code
INNER_WRAPPERS = (WrappersMP.APPLY_MODEL, WrappersMP.DIFFUSION_MODEL)
INNER_CALLBACKS = (
    CallbacksMP.ON_LOAD,
    CallbacksMP.ON_PRE_RUN,
    CallbacksMP.ON_PREPARE_STATE,
    CallbacksMP.ON_APPLY_HOOKS,
    CallbacksMP.ON_INJECT_MODEL,
)
# options in which the network itself keeps state from call to call; a worker would keep its own
STATE_OPTIONS = ("ar_state",)


@functools.cache
def pool() -> Pool:
    """The workers of this ComfyUI process."""
    return Pool("comfy", _start_frame, conditioning.KINDS | ADAPTER_KINDS)


@functools.cache
def known() -> tuple[Cuts, Paces]:
    """Where this ComfyUI process has cut networks so far, and which devices it found slower."""
    return {}, {}


def _start_frame(place: Place) -> dict:
    return {
        "root": os.path.dirname(os.path.dirname(os.path.abspath(comfy.model_management.__file__))),
        "flags": flags_to_plain(comfy.cli_args.args),
        "threads": torch.get_num_threads(),
        "model_folders": model_folders(),
    }


class Acceleration:
    """Hybridiff on a model: what the nodes put there. `report` is the last run's."""

    def __init__(self, plan: HybridPlan, devices: tuple[str, ...]):
        self.plan, self.devices = plan, devices
        self.report: RunReport | None = None
        self.called_at: float | None = None
        self.node: str | None = None

    def apply(self, model: ModelPatcher) -> ModelPatcher:
        """A clone of `model` that samples with this; replaces an acceleration that is on it already.

        Raises ValueError for what is not a diffusion model.
        """
        self.called_at, self.node = time.perf_counter(), executing_node()
        if not hasattr(getattr(model, "model", None), "diffusion_model"):
            what = type(getattr(model, "model", model)).__name__
            raise ValueError(f"expected a diffusion model, got {what}; connect the MODEL output of a model loader")
        clone = model.clone()
        for kind, wrapper in (
            (WrappersMP.OUTER_SAMPLE, self._outer_sample),
            (WrappersMP.SAMPLER_SAMPLE, sampler_sample),
            (WrappersMP.PREDICT_NOISE, predict_noise),
            (WrappersMP.CALC_COND_BATCH, calc_cond_batch),
        ):
            clone.remove_wrappers_with_key(kind, KEY)
            clone.add_wrapper_with_key(kind, KEY, wrapper)
        _listen_for_unload(clone)
        return clone

    def _outer_sample(self, executor: Callable, noise, latent_image, sampler, sigmas, *args, **kwargs):
        if len(sigmas) < 2:  # no steps
            return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
        guider = executor.class_obj
        options = guider.model_options["transformer_options"]
        run = Run(self, guider, noise, sampler, sigmas, kwargs.get("latent_shapes"))
        self.report, self.called_at = run.report, None
        options[KEY] = run
        # last in the chain, so that other packs' wrappers see every branch, and we the sampler's own sigmas
        for kind in (WrappersMP.CALC_COND_BATCH, WrappersMP.SAMPLER_SAMPLE):
            of_kind = options["wrappers"][kind]
            of_kind[KEY] = of_kind.pop(KEY)
        # first, to see what belongs to one question of the sampler's
        of_kind = options["wrappers"][WrappersMP.PREDICT_NOISE]
        options["wrappers"][WrappersMP.PREDICT_NOISE] = {KEY: of_kind.pop(KEY), **of_kind}
        try:
            samples = executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
            run.finished = True
            return samples
        except RuntimeError as error:
            if run.misfit:  # torch's own words name no input
                raise ValueError(f"{run.misfit}; use an empty latent or a VAE made for this model") from error
            raise
        finally:
            del options[KEY]
            run.close()


def sampler_sample(executor: Callable, guider, sigmas, extra_args, *args, **kwargs):
    """The SAMPLER_SAMPLE wrapper (comfy/samplers.py, CFGGuider.inner_sample)."""
    run = extra_args["model_options"]["transformer_options"].get(KEY)
    if run is not None:
        run.begin(executor.class_obj, sigmas)
    return executor(guider, sigmas, extra_args, *args, **kwargs)


def predict_noise(executor: Callable, *args, **kwargs):
    """The PREDICT_NOISE wrapper (comfy/samplers.py, CFGGuider.outer_predict_noise)."""
    run = executor.class_obj.model_options["transformer_options"].get(KEY)
    if run is None:
        return executor(*args, **kwargs)
    with run.question():
        return executor(*args, **kwargs)


def calc_cond_batch(executor: Callable, model, conds, x, timestep, model_options):
    """The CALC_COND_BATCH wrapper (comfy/samplers.py, _calc_cond_batch_outer)."""
    run = model_options["transformer_options"].get(KEY)
    if run is not None and model is not run.patcher.model:  # a guider of two models calls for the other one too
        run.stay_exact(TWO_MODELS)
        run = None
    if run is None:
        return executor(model, conds, x, timestep, model_options)
    started = time.perf_counter()
    predictions = run.predict(executor, model, conds, x, timestep, model_options)
    run.report.steps[-1].seconds = time.perf_counter() - started
    run.events.step()
    return predictions


def _listen_for_unload(patcher: ModelPatcher | None) -> None:
    """Hear of it when the host unloads the model, by whichever of its patchers it then holds.

    The sampling's own clone is gone after the node's call; the host goes on with the one before it.
    """
    while patcher is not None:
        patcher.remove_callbacks_with_key(CallbacksMP.ON_DETACH, KEY)
        patcher.add_callback_with_key(CallbacksMP.ON_DETACH, KEY, _on_detach)
        patcher = patcher.parent


def _on_detach(patcher: ModelPatcher, unpatch_all: bool) -> None:
    # the host detaches without unpatching when it only swaps one clone for another
    if unpatch_all:
        pool().unload()


def _code_inside(model_options: dict) -> str | None:
    """Which code of other nodes runs inside the network, in words for users: a worker does not have it."""
    inner = model_options["transformer_options"]
    if "model_function_wrapper" in model_options:
        return "a node wraps the whole network in code of its own, which a second process does not have"
    for name in ("patches", "patches_replace"):
        if any(inner.get(name, {}).values()):
            return f"a node patches the network from inside ({', '.join(sorted(inner[name]))})"
    for name in STATE_OPTIONS:
        if name in inner:
            return f"a sampler keeps state inside the network ({name})"
    for kind, chosen in (("wrappers", INNER_WRAPPERS), ("callbacks", INNER_CALLBACKS)):
        for of_kind in chosen:
            packs = [str(key) for key, found in inner.get(kind, {}).get(of_kind, {}).items() if found]
            if packs:
                return f"a node runs code of its own inside the network ({of_kind}: {', '.join(packs)})"
    return None


def _code_around(executor: Callable, model) -> str | None:
    """Which code of other packs a worker would miss that was put in place without a node's options."""
    if executor.wrappers[executor.idx + 1 :]:  # added while the run goes on
        return WRAPPED
    for owner, name in ((model, "apply_model"), (model, "_apply_model"), (model.diffusion_model, "forward")):
        if replaced(owner, name):
            return f"a node replaced the model's {name}"
    if model.diffusion_model._forward_hooks or model.diffusion_model._forward_pre_hooks:
        return "a node replaced the model's forward"
    if not of_the_host(executor.original):
        return f"a pack replaced ComfyUI's {executor.original.__name__}"
    if not (of_the_host(type(model).apply_model) and of_the_host(type(model)._apply_model)):
        return "a pack replaced ComfyUI's apply_model"
    return None


def _is_euler(sampler) -> bool:
    """Whether its steps are Euler's, without noise: euler, and ddim, which the host makes of it."""
    function = getattr(sampler, "sampler_function", None)
    return function is k_diffusion.sample_euler and not getattr(sampler, "extra_options", {}).get("s_churn")


class Run:
    """One sampling: its workers, its engine, its report."""

    def __init__(
        self, acceleration: Acceleration, guider, noise: torch.Tensor, sampler, sigmas: torch.Tensor, shapes=None
    ):
        self.guider, self.plan, self.sigmas = guider, acceleration.plan, sigmas.tolist()
        self._devices = acceleration.devices
        self.plan.for_run(len(self.sigmas) - 1)  # before anything runs: a plan that does not fit is refused
        self.patcher: ModelPatcher = guider.model_patcher
        own = self.patcher.load_device
        self.report = RunReport(acceleration.plan.mode, [str(own)])
        if acceleration.called_at is not None:
            self.report.called_at = acceleration.called_at
        self.report.total = len(self.sigmas) - 1
        self.events = StepEvents(acceleration.node, self.report)
        self.leases: list[Lease] = []
        self.engine: Engine | None = None
        self.splitter = splitter_for(self.patcher.model.diffusion_model)
        self._first_order = _is_euler(sampler)
        self._one_unit = False
        self._sent: object = None
        self._sampler = sampler
        self._code: str | None = None
        self._depth = 0
        self._calls = 0
        self._exact_for: str | None = None
        self.finished = False
        if self.plan.effective.mode != "exact" and not all(map(operator.ge, self.sigmas, self.sigmas[1:])):
            self.report.note("the sigmas do not fall from step to step, so every step is exact")
            self.plan = HybridPlan(mode="exact")
        self.misfit = self._misfit(noise, shapes)
        every = [cond for of_branch in self._guiders_conds().values() for cond in of_branch]
        self._controls = Controls(every, self.patcher.model)
        found, lines = places(acceleration.devices, own)
        nobody = None if found else "; ".join(lines) or "no device was chosen to help"
        self._alone = self.misfit or nobody or self._obstacle()  # a recipe takes time: not where nobody needs it
        self._places: list[Place] = []
        if self._alone is None:
            self._places = found
            for line in lines:
                self.report.note(line)
        self._mode = mode_for(self.plan, len(self.sigmas) - 1)
        conds = self._expected_conds() if self._alone is None else 0
        if conds:
            self._start_workers(conds - 1)

    # -- whether there is anything to share

    def _misfit(self, noise: torch.Tensor, shapes: list | None) -> str | None:
        """What is wrong with the latent, in words for users: a worker would only fail on it."""
        takes = self.patcher.get_model_object("latent_format").latent_channels
        if noise.shape[1] == takes or len(shapes or ()) > 1:  # several latents come packed into one
            return None
        return f"the latent has {noise.shape[1]} channels, and this model takes {takes}"

    def _obstacle(self) -> str | None:
        """Why this model cannot be shared, in words for users; None where it can."""
        if self.patcher.get_additional_models_with_key("multigpu"):
            return "ComfyUI's own MultiGPU CFG Split is on this model, so Hybridiff stands aside"
        code = _code_inside(self.guider.model_options)
        if code:
            return code
        try:
            self._recipe = recipe_of(self.patcher, self._controls.networks)
        except CannotCross as error:
            return str(error)
        return None

    def _expected_conds(self) -> int:
        """How many conds a call will have, told before the first: a worker for nothing costs memory."""
        conds = self._guiders_conds()
        if self._without_guidance() and not self.guider.model_options.get("disable_cfg1_optimization", False):
            conds = {"positive": conds.get("positive", ())}
        all_conds = [cond for of_branch in conds.values() for cond in of_branch]
        crosses = any(conditioning.staying_reason(cond, self._controls) is None for cond in all_conds)
        return len(all_conds) if crosses else 0

    def _guiders_conds(self) -> dict:
        return getattr(self.guider, "conds", {})

    def _guidance(self) -> float:
        """The guider's CFG; of a guider with two, what both come to."""
        one, two = (float(getattr(self.guider, name, 0.0)) for name in ("cfg1", "cfg2"))
        both = one * two if getattr(self.guider, "nested", False) else one + two
        return max(float(getattr(self.guider, "cfg", 1.0)), both)

    def _without_guidance(self) -> bool:
        plain = self._guiders_conds().keys() <= {"positive", "negative"}  # others have scales of their own
        return plain and math.isclose(getattr(self.guider, "cfg", 0.0), 1.0)

    def _why_one(self) -> str:
        """Why no call had more than one branch in it."""
        if self.finished and not self.report.steps:
            return NOT_ASKED
        branches = sum(map(bool, self._guiders_conds().values()))
        if branches > 1 and not self._without_guidance():
            return ONE_BY_ONE
        return ONE_COND if branches < 2 and not self._without_guidance() else ONE_BRANCH

    def _start_workers(self, wanted: int) -> None:
        """Start as many workers; one more than help would only hold the model. A pipeline takes all."""
        while self._places and (len(self.leases) < wanted or self._mode == "pipeline"):
            place = self._places.pop(0)
            lease = pool().prepare(place, self.patcher.load_device, self._recipe, self._devices)
            if lease is None:
                self.report.note(f"the worker on {place.label} is busy with another sampling")
            else:
                self.leases.append(lease)

    def _workers(self, wanted: int) -> list[Exchange]:
        """The workers that are ready, another device's in the place of one that is not."""
        exchanges: list[Exchange] = []
        self._start_workers(wanted)
        met = 0
        while met < len(self.leases):
            if exchange := self._met(self.leases[met]):
                exchanges.append(exchange)
            met += 1
            self._start_workers(wanted + met - len(exchanges))
        return exchanges

    # -- a call

    def begin(self, sampler, sigmas: torch.Tensor) -> None:
        """The sampler begins: by what it was given, the stages are told."""
        if sampler is not self._sampler or sigmas.tolist() != self.sigmas:
            self.stay_exact(RESAMPLED)

    def stay_exact(self, reason: str) -> None:
        """From now on nothing is foreseen or cut."""
        self._exact_for = self._exact_for or reason
        if self.engine is not None and self.engine.mode_name != "exact":
            self.engine.stay_exact(reason)

    @contextlib.contextmanager
    def question(self) -> Iterator[None]:
        """What is in here, the sampler asked for at once: the first call is its own, others are nodes'."""
        if self._depth == 0:
            self._calls = 0
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def predict(self, executor: Callable, model, conds, x, timestep, model_options) -> list[torch.Tensor]:
        """What the host's calc_cond_batch answers: a prediction of x's shape per cond list."""
        units = conditioning.units_of(conds, x, timestep, self._controls)
        code = _code_inside(model_options) or _code_around(executor, model)
        # the second branch may come later, where a node raises the CFG on the way
        more = self._one_unit and len(units) > 1 and self._places
        if (self.engine is None or more) and (self._alone is None or self._predicts_alone):
            self._come_together(conds, units)
            self._code = code
        if self.engine is not None and self.engine.mode_name != "exact":
            self.engine.guided(self._guidance())
        first, self._calls = self._calls == 0 or not self._depth, self._calls + 1
        # a guidance node's extra call may patch the network for itself (skip-layer, perturbed attention)
        extra = self.engine is None or not units or (len(units) < 2 and not self._one_unit)
        if not extra and self.engine.exchanges:
            units = self._with_controls(conds, units, x, timestep)
        if not extra and first and code != self._code:  # it came or went while the run goes on
            self.engine.forget()
            self._code = code
        if not extra and first and code and self.engine.exchanges:
            self.report.note(code)
            if self.engine.mode_name != "exact":  # what is foreseen does not hang on how many devices there are
                self.engine.dismiss()
        if extra or code != self._code or (code and self.engine.exchanges):
            self.report.open_step(float(timestep[0]), [units])
            return executor(model, conds, x, timestep, model_options)

        if self.engine.exchanges:
            self._describe(conds, x, model_options)

        def here(mine: list[Unit], through: Pass | None = None) -> dict[int, torch.Tensor]:
            chosen = conds if mine == units else conditioning.select(conds, mine)
            options = model_options if through is None else hooked(model_options, self.splitter, through)
            out = executor(model, chosen, x, timestep, options)
            return {branch: out[branch] for branch in {unit.branch for unit in mine}}

        def weight(mine: list[Unit]) -> torch.Tensor:
            return conditioning.weight_of(conds, mine, x, timestep)

        named = tuple(conds[unit.branch][unit.index].get("uuid") for unit in units)
        predictions = self.engine.step(x, timestep, units, here, weight, named, again=not first)
        return [predictions.get(branch, torch.zeros_like(x)) for branch in range(len(conds))]

    def _come_together(self, conds: conditioning.Conds, units: list[Unit]) -> None:
        """Meet the workers, once there is something for them to do."""
        self._one_unit = len(units) == 1 and self._mode in ("pipeline", "predict")
        if not units or (len(units) < 2 and not self._one_unit):
            return
        if self._predicts_alone or (self._one_unit and self._mode == "predict"):
            if self._alone is None:
                self.report.note(self._why_one())
        elif all(unit.local for unit in units):
            self._note_staying(conds)
            return
        exchanges = self._workers(len(units) - 1)
        plan = self.plan
        if self._exact_for and plan.effective.mode != "exact":
            self.report.note(self._exact_for)
            plan = HybridPlan(mode="exact")
        if "context_handler" in self.guider.model_options and plan.effective.mode != "exact":
            self.report.note("context windows see another part of the latent in each call, so every step is exact")
            plan = HybridPlan(mode="exact")
        sampling = self.patcher.get_model_object("model_sampling")
        setting = Setting(
            plan,
            self.sigmas,
            cfg=self._guidance(),
            time=lambda sigma: float(sampling.timestep(torch.tensor([sigma]))),
            openings=self.splitter.openings,
            cuts=known()[0],
            paces=known()[1],
            name=repr([self._recipe[key] for key in ("loader", "path", "stamp", "form")]) if exchanges else None,
            flow=isinstance(sampling, comfy.model_sampling.CONST),
            first_order=self._first_order,
        )
        check = comfy.model_management.throw_exception_if_processing_interrupted
        self.engine = Engine(exchanges, self.report, setting, check)
        self.report.devices += [exchange.place.label for exchange in exchanges]

    def _with_controls(self, conds: conditioning.Conds, units: list[Unit], x, timestep) -> list[Unit]:
        """The units, with the ControlNets' hints made ready for workers; what only now shows to stay here does."""
        if not any("control" in cond for of_branch in conds for cond in of_branch or ()):
            return units
        self._controls.prepare([cond for of_branch in conds for cond in of_branch or ()], x, timestep)
        now = conditioning.units_of(conds, x, timestep, self._controls)
        if all(unit.local for unit in now) and not all(unit.local for unit in units):
            self._note_staying(conds)
        return now

    def _note_staying(self, conds: conditioning.Conds) -> None:
        all_conds = [cond for of_branch in conds for cond in of_branch or ()]
        reasons = {conditioning.staying_reason(cond, self._controls) for cond in all_conds} - {None}
        self.report.note(f"every branch has {' and '.join(sorted(reasons)) or 'a default cond'}, which cannot cross")

    @property
    def _predicts_alone(self) -> bool:
        """Whether steps are predicted though no device helps: that takes none."""
        return self._alone is not None and self._mode == "predict"

    def _met(self, lease: Lease) -> Exchange | None:
        try:
            exchange = lease.ready(comfy.model_management.throw_exception_if_processing_interrupted)
        except Exception as error:
            log.debug("no worker on %s", lease.place.label, exc_info=True)
            next_one = self._places and self._mode != "pipeline"
            self.report.note(f"{error}; {'the next device' if next_one else 'this process'} does its part")
            return None
        self.report.loadings.append({"device": lease.place.label, **vars(exchange.loading)})
        self._controls.refused(exchange.info.get("refused", ()))
        own = dtype_name(self.patcher.model.get_dtype_inference())
        if exchange.info.get("dtype") != own:
            self.report.note(
                f"{lease.place.label} computes in {exchange.info.get('dtype')}, this process in {own}: "
                "the picture can differ slightly from one device's"
            )
        return exchange

    def _describe(self, conds: conditioning.Conds, x: torch.Tensor, model_options: dict) -> None:
        """Give the workers the conds and options where they are not what they were in the last call."""
        inner = model_options["transformer_options"]
        run = {
            **conditioning.crossing(conds, self._controls),
            "options": {key: value for key, value in inner.items() if key not in OWN_OPTIONS},
            "shape": tuple(x.shape),
        }
        if conditioning.unchanged(self._sent, conditioning.snapshot(run)):
            return
        for exchange in list(self.engine.exchanges):
            try:
                (exchange.begin if self._sent is None else exchange.renew)(run)
            except (CannotCross, WorkerLost) as error:
                self.report.note(f"{error}; this process did its part")
                self.engine.remove(exchange)
        self._sent = conditioning.snapshot(run, keep=True)

    # -- the end

    def close(self) -> None:
        """Give the workers back and say what happened. Safe in any state, also after an interrupt."""
        for lease in self.leases:
            if lease.exchange and self.engine and lease.exchange.alive():
                try:
                    lease.exchange.end()
                except WorkerLost as error:
                    log.info("%s", error)
            pool().release(lease)
        if self._alone or not (self.report.lines or self.report.shared_steps):
            self.report.note(f"ran on one device: {self._alone or self._why_one()}")
        self.events.finish()
        log.info("Hybridiff: %s", self.report.summary())
        for line in self.report.lines:
            log.info("Hybridiff: %s", line)
