"""Nodes that patch a model in the ways that packs do."""

import os
import types

import torch
from comfy.patcher_extension import CallbacksMP, PatcherInjection, WrappersMP

SEEN = {"calls": 0}  # by global_state


def patched(model, patch):
    model.set_model_attn1_output_patch(patch)


class Block:
    """Attention outputs a little smaller, by an object with a method."""

    def __init__(self, scale):
        self.scale, self.calls, self.made = scale, 0, None

    def __call__(self, out, options):
        return out * self.scale

    def counting(self, out, options):
        self.calls += 1
        return out * (self.scale if self.calls % 2 else 1.0)

    def ready(self, out, options):
        if self.made is None:
            self.made = torch.full((1,), self.scale)
        return out * self.made


def closure_state(model, scale):
    last = None

    def keep(out, options):
        nonlocal last
        mixed = out if last is None or last.shape != out.shape else 0.9 * out + 0.1 * last
        last = out
        return mixed

    patched(model, keep)


def attribute_state(model, scale):
    patched(model, Block(scale).counting)


def global_state(model, scale):
    def count(out, options):
        SEEN["calls"] += 1
        return out * (scale if SEEN["calls"] % 2 else 1.0)

    patched(model, count)


def network_state(model, scale):
    network = model.model.diffusion_model
    reset = lambda patcher: setattr(network, "kept_by_a_pack", 0)  # noqa: E731
    model.add_callback_with_key(CallbacksMP.ON_PRE_RUN, "pack", reset)

    def hang(out, options):
        network.kept_by_a_pack += 1
        return out * (1 + 0.01 * network.kept_by_a_pack)

    patched(model, hang)


def late_state(model, scale):
    """Keeps something from the fourth call on, as caches do that begin at a percentage of the steps."""
    kept = {}

    def late(out, options):
        if float(options["sigmas"][0]) > 2.0:
            return out
        key = (options["block"], tuple(options["cond_or_uncond"]))
        before, kept[key] = kept.get(key), out
        return out if before is None else 0.5 * (before + out)

    patched(model, late)


def late_for_one(model, scale):
    """What self-attention guidance does, from a later call on: the negative prompt's forward leaves something."""
    kept = {}

    def late(out, options):
        numbers = list(options["cond_or_uncond"])
        if 1 in numbers and float(options["sigmas"][0]) < 2.0:
            kept["seen"] = out.chunk(len(numbers))[numbers.index(1)].mean()
        return out

    patched(model, late)
    model.set_model_sampler_post_cfg_function(lambda args: args["denoised"] * (1 + 0.1 * kept.get("seen", 0)))


def by_batch(model, scale):
    """A mean over all that is computed at once, both prompts of a step."""
    patched(model, lambda out, options: out * (scale + out.abs().mean()))


def random_patch(model, scale):
    patched(model, lambda out, options: out * (1 + 0.01 * torch.rand(1).item()))


def other_each_time(model, scale):
    """By no generator that anybody knows of."""
    patched(model, lambda out, options: out * (1 + 0.05 * os.urandom(1)[0] / 255))


def object_patch(model, scale):
    patched(model, Block(scale))


def ready_once(model, scale):
    patched(model, Block(scale).ready)


def between_blocks(model, scale):
    """Every other token of a transformer's, behind each block, and once more within the next."""

    def patch(args):
        args["img"][:, ::2] *= scale
        return args

    def inside(args):
        frames = args["transformer_options"]["grid_sizes"][0]
        by_frame = args["x"].unflatten(1, (frames, -1))
        return (by_frame * torch.linspace(scale, 1.0, frames).view(-1, 1, 1)).flatten(1, 2)

    model.set_model_double_block_patch(patch)
    model.set_model_patch(inside, "attn2_patch")


