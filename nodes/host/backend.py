"""ComfyUI's model inside a worker process."""

from __future__ import annotations

from collections.abc import Sequence


class ComfyBackend:
    """A Backend (hybridiff_core/workers/loop.py) that answers as the host's calc_cond_batch would.

    recipe: {"model": recipe.recipe_of's; "args": the settings to make it with, settings.read_args's}.
    run: {"conds": cond lists, None for a cond that stays in the parent; "controls": the chains that
    conds name by their place; "options": plain transformer_options; "shape": the latent's; "settings":
    settings.read's}. `start` is start_frame's (leases.py), `remarks` what users must know of this process.
    """

    def __init__(self, start: dict, remarks: Sequence[str] = ()) -> None:
        # only now: the settings must be laid before (headless.py)
        import comfy.model_management
        import comfy.sampler_helpers
        import comfy.samplers
        import torch

        from . import content, inner_options
        from .block_hooks import offer, withdraw
        from .conditioning import KINDS
        from .cuts import hooked, splitter_for
        from .files import located
        from .kitchen import Kitchen
        from .loaders import model_folders
        from .recipe import ADAPTER_KINDS
        from .rounding import is_dynamic
        from .rows import of_rows
        from .settings import lay, lay_args
        from .state import Watching

        self._comfy, self._told, self.remarks = comfy, start["device"], list(remarks)
        self.device: torch.device = comfy.model_management.get_torch_device()
        self.kinds = KINDS | ADAPTER_KINDS
        self._machine = start.get("machine")  # its name, where ComfyUI's process is on another one
        self._folders = model_folders() if self._machine else start["model_folders"]
        self._located = located
        self._kitchen = Kitchen(self._folders)
        self._made_with: dict | None = None
        self._hooked, self._splitter_for, self._is_dynamic = hooked, splitter_for, is_dynamic
        self._offer, self._withdraw, self._inner = offer, withdraw, inner_options
        self._lay, self._lay_args, self._of_rows = lay, lay_args, of_rows
        self._patcher = self._model = self._loaded = self._splitter = None
        self._content, self._watches = content, Watching
        self._watching: Watching | None = None  # of a model that was made by its graph
        self._calculate = comfy.samplers.calc_cond_batch
        self._own: dict = {}  # the options that the model came with: code, where it was made by its graph
        self._options: dict = {}  # those, as a run has them
        self._conds: list[list[dict | None]] = []
        self._controls: list = []

    def load(self, recipe: dict) -> dict:
        # let go of the old model before reading another; a splitter holds its network
        self._patcher = self._model = self._loaded = self._splitter = None
        self._lay_args(recipe["args"], self._told)
        if recipe["args"] != self._made_with:  # the network's operations and number format hang on them
            self._kitchen.clear()
            self._made_with = recipe["args"]
        model = self._located(recipe["model"], self._folders, self._machine) if self._machine else recipe["model"]
        self._patcher, anew = self._kitchen.make(model)
        self._own = self._patcher.model_options  # a run's take its place
        self._leaves = self._content.of_model(self._patcher) if recipe["model"]["graph"] else None
        self._offer(self._patcher)
        dtype = self._patcher.get_model_object("manual_cast_dtype") or self._patcher.model.get_dtype()
        refused, holds = self._kitchen.refusals, self._kitchen.held
        told = {"dtype": str(dtype).removeprefix("torch."), "dynamic": self._is_dynamic(self._patcher)}
        return {"read_anew": anew, **told, "refused": refused, "holds": holds, "details": self._kitchen.account}

    def begin(self, run: dict, fresh: bool) -> None:
        self._lay(run["settings"], self._told)
        self._let_go_of_controls()
        self._controls = [self._kitchen.networks.chain(links) for links in run["controls"]]
        self._conds = [
            [cond and {**cond, "control": self._controls[cond["control"]]} if "control" in (cond or ()) else cond
             for cond in conds]
            for conds in run["conds"]
        ]  # fmt: skip
        crossed = {str(branch): [c for c in conds if c] for branch, conds in enumerate(self._conds)}
        if fresh:
            self._options = self._inner.prepared(self._patcher, self._own, crossed)
        self._patcher.model_options = self._inner.laid(self._options, run["options"])
        if fresh:
            self._model, _, self._loaded = self._comfy.sampler_helpers.prepare_sampling(
                self._patcher, run["shape"], crossed, self._patcher.model_options
            )
            self._inner.to_device(self._options, self._patcher)
            self._patcher.pre_run()
            self._watch()
            self._splitter = self._splitter_for(self._model.diffusion_model)
        for control in self._controls:
            control.pre_run(self._model, self._model.model_sampling.percent_to_sigma)

    def predict(self, x, sigma, units: Sequence[tuple[int, int]], through=None, rows=None) -> list:
        lists: list[list[dict] | None] = [None] * len(self._conds)
        for branch, index in units:
            lists[branch] = (lists[branch] or []) + [self._conds[branch][index]]
        options = self._patcher.model_options
        if through is not None:
            options = self._hooked(options, self._splitter, through)
        out = self._calculate(self._model, self._of_rows(lists, rows), x, sigma, options)
        return [out[branch] for branch in sorted({branch for branch, _ in units})]

    @property
    def doubt(self) -> str | None:
        return self._watching and self._watching.fault

    def _watch(self) -> None:
        """From now on see what code of other nodes in the network keeps from call to call."""
        self._watching = self._leaves and self._watches(self._patcher, self._leaves)
        plain = self._comfy.samplers.calc_cond_batch
        self._calculate = self._watching.around(plain) if self._watching else plain

    def end(self) -> None:
        if self._loaded is not None:
            self._patcher.cleanup()
            self._patcher.eject_model()  # another clone of the model may be next
            self._withdraw(self._patcher)
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
        self._patcher = self._model = self._loaded = self._splitter = None
        self._conds = []
        self._comfy.model_management.unload_all_models()
        self._kitchen.clear()
        self._comfy.model_management.soft_empty_cache()
