"""The bridge from a diffusers pipeline to the engine.

The pipeline's progress bar encloses exactly its denoising loop, so a run begins and ends with it;
the network's forward hands each of the loop's calls to the run. Scheduler, guidance, callbacks
and decoding stay the pipeline's own.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import weakref
from collections.abc import Callable, Iterator, Sequence

import torch
from diffusers import DiffusionPipeline, StableDiffusion3Pipeline, StableDiffusionXLPipeline
from torch import Tensor, nn

from .. import lines
from ..call import Rows, to_denoised, to_eps
from ..engine import Engine
from ..modes import CUTTING, mode_for
from ..network.split import Pass
from ..network.tokens import Look
from ..paces import Paces
from ..plan import HybridPlan
from ..report import RunReport
from ..setting import Cuts, Setting
from ..share import Unit
from ..workers.devices import own_title, places
from ..workers.exchange import Exchange
from ..workers.memory import Need
from ..workers.pool import Lease, Pool
from ..workers.torch_settings import read as read_torch_settings
from ..workers.watch import WorkerLost
from ..workers.wire import CannotCross, dtype_name
from .diffusers_cuts import splitter_for
from .network import CLASSES, CONDITIONING, SAMPLE, half, recipe_of

log = logging.getLogger("hybridiff")

PIPELINES = (StableDiffusionXLPipeline, StableDiffusion3Pipeline)
FIRST_ORDER = ("EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler", "DDIMScheduler")  # their steps are Euler's

_accelerated: weakref.WeakKeyDictionary[DiffusionPipeline, Acceleration] = weakref.WeakKeyDictionary()


@functools.cache
def pool() -> Pool:
    """The workers of this process."""
    return Pool("diffusers", lambda place: {"threads": torch.get_num_threads()})


@functools.cache
def known() -> tuple[Cuts, Paces]:
    """Where this process has cut networks so far, and which devices it found slower."""
    return {}, Paces()


def accelerate(
    pipe: DiffusionPipeline, devices: Sequence[str] | str = ("auto",), plan: HybridPlan | None = None
) -> Acceleration:
    """Have `pipe` share each image with `devices` ("cuda:1", "cpu", "auto" for the other GPUs), as `plan` says.

    "pc-b/cuda:0" is a GPU of a machine that joined this one (docs/REMOTE.md).

    Takes the place of an acceleration that is on it already. Raises TypeError for a pipeline or a
    network that is not known here, ValueError for a compiled network.
    """
    if type(pipe) not in PIPELINES:
        names = " and ".join(cls.__name__ for cls in PIPELINES)
        raise TypeError(lines.UNKNOWN_PIPELINE(kind=type(pipe).__name__, known=names))
    network = pipe.unet if isinstance(pipe, StableDiffusionXLPipeline) else pipe.transformer
    if type(network) not in SAMPLE:
        raise TypeError(lines.UNKNOWN_NETWORK(kind=type(network).__name__, known=", ".join(CLASSES)))
    if any(module._compiled_call_impl for module in network.modules()):
        raise ValueError(lines.NETWORK_COMPILED())
    if pipe in _accelerated:
        _accelerated[pipe].take_off()
    devices = (devices,) if isinstance(devices, str) else tuple(devices)
    acceleration = _accelerated[pipe] = Acceleration(pipe, network, devices, plan or HybridPlan())
    return acceleration


class Acceleration:
    """Hybridiff on a pipeline, until `close`. `report` is the last run's."""

    def __init__(self, pipe: DiffusionPipeline, network: nn.Module, devices: tuple[str, ...], plan: HybridPlan):
        self.devices, self.plan, self.network = devices, plan, network
        self.report: RunReport | None = None
        self._pipe = weakref.ref(pipe)
        self._run: Run | None = None
        self._before = vars(network).get("forward")
        self.forward: Callable = network.forward
        self._parameters = inspect.signature(type(network).forward)

        @functools.wraps(network.forward)
        def forward(*args: object, **kwargs: object):
            if self._run is None:
                return self.forward(*args, **kwargs)
            arguments = self._parameters.bind(network, *args, **kwargs).arguments
            del arguments["self"]
            return self._run.call(arguments)

        self._installed = network.forward = forward
        pipe.progress_bar = self._progress_bar

    def close(self) -> None:
        """Make the pipeline what it was; the workers end with the last acceleration's close."""
        self.take_off()
        if not _accelerated:
            pool().close()

    def take_off(self) -> None:
        """As `close`, the workers kept."""
        pipe = self._pipe()
        if pipe is not None and _accelerated.get(pipe) is self:
            del _accelerated[pipe]
            vars(pipe).pop("progress_bar", None)
            if vars(self.network).get("forward") is self._installed:  # else something lies over it, and calls on
                del self.network.forward
                if self._before:
                    self.network.forward = self._before

    def _progress_bar(self, iterable=None, total=None):
        pipe = self._pipe()
        bar = type(pipe).progress_bar(pipe, iterable, total)
        return bar if iterable is not None else self._running(bar)

    @contextlib.contextmanager
    def _running(self, bar) -> Iterator:
        self._run = run = Run(self, self._pipe())
        self.report = run.report
        try:
            with bar:
                yield bar
        finally:
            self._run = None
            run.close()