def by_branch(model, scale):
    """Each branch otherwise, by the host's number of it."""

    def patch(out, options):
        numbers = options["cond_or_uncond"]
        factors = torch.tensor([scale if number else 1.0 for number in numbers]).repeat_interleave(
            len(out) // len(numbers)
        )
        return out * factors.view(-1, 1, 1)

    patched(model, patch)


def function_wrapper(model, scale):
    model.set_model_unet_function_wrapper(lambda run, args: scale * run(args["input"], args["timestep"], **args["c"]))


def network_wrapper(model, scale):
    def wrapper(executor, *args, **kwargs):
        return scale * executor(*args, **kwargs)

    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "pack", wrapper)


def injection(model, scale):
    """Weights changed for the time of a run, and taken back: by a power of two, which leaves no rounding behind."""
    scale = 0.5 if scale > 0.85 else 0.25

    def inject(patcher):
        for block in patcher.model.diffusion_model.input_blocks[:2]:
            for weight in block.parameters():
                weight.data.mul_(scale)

    def eject(patcher):
        for block in patcher.model.diffusion_model.input_blocks[:2]:
            for weight in block.parameters():
                weight.data.div_(scale)

    model.set_injections("pack", [PatcherInjection(inject, eject)])


def callback(model, scale):
    """An option that a callback sets for the patch, when a run begins."""
    box = {"scale": 1.0}
    model.add_callback_with_key(CallbacksMP.ON_PRE_RUN, "pack", lambda patcher: box.update(scale=scale))
    patched(model, lambda out, options: out * box["scale"])


def around_sampling(model, scale):
    """A wrapper around the sampling, and one around predictions: for this process alone."""
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "pack", lambda run, *args, **kwargs: run(*args, **kwargs))
    model.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "pack", lambda run, *args: scale * run(*args))
    patched(model, Block(scale))


def at_run(model, scale):
    """Something put into the options while the sampling runs, as packs do around it."""

    def outer(run, *args, **kwargs):
        inner = run.class_obj.model_options["transformer_options"]
        inner.setdefault("patches", {})["attn1_output_patch"] = [Block(scale)]
        return run(*args, **kwargs)

    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "pack", outer)
    patched(model, Block(scale))


def swapped(model, scale):
    """The class of every attention exchanged for one of this pack's."""
    for module in model.model.diffusion_model.modules():
        if type(module).__name__ == "CrossAttention":
            base = type(module)
            module.__class__ = type("Scaled", (base,), {"forward": scaled_forward(base, scale), "__module__": __name__})
    model.set_model_attn1_output_patch(lambda out, options: out)


def scaled_forward(base, scale):
    return lambda self, *args, **kwargs: scale * base.forward(self, *args, **kwargs)


def attentions(model):
    return [
        (f"diffusion_model.{name}", module)
        for name, module in model.model.diffusion_model.named_modules()
        if type(module).__name__ == "CrossAttention"
    ]


def method_patch(model, scale):
    """The forward of every attention replaced for the time of a run, by the host's patcher."""
    for name, module in attentions(model):
        model.add_object_patch(f"{name}.forward", types.MethodType(scaled_forward(type(module), scale), module))


def class_patch(model, scale):
    """The class of every attention exchanged for the time of a run, by the host's patcher."""
    for name, module in attentions(model):
        base = type(module)
        cls = type("Scaled", (base,), {"forward": scaled_forward(base, scale), "__module__": __name__})
        model.add_object_patch(f"{name}.__class__", cls)


def only_here(model, scale):
    """Fails everywhere but in ComfyUI's own process."""
    import comfy.cli_args

    if comfy.cli_args.args.disable_all_custom_nodes:
        raise OSError("no such luck")
    patched(model, Block(scale))


def other_there(model, scale):
    """Another patch in a worker: as a pack may that reads something of its process."""
    import comfy.cli_args

    patched(model, Block(scale if not comfy.cli_args.args.disable_all_custom_nodes else 1.5))


