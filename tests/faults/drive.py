"""Every fault at every moment, in a real ComfyUI process with real workers. Run by ComfyUI's own Python.

    python drive.py COMFYUI_ROOT MODELS_FOLDER

Reads a row a line and prints a line of JSON for it. A row is fault:moment, or fault:start:spare, where another device
stands by.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import statistics
import sys
import tempfile
import time
from pathlib import Path

PACK = Path(__file__).resolve().parents[2]
STEPS, START, INTERVAL = 12, 6, 5
FAULTS = ("killed", "stopped", "exception", "out of memory", "corrupt", "short", "wrong step")
# the step of a moment that is one
MOMENTS = {"start": None, "load": None, "first step": 0, "mid warm-up": 3, "stage": START + 1, "last step": STEPS - 1}
# in a forward that two devices divide by tokens, the step of "mid warm-up": at which exchange; the model has 4 blocks
BLOCKS = {"first block": 0, "middle block": 2, "last block": 3}
BLOCK_FAULTS = ("killed", "stopped", "exception", "out of memory")


def enter(root: str):
    os.environ["HYBRIDIFF_WAIT"] = "1"  # a worker has its part from the first step on
    runpy.run_path(str(PACK / "nodes" / "host" / "worker.py"))["register_pack"]()
    sys.path.insert(0, root)
    import comfy.cli_args

    comfy.cli_args.args.cpu = True
    import torch

    torch.set_num_threads(1)
    from hybridiff_pack.hybridiff_core.workers import launch_local

    importlib.import_module("hybridiff_pack.nodes.host.acceleration")  # and what it needs, which is all of host
    from hybridiff_pack.nodes import host

    launch_local.SCRIPTS = {"comfy": PACK / "tests" / "faults" / "worker.py"}
    return host


class Bench:
    """The small SD3 model, run by stock and by ours from the same noise."""

    def __init__(self, models: str, host, folder: Path):
        import comfy.sample
        import comfy.samplers
        import comfy.sd
        import folder_paths
        import torch
        from comfy_extras.nodes_model_advanced import ModelSamplingSD3

        folder_paths.add_model_folder_path("diffusion_models", str(Path(models) / "diffusion_models"))
        self.host, self.comfy, self.torch = host, comfy, torch
        self.instruction = folder / "fault.json"
        os.environ["HYBRIDIFF_FAULT"] = str(self.instruction)
        self.base = comfy.sd.load_diffusion_model(str(Path(models) / "diffusion_models" / "sd3_depth4.safetensors"))
        self.shift = ModelSamplingSD3()
        random = torch.Generator().manual_seed(0)
        self.noise = torch.randn(1, 16, 16, 16, generator=random)
        self.positive, self.negative = (
            [[torch.randn(1, 16, 4096, generator=random), {"pooled_output": torch.randn(1, 2048, generator=random)}]]
            for _ in range(2)
        )
        self.shifts, self.cfg = 0, 5.0
        self.exchanges: list = []  # the last run's; the pool lets go of one that is lost
        pool = host.leases.pool()
        release = pool.release

        def remembering(lease) -> None:
            if lease.exchange:
                self.exchanges.append(lease.exchange)
            release(lease)

        pool.release = remembering
        self.change_model()

    def change_model(self) -> None:
        """Another model to the workers: they have to load it."""
        self.shifts += 1
        self.model = self.shift.patch(self.base, 3.0 + 0.01 * self.shifts)[0]
        self.sigmas = self.comfy.samplers.calculate_sigmas(
            self.model.get_model_object("model_sampling"), "normal", STEPS
        )

    def sample(self, model, sigmas=None, start=None, seen: list | None = None):
        """A run of euler; from `start` at the first of `sigmas`, if given. `seen` gets each step's x."""
        plain = self.comfy.k_diffusion.sampling.sample_euler

        def euler(denoiser, x, sigmas, **more):
            return plain(denoiser, x if start is None else start, sigmas, **more)

        return self.comfy.sample.sample_custom(
            model, self.noise, self.cfg, self.comfy.samplers.KSAMPLER(euler), self.sigmas if sigmas is None else sigmas,
            self.positive, self.negative, self.torch.zeros_like(self.noise), disable_pbar=True, seed=0,
            callback=lambda step, denoised, x, total: seen.append(x.clone()) if seen is not None else None,
        )  # fmt: skip

    def ours(self, devices=("same",), **plan):
        self.exchanges.clear()
        acceleration = self.host.acceleration.Acceleration(self.host.run.HybridPlan(**plan), devices)
        xs: list = []
        latent = self.sample(acceleration.apply(self.model), seen=xs)
        return latent, xs, acceleration.report

    def difference(self, one, other) -> float:
        return (one - other).abs().max().item() / max(1.0, other.std().item())

    def row(self, fault: str, moment: str, spare: str = "") -> dict:
        self.cfg = 1.0 if moment in BLOCKS else 5.0  # one cond, which only tokens divide
        at, plan = MOMENTS["mid warm-up" if moment in BLOCKS else moment], {
            "mode": "pipeline", "warmup": "fixed", "start_step": START, "parallel_steps": INTERVAL,
        }  # fmt: skip
        if moment == "start":
            self.host.leases.pool().close()
        if moment in BLOCKS:
            plan = {"mode": "exact"}
            self.ours(**plan)  # how the network attends is known
        if moment == "load":
            self.ours(mode="exact")  # a worker is there
            self.change_model()
        for name in (".done", ".at"):
            self.instruction.with_suffix(name).unlink(missing_ok=True)
        kind = "block" if moment in BLOCKS else moment if at is None else "step"
        told = {"moment": kind, "fault": fault, "sigma": float(self.sigmas[at or 0]), "exchange": BLOCKS.get(moment, 0)}
        self.instruction.write_text(json.dumps(told))
        if spare:
            plan = {"mode": "exact", "devices": ("same", "same")}
        latent, xs, report = self.ours(**plan)
        happened = float(self.instruction.with_suffix(".at").read_text())
        # of two that start at a time either may have had the fault; none is lost where a second try had room
        lost = next((exchange for exchange in self.exchanges if exchange.lost_at), self.exchanges[0])
        lines = list(report.lines)

        # from the first step without a worker on, stock goes on from the very x
        alone = [index for index, step in enumerate(report.steps) if not step.helpers]
        first = alone[0] if alone else STEPS
        assert alone == ([] if spare else list(range(first, STEPS))), [step.helpers for step in report.steps]
        assert len(report.steps) == STEPS
        rest = self.sample(self.model, self.sigmas[first:], xs[first]) if alone else latent
        difference = self.difference(latent, rest)
        if first <= START or spare or moment in BLOCKS:  # all of it was exact
            difference = max(difference, self.difference(latent, self.sample(self.model)))

        started = time.perf_counter()
        again, _, fresh = self.ours(mode="exact")
        took = time.perf_counter() - started
        steps = [step.compute_s[1] for step in report.steps if len(step.compute_s) > 1]
        return {
            "fault": fault,
            "moment": f"{moment}, {spare}" if spare else moment,
            "taken_over_at": first,
            "difference": difference,
            "noticed_s": lost.lost_at - happened if lost.lost_at else None,
            "median_step_s": statistics.median(steps) if steps else None,
            "lines": [line for line in lines if "warmup" not in line and "start_step" not in line],
            "next_shared": fresh.shared_steps == len(fresh.steps) == STEPS,
            "next_fresh": lost.process.pid not in [exchange.process.pid for exchange in self.exchanges],
            "next_difference": self.difference(again, self.sample(self.model)),
            "next_s": took,
        }


def main() -> None:
    root, models = sys.argv[1:]
    host = enter(root)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(models, host, Path(folder))
        for line in sys.stdin:
            print(json.dumps(bench.row(*line.strip().split(":"))), flush=True)
        host.leases.pool().close()


if __name__ == "__main__":
    main()