def noise_at(scheduler, timestep: float) -> float:
    """The noise beside the picture at a timestep: sigma, or a flow's time."""
    steps = scheduler.config.num_train_timesteps
    if not hasattr(scheduler, "alphas_cumprod"):
        return timestep / steps
    place = min(max(timestep, 0.0), steps - 1.0)
    low = int(place)
    at = scheduler.alphas_cumprod[[low, min(low + 1, steps - 1)]].double()
    below, above = ((1 - at) / at).sqrt().tolist()
    return below + (place - low) * (above - below)


class Run:
    """One denoising loop: its workers, its engine, its report."""

    def __init__(self, acceleration: Acceleration, pipe: DiffusionPipeline):
        self.pipe, self.plan, self.devices = pipe, acceleration.plan, acceleration.devices
        self.network, self.forward = acceleration.network, acceleration.forward
        self.sample = SAMPLE[type(self.network)]
        # a level for each timestep, falling; schedulers of second order have each twice
        timesteps = pipe.scheduler.timesteps[: pipe.num_timesteps].double().unique_consecutive()
        self.sigmas = [*(timesteps + 1).tolist(), 0.0]
        self.noise = [*(noise_at(pipe.scheduler, time) for time in timesteps.tolist()), 0.0]
        self.plan.for_run(len(self.sigmas) - 1)  # before anything runs: a plan that does not fit is refused
        self.report = RunReport(self.plan.mode, [])
        self.splitter = splitter_for(self.network)
        self.leases: list[Lease] = []
        self.engine: Engine | None = None
        self._alone: str | None = None
        self._sent: dict | None = None

    def call(self, arguments: dict):
        """What the network's forward answers to the `arguments` of a call by the loop."""
        given = {name: value for name, value in arguments.items() if value is not None}
        x, timestep = given.pop(self.sample), torch.as_tensor(given.pop("timestep"))
        plain = given.pop("return_dict", True) is False and not given.keys() - CONDITIONING
        cfg = self.pipe.do_classifier_free_guidance
        units = [Unit(0, 0), Unit(1, 0)] if cfg else [Unit(0, 0)]
        one_time = timestep.numel() == 1 or bool((timestep == timestep.flatten()[0]).all())
        level = float(timestep.flatten()[0]) + 1
        if plain and one_time and not self.report.devices:
            self._begin(x.device, len(units))
        if self.engine is None or not (plain and one_time):
            # skip-layer guidance's third call, for one: the arguments say something that a worker does not know
            self.report.open_step(level, [units])
            return self.forward(**arguments)

        conds = [half(given, unit.branch, x.shape[0]) if cfg else given for unit in units]
        mine = x.chunk(2)[0] if cfg else x
        latent = mine.float() if mine.element_size() < 4 else mine
        sigma = torch.full((len(mine),), level, dtype=torch.float64, device=x.device)
        if self.engine.exchanges:
            types = {"dtype": x.dtype, "timestep": timestep.dtype}
            self._describe({"conds": conds, **types, "torch": read_torch_settings()})

        def here(of: list[Unit], through: Pass | Look | None = None, rows: Rows | None = None) -> dict[int, Tensor]:
            branches = [unit.branch for unit in of]
            if isinstance(through, Look):
                through.reason, through = lines.NOT_WITH_DIFFUSERS(), None
            with self.splitter.asking(through):
                if len(branches) == 2:  # as the pipeline asks: uncond first, in one batch
                    out = dict(zip((1, 0), self.forward(**arguments)[0].chunk(2)))
                else:
                    (branch,) = branches
                    time = half(timestep, branch, x.shape[0]) if cfg else timestep
                    own = {self.sample: mine, "timestep": time, **conds[branch], "return_dict": False}
                    out = {branch: self.forward(**own)[0]}
            return {branch: to_denoised(value.to(latent.dtype), latent, sigma) for branch, value in out.items()}

        done = self.engine.step(latent, sigma, units, here, _no_weight, undividable=lines.NOT_WITH_DIFFUSERS())
        out = [to_eps(done[unit.branch], latent, sigma).to(x.dtype) for unit in reversed(units)]
        return (torch.cat(out),)

    # -- the workers

    def _begin(self, own: torch.device, branches: int) -> None:
        """Meet the workers, where there is something for them to do."""
        self.report.devices.append(own_title(own))
        recipe: dict = {}
        found, missing = places(self.devices, own)
        if self.plan.effective.mode in CUTTING:
            missing += [lines.CUT_STAYS_HERE(device=place.label) for place in found if place.machine]
            found = [place for place in found if not place.machine]
        if not found:
            self._alone = "; ".join(missing) or lines.NO_DEVICE_CHOSEN()
        elif torch.is_autocast_enabled(own.type):
            self._alone = lines.AUTOCAST()
        else:
            try:
                recipe = recipe_of(self.network)
            except CannotCross as error:
                self._alone = str(error)
        for line in missing if found else ():
            self.report.note(line)
        plan = self.plan
        if any(before <= after for before, after in zip(self.sigmas, self.sigmas[1:])):
            self.report.note(lines.TIMESTEPS_DO_NOT_FALL())
            plan = HybridPlan(mode="exact")
        cfg = float(self.pipe.guidance_scale) if branches > 1 else 1.0
        first_order = type(self.pipe.scheduler).__name__ in FIRST_ORDER
        mode = mode_for(plan, len(self.sigmas) - 1)
        if self._alone and mode != "predict":  # that takes no other device
            return
        name = repr((recipe.get("class"), recipe.get("config")))
        if not self._alone and (branches > 1 or mode == "pipeline"):
            need = Need(name, sum(tensor.nbytes for tensor in recipe["state"].values()), whole=True)
            for place in found:
                lease = pool().prepare(place, own, recipe, self.devices, need)
                if lease is None:
                    self.report.note(lines.DEVICE_BUSY(device=place.label))
                else:
                    self.leases.append(lease)
        exchanges = [exchange for lease in self.leases if (exchange := self._met(lease))]
        self.report.devices += [exchange.place.label for exchange in exchanges]
        setting = Setting(
            plan,
            self.sigmas,
            cfg=cfg,
            openings=self.splitter.openings,
            cuts=known()[0],
            paces=known()[1],
            name=name,
            dtype=dtype_name(self.network.dtype),
            noise=self.noise,
            flow="FlowMatch" in type(self.pipe.scheduler).__name__,
            first_order=first_order,
        )
        self.engine = Engine(exchanges, self.report, setting)

    def _met(self, lease: Lease) -> Exchange | None:
        try:
            exchange = lease.ready(lambda: None)
        except Exception as error:
            log.debug("no worker on %s", lease.place.label, exc_info=True)
            self.report.note(lines.PART_DONE_HERE(reason=error))
            return None
        self.report.loadings.append({"device": lease.place.label, **exchange.loading.to_dict()})
        return exchange

    def _describe(self, run: dict) -> None:
        """Give the workers the conditioning where it is not what it was in the last call."""
        if self._sent is not None and _same(self._sent, run):
            return
        for exchange in list(self.engine.exchanges):
            try:
                (exchange.begin if self._sent is None else exchange.renew)(run)
            except (CannotCross, WorkerLost) as error:
                self.report.note(lines.PART_WAS_DONE_HERE(reason=error))
                self.engine.remove(exchange)
        self._sent = _copied(run)

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
        if self.engine is not None:
            self.engine.conclude()
        if self._alone:
            self.report.note(lines.RAN_ON_ONE_DEVICE(reason=self._alone))
        elif not self.report.steps:
            self.report.note(lines.NETWORK_EXCHANGED())
        elif not (self.leases or self.report.lines):
            reason = lines.AND_UNDIVIDED(reason=lines.CFG_1(), why=lines.NOT_WITH_DIFFUSERS())
            self.report.note(lines.RAN_ON_ONE_DEVICE(reason=reason))
        log.info("Hybridiff: %s", self.report.summary())
        for line in self.report.lines:
            log.info("Hybridiff: %s", line)


def _no_weight(units: list[Unit]) -> Tensor:
    raise AssertionError("a branch of one cond is never taken apart")


def _same(before: object, now: object) -> bool:
    if isinstance(before, Tensor) and isinstance(now, Tensor):
        return before.dtype == now.dtype and before.device == now.device and torch.equal(before, now)
    if isinstance(before, dict) and isinstance(now, dict):
        return before.keys() == now.keys() and all(_same(value, now[name]) for name, value in before.items())
    if isinstance(before, (list, tuple)) and isinstance(now, (list, tuple)):
        return len(before) == len(now) and all(map(_same, before, now))
    return type(before) is type(now) and before == now


def _copied(value: object) -> object:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {name: _copied(item) for name, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, (list, tuple)) else value