WAYS = {
    function.__name__: function
    for function in (
        closure_state, attribute_state, global_state, network_state, late_state, late_for_one, random_patch,
        by_batch, other_each_time, object_patch, ready_once, by_branch, between_blocks, function_wrapper,
        network_wrapper, injection, callback, around_sampling, at_run, swapped, method_patch, class_patch, only_here,
        other_there,
    )
}  # fmt: skip


class PackPatch:
    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "patch", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "way": (list(WAYS),), "scale": ("FLOAT", {"default": 0.9})}}

    def patch(self, model, way, scale):
        model = model.clone()
        WAYS[way](model, scale)
        return (model,)


class PackNeverTheSame(PackPatch):
    @classmethod
    def IS_CHANGED(cls, **_):
        return float("nan")


class PackSaves(PackPatch):
    """An output node, as previews that pass a model on are."""

    OUTPUT_NODE = True


class PackList:
    """Two models in a list."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_IS_LIST = "tests", "list", ("MODEL",), (True,)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}}

    def list(self, model):
        models = [model.clone(), model.clone()]
        for one, scale in zip(models, (0.9, 0.8)):
            patched(one, Block(scale))
        return (models,)


class PackExpands:
    """Comes to be made of other nodes: of ComfyUI's and of this pack's."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "expand", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "scale": ("FLOAT", {"default": 0.9})}}

    def expand(self, model, scale):
        from comfy_execution.graph_utils import GraphBuilder

        graph = GraphBuilder()
        merged = graph.node("FreeU", model=model, b1=1.1, b2=1.2, s1=0.9, s2=0.2)
        patched = graph.node("PackPatch", model=merged.out(0), way="object_patch", scale=scale)
        return {"result": (patched.out(0),), "expand": graph.finalize()}


class PackSamples:
    """Comes to be made of nodes one of which is ours."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "expand", ("LATENT", "HYBRIDIFF_REPORT")
    MODEL = ("MODEL", {"rawLink": True})

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "model": cls.MODEL, "positive": ("CONDITIONING",), "negative": ("CONDITIONING",),
                "latent": ("LATENT",), "settings": ("STRING",), "devices": ("HYBRIDIFF_DEVICES",),
                "plan": ("HYBRIDIFF_PLAN",),
            }
        }  # fmt: skip

    def expand(self, model, positive, negative, latent, settings, devices, plan):
        import json

        from comfy_execution.graph_utils import GraphBuilder

        graph = GraphBuilder()
        given = graph.node("PackPass", model=model)
        inner = graph.node(
            "HybridiffKSampler", model=given.out(0), positive=positive, negative=negative,
            latent_image=latent, devices=devices, plan=plan, **json.loads(settings),
        )  # fmt: skip
        return {"result": (inner.out(0), inner.out(1)), "expand": graph.finalize()}


class PackSamplesObjects(PackSamples):
    """It hands the model itself on, as loops do."""

    MODEL = ("MODEL",)


class PackPass:
    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "go", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}}

    def go(self, model):
        return (model,)


class PackFromWorkflow(PackPatch):
    """The scale from the workflow that the page sent along, which a node is given by a hidden input."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}, "hidden": {"info": "EXTRA_PNGINFO", "id": "UNIQUE_ID"}}

    def patch(self, model, info=None, id=None):
        return super().patch(model, "object_patch", float(info["workflow"]["scale"]))


class PackCompiles:
    """The host's TorchCompileModel with backends that need no compiler of C++."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "patch", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "backend": ("STRING",)}}

    def patch(self, model, backend):
        from comfy_api.torch_helpers import set_torch_compile_wrapper

        model = model.clone()
        set_torch_compile_wrapper(model=model, backend=backend)
        return (model,)


NODE_CLASS_MAPPINGS = {
    cls.__name__: cls
    for cls in (
        PackPatch, PackNeverTheSame, PackSaves, PackList, PackExpands, PackSamples, PackSamplesObjects, PackPass,
        PackFromWorkflow, PackCompiles,
    )
}  # fmt: skip
