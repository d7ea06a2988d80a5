"""How true every mode's pictures stay, beside the rivals that cost the same, on the small trained models of training/.

    python benchmarks/quality.py WEIGHTS [--models dit unet] [--steps 20 28 50] [--cfg 1 5 7.5]
        [--samplers euler dpmpp_2m ddim] [--prompts 64] [--json FILE]

PSNR, SSIM and HaarPSI of the decoded pictures against one device's exact run, with the real nodes' code
and real worker processes. A row's cost is what the busiest device computes, in forwards of one branch: an
exact step of two devices costs 1, a predicted one 0, one of a pipeline 1/2. Rivals: fewer exact steps, and
ComfyUI's EasyCache, whose skipped steps are counted. With --json, rows that are in the file are not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

PACK = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PACK))
from benchmarks.two_devices import enter_comfyui  # noqa: E402
from tests.host.comfy_server import find_comfyui, python_of  # noqa: E402

SCHEDULERS = {"dit": "simple", "unet": "normal"}
SHARES = (0.2, 0.4, 0.6)  # k, of the steps
FEWER = (0.1, 0.2, 0.3)  # of the steps, left out: what k steps cost less where every second is predicted
TOLERANCES = (0.13, 0.2)  # what the closed loop lets pass
CACHES = (0.1, 0.2, 0.4)  # EasyCache's reuse_threshold
AS_CAME = ", as they came,"
BATCH = 16
COSTS = {"exact": 1.0, "predicted": 0.0, "alternating": 0.5, "pipeline": 0.5, "paper": 0.5}


def candidates(steps: int, cfg: float) -> list[tuple[str, int, dict]]:
    """Name, number of devices and plan of what is compared with the exact picture."""
    # "as they came": inner results not extrapolated, to show what extrapolating is worth
    devices = 4 if cfg > 1 else 2
    found = [("auto", 2, {}), ("auto on 4", 4, {})] if cfg > 1 else [("auto", 2, {})]
    for tolerance in TOLERANCES:
        loop = {"warmup": "fixed", "start_step": max(5, steps // 4), "parallel_steps": 0, "tolerance": tolerance}
        found.append((f"predict, tolerance {tolerance:g}", 2, {"mode": "predict", **loop}))
    for share in SHARES:
        k = round(share * steps)
        start = max(5, round((steps - k) * 0.6))
        if start + k > steps:
            continue
        place = {"warmup": "fixed", "start_step": start, "parallel_steps": k}
        middle = share == SHARES[1]
        for stride in (2, 3) if middle else (2,):
            plan = {"mode": "predict", "predict_stride": stride, **place}
            found.append((f"predict m={stride} k={k}", 2, plan))
        if cfg > 1 and share <= SHARES[1]:
            found.append((f"pipeline in turns k={k}", 2, {"mode": "pipeline", **place}))
        if cfg > 1 and middle:
            found.append((f"paper k={k}", 2, {"mode": "paper", **place}))
        if share >= SHARES[1]:
            found.append((f"pipeline in groups k={k}", devices, {"mode": "pipeline", **place}))
        if middle and steps == 28:
            found.append((f"pipeline in groups{AS_CAME} k={k}", devices, {"mode": "pipeline", **place}))
    return found


class Studio:
    """A trained model with its prompts: pictures of a run, and how near they are to the exact ones."""

    def __init__(self, name: str, loaded: tuple, captions: list[str], sampling):
        import comfy.sample
        import torch
        from piq import haarpsi, ssim
        from text import conditioning

        self.name, (self.model, self.vae, (self.channels, self.side)) = name, loaded
        self.torch, self.sampling, self.sample = torch, sampling, comfy.sample
        self.metrics = {"ssim": ssim, "haarpsi": haarpsi}
        self.captions, self.conditioning = captions, conditioning

    def joined(self, captions: list[str]) -> list:
        conds = [self.conditioning(caption)[0] for caption in captions]
        more = {key: self.torch.cat([cond[1][key] for cond in conds]) for key in conds[0][1]}
        return [[self.torch.cat([cond[0] for cond in conds]), more]]

    def pictures(self, model, sampler: str, steps: int, cfg: float):
        """[prompts, 3, height, width] in 0 to 1; every prompt has its own seed."""
        done = []
        for first in range(0, len(self.captions), BATCH):
            captions = self.captions[first : first + BATCH]
            empty = self.torch.zeros(1, self.channels, self.side, self.side)
            noise = self.torch.cat(
                [self.sample.prepare_noise(empty, 1000 + first + number) for number in range(len(captions))]
            )
            latent = self.sample.sample(
                model, noise, steps, cfg, sampler, SCHEDULERS[self.name], self.joined(captions),
                self.joined([""] * len(captions)), self.torch.zeros_like(noise), seed=0, disable_pbar=True,
            )  # fmt: skip
            done.append(self.vae.decode(latent).movedim(-1, 1).clamp(0, 1))
        return self.torch.cat(done)

    def compare(self, pictures, exact) -> dict:
        errors = (pictures - exact).square().flatten(1).mean(1)
        psnr = -10 * errors.clamp_min(1e-12).log10()
        row = {"psnr": psnr.mean().item(), "psnr_worst": psnr.quantile(0.05).item()}
        for metric, of in self.metrics.items():
            row[metric] = of(pictures, exact, data_range=1.0).item()
        return row

    def accelerated(self, what: str, plan: dict, devices: int, *run) -> tuple:
        """Pictures, the cost of a run, and what its last batch measured on the way."""
        acceleration = self.sampling.Acceleration(self.sampling.HybridPlan(**plan), ("same",) * (devices - 1))
        setting = self.sampling.Setting
        if AS_CAME in what:
            self.sampling.Setting = lambda *given, **more: setting(*given, **more, extrapolate=False)
        try:
            pictures = self.pictures(acceleration.apply(self.model), *run)
        finally:
            self.sampling.Setting = setting
        report = acceleration.report
        works = [line.split()[3] for line in report.schedule.splitlines()]
        assert len(set(works)) > 1 or "parallel_steps" not in plan or "tolerance" in plan, report.lines
        measured = {
            name: [value and round(value, 5) for value in (getattr(step, name) for step in report.steps)]
            for name in ("rel_mae", "error")
        }
        return pictures, sum(COSTS[work] for work in works), measured

    def cached(self, threshold: float, *run) -> tuple | None:
        """Pictures with EasyCache on one device, and how many of a run's steps it computed; None where it cannot."""
        import comfy_extras.nodes_easycache as easycache

        network = self.model.model.diffusion_model
        if not hasattr(network, "_forward"):  # the host's MMDiT does not ask its wrappers
            return None
        forward, calls = network._forward, []

        def counted(*given, **more):
            calls.append(1)
            return forward(*given, **more)

        network._forward = counted  # EasyCache's wrapper stands before it
        try:
            self.pictures(self.model, *run)
            of_all, calls[:] = len(calls), []
            (patched,) = easycache.EasyCacheNode.execute(self.model, threshold, 0.15, 0.95, False).args
            return self.pictures(patched, *run), run[1] * len(calls) / of_all
        finally:
            del network._forward


