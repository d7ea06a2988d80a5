"""Runs with a worker that tells what it is (headless_worker.py). Run by ComfyUI's own Python.

    python headless.py COMFYUI_ROOT MODELS_FOLDER

Reads a case a line and prints a line of JSON for it: "alike", "changed", "unknown", "mainless", "memory", "gone" and a
plan's mode (and "joins"), or, with weights of 8 bits and a LoRA on them, "rounding" and "other rounding".
"""

import gc
import importlib
import json
import os
import runpy
import sys
import tempfile
import weakref
from pathlib import Path

PACK = Path(__file__).resolve().parents[2]


def enter(root: str):
    """Be a ComfyUI process, started with the flags below, whose workers run headless_worker.py."""
    os.environ["HYBRIDIFF_WAIT"] = "1"  # from the first step on, a worker has its part
    runpy.run_path(str(PACK / "nodes" / "host" / "worker.py"))["register_pack"]()
    sys.path.insert(0, root)
    import comfy.cli_args

    args = comfy.cli_args.args
    args.cpu = args.use_split_cross_attention = args.dont_upcast_attention = True
    args.listen, args.reserve_vram = "0.0.0.0", 0.5
    args.cuda_malloc = True  # ComfyUI sets it itself, by the GPU
    import torch

    torch.set_num_threads(1)
    from hybridiff_pack.hybridiff_core.workers import launch_local

    importlib.import_module("hybridiff_pack.nodes.host.acceleration")
    from hybridiff_pack.nodes import host

    launch_local.SCRIPTS = {"comfy": PACK / "tests" / "host" / "headless_worker.py"}
    return host


class Bench:
    """The small trained network, run by stock and by ours from the same noise."""

    def __init__(self, host, file: Path):
        import comfy.cli_args
        import comfy.sample
        import comfy.sd
        import comfy.utils
        import folder_paths
        import torch
        from hybridiff_pack.hybridiff_core.demo import text, trained
        from hybridiff_pack.hybridiff_core.plan import HybridPlan

        folder_paths.add_model_folder_path("diffusion_models", str(trained.FOLDER))
        self.host, self.torch, self.comfy, self.file = host, torch, comfy, file
        self.trained, self.plan = trained, HybridPlan(mode="exact")
        self.conds = [text.conditioning("a red apple"), text.conditioning("")]
        self.noise = torch.randn(1, *trained.LATENT, generator=torch.Generator().manual_seed(0))
        self.before = self.written()

    def written(self) -> set[str]:
        """What lies in the folder that workers start in, and in ComfyUI's own."""
        folders = (self.file.parent, sys.path[0], *(Path(sys.path[0]) / name for name in ("user", "output", "temp")))
        paths = {path for folder in folders for path in Path(folder).glob("*") if path.name != "__pycache__"}
        return {str(path) for path in paths - {self.file}}

    def load(self, dtype=None, lora: bool = False):
        model = self.comfy.sd.load_diffusion_model(str(self.trained.NETWORK), {"dtype": dtype} if dtype else {})
        if lora:
            weights = self.comfy.utils.load_torch_file(str(self.trained.NETWORK))
            model, _ = self.comfy.sd.load_lora_for_models(model, None, lora_for(self.torch, weights), 0.5, 0.0)
        return model

    def sample(self, model):
        empty, (positive, negative) = self.torch.zeros_like(self.noise), self.conds
        how = {"disable_pbar": True, "seed": 0}
        return self.comfy.sample.sample(model, self.noise, 8, 5.0, "euler", "simple", positive, negative, empty, **how)

    def ours(self, model):
        """A second run, for which the worker is ready: its latent, its report, and what the worker saw of itself."""
        acceleration = self.host.acceleration.Acceleration(self.plan, ("same",))
        accelerated = acceleration.apply(model)
        self.sample(accelerated)
        self.file.unlink(missing_ok=True)
        latent = self.sample(accelerated)
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        return latent, acceleration.report, [json.loads(line) for line in lines]

    def compared(self, model) -> dict:
        latent, report, seen = self.ours(model)
        stock = self.sample(model)
        error = (latent - stock).pow(2).mean().item()
        decibels = 10 * self.torch.log10(self.torch.tensor((stock.max() - stock.min()).item() ** 2 / max(error, 1e-20)))
        shared = report.shared_steps
        return {"dB": decibels.item(), "lines": report.lines, "shared": shared, "seen": seen[-1] if seen else None}


def lora_for(torch, weights: dict) -> dict:
    """A LoRA on every attention matrix."""
    from make_models import lora_for

    return lora_for(weights, seed=1)


