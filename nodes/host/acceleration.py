"""What the nodes put on a model, by the host's own wrappers.

OUTER_SAMPLE holds a run's lifetime, CALC_COND_BATCH hands each denoiser call to it. The run travels
in the guider's own transformer_options, so nested and alternating samplings on one model do not meet.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import comfy.model_management
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP

from ...hybridiff_core import lines
from ...hybridiff_core.plan import HybridPlan
from ...hybridiff_core.report import RunReport
from .block_hooks import offer, withdraw
from .events import executing_node
from .foreign import make_way_for_classes
from .graph import Origin
from .host_call import KEY, HostCall
from .remaking import Remaking
from .run import Run
from .unloading import listen


class Acceleration:
    """Hybridiff on a model: what the nodes put there. `report` is the last run's.

    `origin` is the graph that the model comes from, where it is known; with `other_packs` workers may run nodes of
    other packs that are in it, and with `sends` other machines are sent the model's file, where they lack it.
    """

    def __init__(
        self,
        plan: HybridPlan,
        devices: tuple[str, ...],
        origin: Origin | None = None,
        other_packs: bool = True,
        sends: bool = False,
    ):
        self.plan, self.devices = plan, devices
        self.origin, self.other_packs, self.sends = origin, other_packs, sends
        self.report: RunReport | None = None
        self.called_at: float | None = None
        self.node: str | None = None

    def apply(self, model: ModelPatcher) -> ModelPatcher:
        """A clone of `model` that samples with this; replaces an acceleration that is on it already.

        Raises ValueError for what is not a diffusion model.
        """
        self.called_at, self.node = time.perf_counter(), executing_node()
        if not hasattr(getattr(model, "model", None), "diffusion_model"):
            raise ValueError(lines.NOT_A_MODEL(what=type(getattr(model, "model", model)).__name__))
        clone = model.clone()
        # the host copies that `model` has its injections in the network now; it takes them out for the clone, which is
        # to put in its own
        clone.is_injected = False
        for kind, wrapper in (
            (WrappersMP.OUTER_SAMPLE, self._outer_sample),
            (WrappersMP.SAMPLER_SAMPLE, sampler_sample),
            (WrappersMP.PREDICT_NOISE, predict_noise),
            (WrappersMP.CALC_COND_BATCH, calc_cond_batch),
        ):
            clone.remove_wrappers_with_key(kind, KEY)
            clone.add_wrapper_with_key(kind, KEY, wrapper)
        offer(clone)
        listen(clone)
        return clone

    def _outer_sample(self, executor: Callable, noise, latent_image, sampler, sigmas, *args, **kwargs):
        if len(sigmas) < 2:  # no steps
            return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
        guider = executor.class_obj
        make_way_for_classes(guider.model_patcher)
        options = guider.model_options["transformer_options"]
        made = Remaking(guider.model_patcher, guider.model_options, self.origin, self.other_packs)
        shapes = kwargs.get("latent_shapes")
        run = Run(guider, self.plan, self.devices, noise, sampler, sigmas, shapes, self.node, made, self.sends)
        if self.called_at is not None:
            run.report.called_at = self.called_at
        self.report, self.called_at = run.report, None
        run.events.begin(lambda: {"starting": run.leases.starting, "sending": run.leases.sending})
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
        except comfy.model_management.InterruptProcessingException:
            run.report.state = "stopped"
            raise
        except RuntimeError as error:
            if run.misfit:  # torch's own words name no input
                raise ValueError(lines.LATENT_MISFIT_STOPS(reason=run.misfit)) from error
            raise
        finally:
            del options[KEY]
            run.close()
            # the clone is gone after the node's call, and the host goes on with the patcher before it, which does not
            # know that something was put in; the next loading puts it in again
            guider.model_patcher.eject_model()
            withdraw(guider.model_patcher)


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
    with run.question:
        return executor(*args, **kwargs)


def calc_cond_batch(executor: Callable, model, conds, x, timestep, model_options):
    """The CALC_COND_BATCH wrapper (comfy/samplers.py, _calc_cond_batch_outer)."""
    run = model_options["transformer_options"].get(KEY)
    if run is None:
        return executor(model, conds, x, timestep, model_options)
    call = HostCall(executor, model, conds, x, timestep, model_options)
    if model is run.patcher.model:
        return run.predict(call)
    run.stay_exact(lines.TWO_MODELS())  # a guider of two models calls for the other one too
    return run.second.predict(call) if run.second else call.by_the_host()
