"""ComfyUI's model inside a worker process."""

from __future__ import annotations

import sys
from collections.abc import Sequence

# flags of the host's command line that change numbers, memory or speed of a forward pass
CROSSING_FLAGS = (
    "cpu",
    "force_fp32",
    "force_fp16",
    "fp32_unet",
    "fp64_unet",
    "bf16_unet",
    "fp16_unet",
    "fp8_e4m3fn_unet",
    "fp8_e5m2_unet",
    "fp8_e8m0fnu_unet",
    "supports_fp8_compute",
    "use_split_cross_attention",
    "use_quad_cross_attention",
    "use_pytorch_cross_attention",
    "use_sage_attention",
    "use_flash_attention",
    "disable_xformers",
    "force_upcast_attention",
    "dont_upcast_attention",
    "force_channels_last",
    "enable_triton_backend",
    "disable_triton_backend",
    "deterministic",
    "fast",
    "gpu_only",
    "highvram",
    "lowvram",
    "novram",
    "reserve_vram",
    "async_offload",
    "disable_async_offload",
    "disable_pinned_memory",
    "disable_mmap",
    "mmap_torch_files",
    "force_non_blocking",
)


def flags_to_plain(args: object) -> dict:
    """The host's flags as JSON; enum sets (--fast) by their values."""
    plain = {name: getattr(args, name) for name in CROSSING_FLAGS if hasattr(args, name)}
    # packs put values of their own beside the host's
    plain["fast"] = sorted(feature.value for feature in args.fast if hasattr(feature, "value"))
    return plain


def enter_host(start: dict) -> None:
    """Make ComfyUI importable and give it the parent's flags, before anything of it is imported.

    A process that imports comfy without main.py reads no command line, so the flags are set here.
    """
    sys.path.insert(0, start["root"])
    import comfy.cli_args

    args = comfy.cli_args.args
    for name in CROSSING_FLAGS:
        if name in start["flags"]:
            setattr(args, name, start["flags"][name])
    args.fast = {comfy.cli_args.PerformanceFeature(value) for value in start["flags"]["fast"]}
    args.cpu = start["device"] == "cpu"


class ComfyBackend:
    """A Backend (hybridiff_core/workers/loop.py) that answers as the host's calc_cond_batch would.

    run: {"conds": cond lists, None for a cond that stays in the parent; "controls": the chains that
    conds name by their place; "options": plain transformer_options; "shape": the latent's}.
    """

    def __init__(self, model_folders: Sequence[str]) -> None:
        # only now: the flags must be set before
        import comfy.model_management
        import comfy.sampler_helpers
        import comfy.samplers
        import torch

        from .conditioning import KINDS
        from .cuts import hooked, splitter_for
        from .kitchen import Kitchen
        from .recipe import ADAPTER_KINDS

        self._comfy = comfy
        self.device: torch.device = comfy.model_management.get_torch_device()
        self.kinds = KINDS | ADAPTER_KINDS
        self._kitchen = Kitchen(model_folders)
        self._hooked, self._splitter_for = hooked, splitter_for
        self._patcher = self._model = self._loaded = self._splitter = None
        self._conds: list[list[dict | None]] = []
        self._controls: list = []

    def load(self, recipe: dict) -> dict:
        # let go of the old model before reading another; a splitter holds its network
        self._patcher = self._model = self._loaded = self._splitter = None
        self._patcher, anew = self._kitchen.make(recipe)
        dtype = self._patcher.get_model_object("manual_cast_dtype") or self._patcher.model.get_dtype()
        refused = self._kitchen.refusals
        return {"read_anew": anew, "dtype": str(dtype).removeprefix("torch."), "refused": refused}

    def begin(self, run: dict, fresh: bool) -> None:
        self._let_go_of_controls()
        self._controls = [self._kitchen.networks.chain(links) for links in run["controls"]]
        self._conds = [
            [cond and {**cond, "control": self._controls[cond["control"]]} if "control" in (cond or ()) else cond
             for cond in conds]
            for conds in run["conds"]
        ]  # fmt: skip
        self._patcher.model_options = {"transformer_options": run["options"]}
        if fresh:
            crossed = {str(branch): [c for c in conds if c] for branch, conds in enumerate(self._conds)}
            self._model, _, self._loaded = self._comfy.sampler_helpers.prepare_sampling(
                self._patcher, run["shape"], crossed, self._patcher.model_options
            )
            self._patcher.pre_run()
            self._splitter = self._splitter_for(self._model.diffusion_model)
        for control in self._controls:
            control.pre_run(self._model, self._model.model_sampling.percent_to_sigma)

    def predict(self, x, sigma, units: Sequence[tuple[int, int]], through=None) -> list:
        lists: list[list[dict] | None] = [None] * len(self._conds)
        for branch, index in units:
            lists[branch] = (lists[branch] or []) + [self._conds[branch][index]]
        options = self._patcher.model_options
        if through is not None:
            options = self._hooked(options, self._splitter, through)
        out = self._comfy.samplers.calc_cond_batch(self._model, lists, x, sigma, options)
        return [out[branch] for branch in sorted({branch for branch, _ in units})]

    def end(self) -> None:
        if self._loaded is not None:
            self._patcher.cleanup()
        self._loaded = None
        self._conds = []
        self._let_go_of_controls()

    def _let_go_of_controls(self) -> None:
        for control in self._controls:
            control.cleanup()
        self._controls = []

    def make_room(self) -> None:
        management = self._comfy.model_management
        of_run = [self._patcher, *(self._loaded or ())]
        kept = [loaded for loaded in management.current_loaded_models if loaded.model in of_run]
        management.free_memory(1e30, self.device, keep_loaded=kept)
        management.soft_empty_cache()
        # the host's estimate for the forward was too low: a part of the model goes to RAM
        self._patcher.partially_unload(self._patcher.offload_device, management.minimum_inference_memory())

    def unload(self) -> None:
        self._comfy.model_management.unload_all_models()
        self._comfy.model_management.soft_empty_cache()
