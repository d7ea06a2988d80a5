"""The sampler nodes, and the node that accelerates a model for any other sampler."""

from __future__ import annotations

import comfy.samplers
import nodes
from comfy_api.latest import io

from ..hybridiff_core.account import timeline
from ..hybridiff_core.plan import HybridPlan, shown
from .devices import DEVICES, checked
from .host.acceleration import Acceleration
from .host.graph import Origin
from .host.to_use import devices_to_use
from .plan import CATEGORY, PLAN
from .report import REPORT

ALIASES = [
    "ksampler", "sampler", "hybridiff", "multigpu", "multi gpu", "two gpus", "2 gpus", "second gpu", "dual gpu",
    "several gpus", "parallel", "distributed", "accelerate", "faster", "speed up", "cfg",
]  # fmt: skip
SAME, CLOSE = "same as KSampler", "close to it, faster"
PICTURES = {SAME: HybridPlan(mode="exact"), CLOSE: HybridPlan(mode="auto")}


def _hybrid_inputs() -> list[io.Input]:
    return [
        PLAN.Input(
            "plan",
            optional=True,
            tooltip="From a Hybridiff Plan node, for experts: it says how steps are computed, in the place of picture.",
        ),
        DEVICES.Input(
            "devices",
            optional=True,
            tooltip="From Hybridiff Devices nodes: which devices help. Without it: this machine's other GPUs, as many "
            "as help.",
            extra_dict={"hybridiff_to_use": devices_to_use()},
        ),
        io.Combo.Input(
            "picture",
            options=list(PICTURES),
            default=SAME,
            optional=True,  # graphs of before have none
            tooltip="same as KSampler: every step is computed, and the picture is KSampler's; close to it, faster: "
            "some steps are predicted from those before, within a small error that is measured on the way. "
            "A connected plan decides in its place.",
        ),
    ]


def _model() -> io.Input:
    return io.Model.Input(
        "model",
        tooltip="The model that denoises. Each device that helps loads it too.",
    )


def _seed(name: str) -> io.Input:
    return io.Int.Input(
        name,
        default=0,
        min=0,
        max=0xFFFFFFFFFFFFFFFF,
        control_after_generate=True,
        tooltip="The noise to start from. The same seed gives the same picture, on one device or several; "
        "in the pipeline mode it changes with their number.",
    )


def _common_sampling() -> list[io.Input]:
    return [
        io.Int.Input(
            "steps",
            default=20,
            min=1,
            max=10000,
            tooltip="How many denoising steps. More take longer. 'close to it, faster' predicts some of 8 or more.",
        ),
        io.Float.Input(
            "cfg",
            default=8.0,
            min=0.0,
            max=100.0,
            step=0.1,
            round=0.01,
            tooltip="How strongly the prompt guides the picture. Above 1 the network runs with and without the "
            "prompt, and two devices share that. At 1 it runs once: then the images of a batch are shared, and "
            "transformers (Flux, Qwen-Image, Wan) divide each image.",
        ),
        io.Combo.Input(
            "sampler_name",
            options=comfy.samplers.KSampler.SAMPLERS,
            tooltip="The sampling algorithm. Every one works on several devices. 'close to it, faster' predicts most "
            "steps with euler and ddim.",
        ),
        io.Combo.Input(
            "scheduler",
            options=comfy.samplers.KSampler.SCHEDULERS,
            tooltip="How noise falls from step to step. It changes the picture as usual, and the speed hardly.",
        ),
        io.Conditioning.Input("positive", tooltip="What the picture should show. Computed on ComfyUI's own device."),
        io.Conditioning.Input(
            "negative", tooltip="What the picture should not show. Computed on the device that helps."
        ),
        io.Latent.Input("latent_image", tooltip="The latent image to denoise; its size sets the time of a step."),
    ]


def _outputs() -> list[io.Output]:
    return [
        io.Latent.Output(display_name="LATENT", tooltip="The denoised latent."),
        REPORT.Output(display_name="report", tooltip="What happened in the run, for a Hybridiff Report node."),
    ]


def _plan(plan: object, picture: str) -> HybridPlan:
    if plan is not None:
        return HybridPlan.from_dict(plan)
    if picture not in PICTURES:  # by a link
        raise ValueError(f"picture is {shown(picture)}; use one of {', '.join(PICTURES)}")
    return PICTURES[picture]


def _hidden() -> list[io.Hidden]:
    """By which the graph is known that a model comes from."""
    return [io.Hidden.dynprompt, io.Hidden.unique_id, io.Hidden.extra_pnginfo]