def memory(bench: Bench) -> dict:
    """How much memory a worker's backend has to itself, in MiB, before a model is loaded, after, and unloaded."""
    import comfy.ops
    import folder_paths
    import psutil
    from comfy.ldm.modules.diffusionmodules.mmdit import MMDiT
    from hybridiff_pack.nodes.host import backend, kitchen, recipe, settings
    from make_models import fill, sd3_config
    from safetensors.torch import save_file

    def own() -> float:
        kitchen._give_back()
        return psutil.Process().memory_full_info().uss / (1 << 20)

    file = bench.file.with_name("large.safetensors")
    operations = comfy.ops.disable_weight_init
    network = MMDiT(**sd3_config(8), dtype=bench.torch.float32, device="cpu", operations=operations)
    fill(network, seed=1, last=())
    save_file({**network.state_dict(), "pos_embed": bench.torch.zeros(1, 64 * 64, 64 * 8)}, file)
    folder_paths.add_model_folder_path("diffusion_models", str(file.parent))
    model = bench.comfy.sd.load_diffusion_model(str(file))
    order = {"model": recipe.recipe_of(model), "args": settings.read_args()}
    del network, model
    worker = backend.ComfyBackend({"device": "cpu", "model_folders": [str(file.parent)]})
    before = own()
    worker.load(order)
    loaded = own()
    worker.unload()
    return {"file": file.stat().st_size / (1 << 20), "before": before, "loaded": loaded, "unloaded": own()}


def gone(bench: Bench, mode: str) -> dict:
    """What is still there of a model when its sampling is over, before Python looks for what holds itself."""
    mode, _, worker = mode.partition(" ")
    joins = worker == "joins"
    if worker == "cold":
        bench.host.leases.pool().close()
    acceleration = bench.host.acceleration.Acceleration(type(bench.plan)(mode=mode), ("same",))
    os.environ["HYBRIDIFF_WAIT"] = "0" if joins else "1"
    gc.collect()
    gc.disable()
    try:
        model = bench.load()
        clone = acceleration.apply(model)
        bench.sample(clone)
        if joins:  # a worker that is there by now, and shows what it computes
            bench.sample(clone)
        sampled, loaded = weakref.ref(clone), weakref.ref(model.model.diffusion_model)
        del clone
        clone_is_gone = sampled() is None
        del model
        return {"shared": acceleration.report.shared_steps, "clone": clone_is_gone, "network": loaded() is None}
    finally:
        gc.enable()
        os.environ["HYBRIDIFF_WAIT"] = "1"


def case(bench: Bench, name: str) -> dict:
    from hybridiff_pack.hybridiff_core.workers import torch_settings
    from hybridiff_pack.nodes.host import settings

    if name == "memory":
        return memory(bench)
    if name.startswith("gone "):
        return gone(bench, name.removeprefix("gone "))
    torch, args = bench.torch, bench.comfy.cli_args.args
    os.environ["HYBRIDIFF_OTHERWISE"] = {"mainless": "main", "other rounding": "rounding"}.get(name, "")
    bench.host.leases.pool().close()
    before = torch_settings.read()
    if name.endswith("rounding"):
        return bench.compared(bench.load(torch.float8_e4m3fn, lora=True))
    model = bench.load()
    if name == "changed":  # between two runs, as packs do it
        first = bench.compared(model)
        torch.set_float32_matmul_precision("medium")
        torch.backends.cudnn.benchmark, args.force_upcast_attention = True, True
        second = bench.compared(model)
        torch_settings.lay(before)
        args.force_upcast_attention = False
        third = bench.compared(model)
        return {"torch": before, "runs": [first, second, third]}
    if name == "unknown":
        args.fast = {"cublas_ops", bench.comfy.cli_args.PerformanceFeature.AutoTune}
        args.of_a_pack = object()
    try:
        result = bench.compared(model)
        written = sorted(bench.written() - bench.before)
        return {**result, "args": settings.read_args(), "torch": before, "written": written}
    finally:
        args.fast = set()
        vars(args).pop("of_a_pack", None)


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent)
    root, models = sys.argv[1:]
    host = enter(root)
    import torch

    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        os.environ["HYBRIDIFF_SEEN"] = os.path.join(folder, "seen")
        os.chdir(folder)
        bench = Bench(host, Path(folder) / "seen")
        for line in sys.stdin:
            print(json.dumps(case(bench, line.strip())), flush=True)
        host.leases.pool().close()