def measure(options: argparse.Namespace, root: Path) -> None:
    sampling = enter_comfyui(root)
    sys.path.insert(0, str(PACK / "training"))
    from check import load_models
    from data import load

    os.sched_setaffinity(0, range(os.cpu_count()))
    pool = sampling.pool()
    start_frame = pool.start
    pool.start = lambda place: {**start_frame(place), "cpus": list(range(os.cpu_count()))}
    shown, held_out = load()
    # prompts that no default was chosen by come first: the held-out combinations, then every seventh of the others
    captions = [*held_out, *list(shown)[::7]][: options.prompts]
    rows = json.loads(options.json.read_text()) if options.json and options.json.exists() else []
    rows = [row for row in rows if row["prompts"] >= len(captions)]
    known = {(row["model"], row["sampler"], row["steps"], row["cfg"], row["what"]) for row in rows}
    loaded = load_models(options.weights)
    studios = {name: Studio(name, loaded[name], captions, sampling) for name in options.models}
    for sampler in options.samplers:
        for name, studio in studios.items():
            for steps in options.steps:
                for cfg in options.cfg:
                    setting = (name, sampler, steps, cfg)
                    one_device = 2 if cfg > 1 else 1
                    wanted = candidates(steps, cfg)
                    fewer = sorted({round(steps * (1 - share)) for share in FEWER})
                    names = [what for what, _, _ in wanted] + [f"{count} steps" for count in fewer]
                    names += [f"EasyCache {threshold}" for threshold in CACHES]
                    if all((*setting, what) in known for what in names):
                        continue
                    run = (sampler, steps, cfg)
                    exact = studio.pictures(studio.model, *run)

                    def note(
                        what: str,
                        pictures,
                        devices: int,
                        cost: float,
                        setting=setting,
                        exact=exact,
                        studio=studio,
                        **more,
                    ):
                        compared = studio.compare(pictures, exact)
                        row = dict(zip(("model", "sampler", "steps", "cfg"), setting))
                        rows.append(
                            {
                                **row,
                                "what": what,
                                "devices": devices,
                                "cost": cost,
                                "prompts": len(captions),
                                **compared,
                                **more,
                            }
                        )
                        print(line_of(rows[-1]), flush=True)
                        if options.json:
                            options.json.write_text(json.dumps(rows, indent=1))

                    for what, devices, plan in wanted:
                        if (*setting, what) not in known:
                            pictures, cost, measured = studio.accelerated(what, plan, devices, *run)
                            note(what, pictures, devices, cost, **measured)
                    for count in fewer:
                        if (*setting, f"{count} steps") not in known:
                            pictures = studio.pictures(studio.model, sampler, count, cfg)
                            note(f"{count} steps", pictures, min(2, one_device), count)
                    for threshold in CACHES:
                        fresh = (*setting, f"EasyCache {threshold}") not in known
                        if fresh and (cached := studio.cached(threshold, *run)):
                            note(f"EasyCache {threshold}", cached[0], 1, cached[1] * one_device)


