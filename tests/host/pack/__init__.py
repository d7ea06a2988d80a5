"""Nodes that only the host tests use: conditioning without a text encoder, checkpoints without a VAE."""

import json
import os
import random
import sys
import time
import types
from pathlib import Path
from typing import ClassVar

import comfy.clip_vision
import comfy.latent_formats
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.supported_models
import comfy.utils
import folder_paths
import torch
from aiohttp import web
from server import PromptServer

from .changes import TestSilentChange
from .others import TestOtherControl, TestOtherPack, TestReportOf
from .reported import TestDuckControl, TestGuider, loaded


@PromptServer.instance.routes.post("/tests/restart")
async def restart(request):
    """Restart as ComfyUI-Manager does (manager_server.py, /manager/reboot): no answer, no atexit, the same pid."""
    os.execv(sys.executable, [sys.executable, *sys.argv])


@PromptServer.instance.routes.get("/tests/loaded")
async def count_loaded(request):
    """How many models ComfyUI has loaded."""
    return web.json_response({"loaded": loaded()})


@PromptServer.instance.routes.post("/tests/family/{name}")
async def make_family(request):
    """Make a family's model file if it is not there; here, for a process of its own would begin by importing torch."""
    root, name = str(Path(comfy.sd.__file__).resolve().parent.parent), request.match_info["name"]
    model = families().FAMILIES[name].model
    if model and not hasattr(comfy.supported_models, model):
        return web.json_response({"error": "not in this version"}, status=404)
    families().make(root, folder_paths.models_dir, name)
    return web.json_response({})


class TestConditioning:
    """Seeded random conditioning: [1, tokens, width] and a pooled vector."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "make", ("CONDITIONING",)

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "seed": ("INT", {"default": 0}),
                "tokens": ("INT", {"default": 16}),
                "width": ("INT", {"default": 4096}),
                "pooled": ("INT", {"default": 2048}),
            }
        }

    def make(self, seed, tokens, width, pooled):
        generator = torch.Generator().manual_seed(seed)
        text = torch.randn(1, tokens, width, generator=generator)
        return ([[text, {"pooled_output": torch.randn(1, pooled, generator=generator)}]],)


def families():
    """tests/host/families.py, whatever the name of this pack's own module."""
    if "hybridiff_tests_host" not in sys.modules:
        package = sys.modules["hybridiff_tests_host"] = types.ModuleType("hybridiff_tests_host")
        package.__path__ = [str(Path(__file__).resolve().parent.parent)]
    import hybridiff_tests_host.families as found

    return found


class TestFamilyConditioning:
    """A random conditioning such as the text encoder and the nodes of a family give."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "make", ("CONDITIONING",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"family": ("STRING",), "seed": ("INT", {"default": 0})}}

    def make(self, family, seed):
        return (families().conditioning(families().FAMILIES[family], seed),)


class TestFamilyLatent:
    """A seeded random latent of a family's shape."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "make", ("LATENT",)

    @classmethod
    def INPUT_TYPES(cls):
        seed, batch = ("INT", {"default": 0}), ("INT", {"default": 1})
        return {"required": {"family": ("STRING",), "seed": seed}, "optional": {"batch": batch}}

    def make(self, family, seed, batch=1):
        generator = torch.Generator().manual_seed(seed)
        return ({"samples": families().latent(families().FAMILIES[family], generator, batch)},)


class TestPlainLatent:
    """A nested latent's parts in one row, to be saved."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "pack", ("LATENT",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"latent": ("LATENT",)}}

    def pack(self, latent):
        parts = latent["samples"].unbind()
        return ({"samples": torch.cat([part.flatten(1) for part in parts], dim=1)},)


class TestNarrowModel:
    """A family's model that the host would not know from its file (families.py)."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "load", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"family": ("STRING",)}}

    def load(self, family):
        root = str(Path(comfy.sd.__file__).resolve().parent.parent)
        path = families().make(root, folder_paths.models_dir, family)
        return (families().load_narrow(path, families().FAMILIES[family]),)