def _acceleration(cls: type[io.ComfyNode], model, plan: object, devices: object, picture: str) -> Acceleration:
    chosen, told = checked(devices), getattr(cls, "hidden", None)
    origin = told and Origin.of(model, told.dynprompt, told.unique_id, told.extra_pnginfo)
    return Acceleration(_plan(plan, picture), chosen.names, origin, chosen.other_packs, chosen.send_files)


def _sample(
    cls: type[io.ComfyNode], model, plan: object, devices: object, picture: str, *arguments, **options
) -> io.NodeOutput:
    acceleration = _acceleration(cls, model, plan, devices, picture)
    (latent,) = nodes.common_ksampler(acceleration.apply(model), *arguments, **options)
    report = acceleration.report.to_dict() if acceleration.report else {}
    view = [timeline(report)] if report else []
    return io.NodeOutput(latent, report, ui={"hybridiff": [report], "hybridiff_view": view})


class HybridiffKSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HybridiffKSampler",
            display_name="Hybridiff KSampler",
            category=CATEGORY,
            description="KSampler on two or more GPUs: the same picture in less time.",
            search_aliases=ALIASES,
            inputs=[
                _model(),
                _seed("seed"),
                *_common_sampling(),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How much of the latent image is made new; lower keeps its structure. "
                    "The number of steps, and so the time, stays the same.",
                ),
                *_hybrid_inputs(),
            ],
            outputs=_outputs(),
            hidden=_hidden(),
        )

    @classmethod
    def execute(
        cls, model, seed, steps, cfg, sampler_name, scheduler, positive, negative, latent_image, denoise=1.0,
        plan=None, devices=None, picture=SAME,
    ) -> io.NodeOutput:  # fmt: skip
        return _sample(
            cls, model, plan, devices, picture, seed, steps, cfg, sampler_name, scheduler, positive, negative,
            latent_image,
            denoise=denoise,
        )  # fmt: skip


class HybridiffKSamplerAdvanced(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HybridiffKSamplerAdvanced",
            display_name="Hybridiff KSampler (Advanced)",
            category=CATEGORY,
            description="KSampler (Advanced) on two or more GPUs: the same picture in less time.",
            search_aliases=ALIASES,
            inputs=[
                _model(),
                io.Combo.Input(
                    "add_noise",
                    options=["enable", "disable"],
                    advanced=True,
                    tooltip="Whether to add noise before the first step, or to go on from a latent that has some. "
                    "No change in speed.",
                ),
                _seed("noise_seed"),
                *_common_sampling(),
                io.Int.Input(
                    "start_at_step",
                    default=0,
                    min=0,
                    max=10000,
                    advanced=True,
                    tooltip="The step to begin with; steps before it are left out and cost nothing.",
                ),
                io.Int.Input(
                    "end_at_step",
                    default=10000,
                    min=0,
                    max=10000,
                    advanced=True,
                    tooltip="The step to end before; steps after it are left out and cost nothing.",
                ),
                io.Combo.Input(
                    "return_with_leftover_noise",
                    options=["disable", "enable"],
                    advanced=True,
                    tooltip="Whether to leave the remaining noise in the latent for another sampler to go on with. "
                    "No change in speed.",
                ),
                *_hybrid_inputs(),
            ],
            outputs=_outputs(),
            hidden=_hidden(),
        )

    @classmethod
    def execute(
        cls, model, add_noise, noise_seed, steps, cfg, sampler_name, scheduler, positive, negative, latent_image,
        start_at_step, end_at_step, return_with_leftover_noise, plan=None, devices=None, picture=SAME,
    ) -> io.NodeOutput:  # fmt: skip
        return _sample(
            cls, model, plan, devices, picture, noise_seed, steps, cfg, sampler_name, scheduler, positive, negative,
            latent_image, disable_noise=add_noise == "disable", start_step=start_at_step, last_step=end_at_step,
            force_full_denoise=return_with_leftover_noise == "disable",
        )  # fmt: skip


class HybridiffModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HybridiffModel",
            display_name="Hybridiff Model",
            category=CATEGORY,
            description="Makes any sampler use two or more devices with this model: SamplerCustom, "
            "SamplerCustomAdvanced with most guiders, samplers of other packs. Put it last before the sampler.",
            search_aliases=ALIASES,
            inputs=[_model(), *_hybrid_inputs()],
            outputs=[io.Model.Output(display_name="MODEL", tooltip="The model, to be sampled on several devices.")],
            hidden=_hidden(),
        )

    @classmethod
    def execute(cls, model, plan=None, devices=None, picture=SAME) -> io.NodeOutput:
        acceleration = _acceleration(cls, model, plan, devices, picture)
        return io.NodeOutput(acceleration.apply(model))