def line_of(row: dict) -> str:
    return (
        f"| {row['model']} | {row['sampler']} | {row['steps']} | {row['cfg']:g} | {row['what']} | {row['devices']} | "
        f"{row['cost']:g} | {row['psnr']:.1f} | {row['psnr_worst']:.1f} | {row['ssim']:.4f} | {row['haarpsi']:.4f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path, help="where training/ put its models")
    parser.add_argument("--models", nargs="+", default=["dit", "unet"], choices=["dit", "unet"])
    parser.add_argument("--steps", nargs="+", type=int, default=[20, 28, 50])
    parser.add_argument("--cfg", nargs="+", type=float, default=[1.0, 5.0, 7.5])
    parser.add_argument("--samplers", nargs="+", default=["euler", "dpmpp_2m", "ddim"])
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    root = find_comfyui()
    if root is None:
        sys.exit("no ComfyUI is to be found; set COMFYUI_PATH")
    if os.environ.get("HYBRIDIFF_BENCHMARK") != "inside":
        command = [python_of(root), __file__, *sys.argv[1:]]
        sys.exit(subprocess.run(command, env={**os.environ, "HYBRIDIFF_BENCHMARK": "inside"}).returncode)
    import torch

    print("| model | sampler | steps | CFG | what | devices | cost | PSNR | worst 5 % | SSIM | HaarPSI |")
    print("|---" * 11 + "|")
    started = time.perf_counter()
    with torch.inference_mode():
        measure(options, root)
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