class TestLatent:
    """A seeded random latent image."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "make", ("LATENT",)

    @classmethod
    def INPUT_TYPES(cls):
        names = {"seed": 0, "channels": 16, "size": 16, "batch": 1}
        return {"required": {name: ("INT", {"default": default}) for name, default in names.items()}}

    def make(self, seed, channels, size, batch):
        generator = torch.Generator().manual_seed(seed)
        return ({"samples": torch.randn(batch, channels, size, size, generator=generator)},)


class TestMask:
    """A mask [1, size, size] with its left half set."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "make", ("MASK",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"size": ("INT", {"default": 128})}}

    def make(self, size):
        mask = torch.zeros(1, size, size)
        mask[:, :, : size // 2] = 1.0
        return (mask,)


class TestImage:
    """A seeded random picture [batch, size, size, 3]."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "make", ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                name: ("INT", {"default": value}) for name, value in (("seed", 0), ("size", 128), ("batch", 1))
            }
        }

    def make(self, seed, size, batch):
        return (torch.rand(batch, size, size, 3, generator=torch.Generator().manual_seed(seed)),)


class TestCheckpoint:
    """CheckpointLoaderSimple's model, for a file that has neither a text encoder nor a VAE."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "load", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"ckpt_name": (folder_paths.get_filename_list("checkpoints"),)}}

    def load(self, ckpt_name):
        path = folder_paths.get_full_path_or_raise("checkpoints", ckpt_name)
        return (comfy.sd.load_checkpoint_guess_config(path, output_vae=False, output_clip=False)[0],)


class Packed(torch.Tensor):
    """A matrix in eight bits with its rows' scales, as a GGUF loader keeps it: a tensor of a class of its own."""

    @staticmethod
    def pack(weight):
        scale = weight.abs().amax(1, keepdim=True) / 127
        packed = (weight / scale).round().to(torch.int8).as_subclass(Packed)
        packed.scale = scale
        return packed

    def detach(self):
        return self

    def to(self, *args, **kwargs):
        return self

    def unpacked(self):
        return self.as_subclass(torch.Tensor).to(self.scale.dtype) * self.scale


class PackedOps(comfy.ops.manual_cast):
    """Layers that unpack their matrix at each call."""

    class Linear(comfy.ops.manual_cast.Linear):
        def _load_from_state_dict(self, state_dict, prefix, *rest):
            super()._load_from_state_dict(state_dict, prefix, *rest)
            if isinstance(packed := state_dict.get(f"{prefix}weight"), Packed):
                self.weight = torch.nn.Parameter(packed, requires_grad=False)

        def forward_comfy_cast_weights(self, x, *args, **kwargs):
            if not isinstance(self.weight, Packed):
                return super().forward_comfy_cast_weights(x, *args, **kwargs)
            return torch.nn.functional.linear(x, self.weight.unpacked().to(x.dtype), self.bias)


class PackedPatcher(comfy.model_patcher.ModelPatcher):
    """A patcher with code of its own."""


def load_recorded(path, options=None, change=None):
    """A loader of a pack, which the model remembers."""
    weights, metadata = comfy.utils.load_torch_file(path, return_metadata=True)
    model = comfy.sd.load_diffusion_model_state_dict(weights, model_options=dict(options or {}), metadata=metadata)
    if change is not None:
        change_weights(model)
    model.cached_patcher_init = (load_recorded, (path, options, change))
    return model


def change_weights(model):
    for name, weight in model.model.diffusion_model.named_parameters():
        if name.endswith(".attn.qkv.weight"):
            weight.mul_(0.5)


class TestOwnLoader:
    """A diffusion model as loaders of other packs give it: `how` is one of the cases of test_loaders.py."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "load", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"file": ("STRING",), "how": ("STRING", {"default": "plain"})}}

    def load(self, file, how):
        path = folder_paths.get_full_path_or_raise("diffusion_models", file)
        if how == "replaced method":
            model = comfy.sd.load_diffusion_model(path)
            network = model.model.diffusion_model
            network.forward = lambda *args, **kwargs: 0.9 * type(network).forward(network, *args, **kwargs)
            return (model,)
        if how.startswith("recorded"):
            model = load_recorded(path, {"dtype": torch.float16} if how == "recorded, fp16" else {})
            if how == "recorded, changed weights":
                change_weights(model)
            if how == "recorded, more than a file":
                model = load_recorded(path, {}, "halved")
            return (model,)
        weights, options = comfy.utils.load_torch_file(path), {}
        if how.startswith("packed"):
            names = [name for name in weights if name.endswith((".mlp.fc1.weight", ".attn.qkv.weight"))]
            weights |= {name: Packed.pack(weights[name]) for name in names}
            options = {"custom_operations": PackedOps}
        if how == "own operations":
            options = {"custom_operations": PackedOps}
        model = comfy.sd.load_diffusion_model_state_dict(weights, model_options=options)
        if how == "changed weights":
            change_weights(model)
        if how == "packed, patcher of its own":
            model = PackedPatcher(model.model, model.load_device, model.offload_device)
        return (model,)


class TestVision:
    """What a picture encoder gives, seeded random."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "make", ("CLIP_VISION_OUTPUT",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"seed": ("INT", {"default": 0})}}

    def make(self, seed):
        generator = torch.Generator().manual_seed(seed)
        output = comfy.clip_vision.Output()
        output.image_embeds = torch.randn(1, 768, generator=generator)
        output.last_hidden_state = torch.randn(1, 9, 1152, generator=generator)
        return (output,)


class TestPictureEncoder:
    """A picture encoder of the host's own class, small, its weights seeded random; and what it needs to be loaded."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "make", ("CLIP_VISION",)
    CONFIG: ClassVar[dict] = {
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128,
        "projection_dim": 48, "image_size": 224, "patch_size": 14, "num_channels": 3, "hidden_act": "quick_gelu",
        "model_type": "clip_vision_model",
    }  # fmt: skip

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"seed": ("INT", {"default": 0})}}

    def make(self, seed):
        encoder = comfy.clip_vision.ClipVisionModel(self.CONFIG)
        generator = torch.Generator().manual_seed(seed)
        for name, weight in sorted(encoder.model.named_parameters()):
            norm = weight.ndim == 1 and name.endswith("weight")
            weight.data = 0.05 * torch.randn(weight.shape, generator=generator).to(weight.dtype) + norm
        return (encoder,)


class TestEntries:
    """A conditioning with more entries, as the SDXL text nodes add widths and heights."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "add", ("CONDITIONING",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"conditioning": ("CONDITIONING",), "entries": ("STRING", {"default": "{}"})}}

    def add(self, conditioning, entries):
        return ([[text, {**more, **json.loads(entries)}] for text, more in conditioning],)


class TestMissingFile:
    """The model as if its file had been deleted after ComfyUI read it."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "lose", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}}

    def lose(self, model):
        model = model.clone()
        function, arguments = model.cached_patcher_init[:2]
        model.cached_patcher_init = (function, (arguments[0] + ".gone", *arguments[1:]))
        return (model,)


class TestHooks:
    """Pre-CFG, CFG and post-CFG hooks that change the prediction by what they are shown."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "hook", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}}

    def hook(self, model):
        model = model.clone()
        model.set_model_sampler_pre_cfg_function(lambda args: [out * 1.01 for out in args["conds_out"]])
        model.set_model_sampler_cfg_function(
            lambda args: args["uncond"] + (args["cond"] - args["uncond"]) * (args["cond_scale"] - 0.5)
        )
        model.set_model_sampler_post_cfg_function(
            lambda args: 0.9 * args["denoised"] + 0.1 * args["cond_denoised"] - 0.01 * args["uncond_denoised"]
        )
        return (model,)


class TestAttentionPatch:
    """A patch with code in it inside the network."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "patch", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}}

    def patch(self, model):
        model = model.clone()
        model.set_model_attn1_patch(lambda q, k, v, options: (q, k, v))
        return (model,)


class Untold:
    """An object with code, of a pack."""

    def __call__(self):
        return 1


class TestOptions:
    """A sampler's or a node's values among the options: "attention", "unread" ones, or a "wrong" one that is read."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "put", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "what": ("STRING", {"default": "unread"})}}

    def put(self, model, what):
        model = model.clone()
        options = model.model_options["transformer_options"]
        if what == "attention":
            options["optimized_attention_override"] = lambda function, *args, **kwargs: function(*args, **kwargs)
        elif what == "unread":
            options |= {"ExtraOptions": Untold(), "model_sampling": model.get_model_object("model_sampling")}
        else:
            options["rope_options"] = {"scale_x": Untold()}
        return (model,)


class TestOwnObjects:
    """What IC-Light and Playground nodes replace in a model: its "extra_conds", or its "latent_format"."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "put", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "what": ("STRING", {"default": "extra_conds"})}}

    def put(self, model, what):
        model = model.clone()
        if what == "latent_format":
            value = comfy.latent_formats.SD3()
            value.scale_factor *= 0.8
        else:

            def extra_conds(network, **given):
                found = type(network).extra_conds(network, **given)
                found["c_crossattn"] = found["c_crossattn"]._copy_with(0.5 * found["c_crossattn"].cond)
                return found

            value = types.MethodType(extra_conds, model.model)
        model.add_object_patch(what, value)
        return (model,)


class TestSplitOfTheHost:
    """The mark that the host's MultiGPU CFG Split leaves where it finds a second GPU: a model of the key "multigpu"."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "split", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}}

    def split(self, model):
        model = model.clone()
        model.set_additional_models("multigpu", [model.clone()])
        return (model,)


class TestPlan:
    """A plan as another release might have made it."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "make", ("HYBRIDIFF_PLAN",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"version": ("INT", {"default": 99})}}

    def make(self, version):
        return ({"version": version, "mode": "auto"},)


class TestValue:
    """Any JSON value, for any input."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "make", ("*",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"text": ("STRING", {"default": "null"})}}

    def make(self, text):
        return (json.loads(text),)


class TestSpoilt:
    """A latent with `value` in its first place."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "spoil", ("LATENT",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"latent": ("LATENT",), "value": ("FLOAT", {"default": 0.0})}}

    def spoil(self, latent, value):
        samples = latent["samples"].clone()
        samples.view(-1)[0] = value
        return ({"samples": samples},)


class TestSigmas:
    """Sigmas as given, in any order."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "make", ("SIGMAS",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"text": ("STRING", {"default": "[]"})}}

    def make(self, text):
        return (torch.tensor(json.loads(text), dtype=torch.float32),)


class TestModelWithoutWeights:
    """A model patcher around a module that has no network in it."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "make", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def make(self):
        device = torch.device("cpu")
        return (comfy.model_patcher.ModelPatcher(torch.nn.Module(), device, device),)


class TestModelAt:
    """The host's own loading of a file anywhere."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "load", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"path": ("STRING",)}}

    def load(self, path):
        return (comfy.sd.load_diffusion_model(path),)


class TestHuge:
    """The model, said to be larger than any machine's memory."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "enlarge", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}}

    def enlarge(self, model):
        model = model.clone()
        model.size = 1 << 50
        return (model,)


class TestReserved:
    """From now on so many bytes are to be left free beside a model, as with --reserve-vram."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "tests", "reserve", (), True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"bytes": ("INT", {"max": 1 << 50})}}

    def reserve(self, bytes):
        comfy.model_management.EXTRA_RESERVED_VRAM = bytes
        return {}


class TestFreed:
    """The latent, after the host made room for another model, or after a node unloaded every model."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "free", ("LATENT",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"latent": ("LATENT",), "how": (["room", "all"],), "turn": ("INT", {"default": 0})}}

    def free(self, latent, how, turn):
        management = comfy.model_management
        if how == "room":
            # as load_models_gpu does for a model that is larger than what is free
            management.free_memory(1e15, management.get_torch_device())
        else:
            management.unload_all_models()
        assert not management.loaded_models()
        return (latent,)


@PromptServer.instance.routes.get("/hybridiff_tests/events/{which}")
async def switch_events(request):
    """Send all of the pack's step events from now on, none, or a random half of them (all, none, half).

    Answers with [when it was a step's turn to be told, whether the draw said so, seconds it took] since the last time.
    """
    (events,) = [found for name, found in sys.modules.items() if name.endswith("hybridiff.nodes.host.events")]
    send = events.__dict__.setdefault("untimed", events.StepEvents._send)
    turns = events.__dict__.setdefault("turns", [])
    which, answer = request.match_info["which"], web.json_response(list(turns))
    turns.clear()

    def drawn(self, done):
        started, told = time.perf_counter(), random.random() < 0.5
        if which == "all" or (which == "half" and (told or done)):
            send(self, done)
        if not done:
            turns.append((started, told, time.perf_counter() - started))

    events.StepEvents._send = drawn
    return answer


NODE_CLASS_MAPPINGS = {
    cls.__name__: cls
    for cls in (
        TestConditioning,
        TestImage,
        TestFamilyConditioning,
        TestFamilyLatent,
        TestPlainLatent,
        TestNarrowModel,
        TestLatent,
        TestMask,
        TestCheckpoint,
        TestOwnLoader,
        TestVision,
        TestPictureEncoder,
        TestEntries,
        TestMissingFile,
        TestHooks,
        TestAttentionPatch,
        TestOptions,
        TestOwnObjects,
        TestSplitOfTheHost,
        TestPlan,
        TestValue,
        TestSpoilt,
        TestSigmas,
        TestModelWithoutWeights,
        TestModelAt,
        TestFreed,
        TestHuge,
        TestReserved,
        TestOtherControl,
        TestOtherPack,
        TestGuider,
        TestDuckControl,
        TestReportOf,
        TestSilentChange,
    )
}
