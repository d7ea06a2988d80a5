"""How close every mode's pictures stay, compared with rivals that cost the same, on training/'s small models.

    python benchmarks/quality.py WEIGHTS [--models dit unet] [--steps 20 28 50] [--cfg 1 5 7.5]
        [--samplers euler dpmpp_2m ddim] [--prompts 64] [--skip 0] [--json FILE]

PSNR, SSIM and HaarPSI of the decoded pictures against one device's exact run, with the real nodes' code
and real worker processes. A row's cost is what the busiest device computes, in forwards of one branch: an
exact step of two devices costs 1, a predicted one 0, one of a pipeline 1/2. What decides by its own measurements
(auto, a tolerance) runs one picture at a time, and its cost is the mean. Rivals: fewer exact steps, and
ComfyUI's EasyCache, whose computed steps are counted. With --json, rows that are in the file are not run again.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

PACK = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PACK))
from benchmarks.block import heading, keep, kept, line, table  # noqa: E402
from benchmarks.inside import enter_comfyui, run_inside  # noqa: E402
from hybridiff_core.rules import AUTO_START, AUTO_TOLERANCE  # noqa: E402

SEED = 1000  # the first prompt's; each has its own
SCHEDULERS = {"dit": "simple", "unet": "normal"}
SHARES = (0.4, 0.6)  # k, of the steps
TOLERANCES = (0.005, 0.02)  # in addition to auto's own
FEWER = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)  # of the steps, left out
CACHES = (0.02, 0.05, 0.1)  # EasyCache's reuse_threshold
BATCH = 16
COSTS = {"exact": 1.0, "predicted": 0.0, "alternating": 0.5, "pipeline": 0.5, "paper": 0.5}
COLUMNS = [
    ("model", lambda row: row["model"]),
    ("sampler", lambda row: row["sampler"]),
    ("steps", lambda row: row["steps"]),
    ("CFG", lambda row: f"{row['cfg']:g}"),
    ("what", lambda row: row["what"]),
    ("devices", lambda row: row["devices"]),
    ("prompts", lambda row: row["prompts"]),
    ("cost", lambda row: f"{row['cost']:.1f}"),
    ("PSNR", lambda row: f"{row['psnr']:.1f}"),
    ("worst 5 %", lambda row: f"{row['psnr_worst']:.1f}"),
    ("SSIM", lambda row: f"{row['ssim']:.4f}"),
    ("HaarPSI", lambda row: f"{row['haarpsi']:.4f}"),
]


def render(block: dict) -> str:
    order = {name: place for place, name in enumerate(("auto", "predict", "pipeline", "paper"))}

    def place(row: dict) -> tuple:
        kind = order.get(row["what"].split(",")[0].split(" ")[0], 9)
        return row["sampler"] != "euler", row["sampler"], row["steps"], row["cfg"], kind, row["cost"]

    return table(sorted(block["rows"], key=place), COLUMNS)


class Candidate(NamedTuple):
    """What is compared with the exact picture. `adaptive`: it decides by what it measures, so one picture at a time."""

    name: str
    devices: int
    plan: dict
    adaptive: bool = False
    extrapolate: bool = True


def candidates(steps: int, cfg: float) -> list[Candidate]:
    devices = 4 if cfg > 1 else 2  # of a pipeline within each branch
    found = [Candidate("auto", 2, {}, True)]
    for tolerance in TOLERANCES:
        found.append(Candidate(f"auto, tolerance {tolerance:g}", 2, {"tolerance": tolerance}, True))
    loop = {"warmup": "fixed", "start_step": AUTO_START, "parallel_steps": 0, "tolerance": AUTO_TOLERANCE}
    name = f"pipeline in groups, tolerance {AUTO_TOLERANCE:g}"
    found.append(Candidate(name, devices, {"mode": "pipeline", **loop}, True))
    for share in SHARES:
        k = round(share * steps)
        start = max(5, round((steps - k) * 0.6))
        if start + k > steps:
            continue
        place = {"warmup": "fixed", "start_step": start, "parallel_steps": k}
        middle = share == SHARES[0]
        for stride in (2, 3) if middle else (2,):
            plan = {"mode": "predict", "predict_stride": stride, **place}
            found.append(Candidate(f"predict m={stride} k={k}", 2, plan))
        pipeline = {"mode": "pipeline", **place}
        if cfg > 1 and middle:
            found.append(Candidate(f"pipeline in turns k={k}", 2, pipeline))
            found.append(Candidate(f"paper k={k}", 2, {"mode": "paper", **place}))
        if middle:
            found.append(Candidate(f"pipeline in groups k={k}", devices, pipeline))
            found.append(Candidate(f"pipeline in groups m=2 k={k}", devices, {**pipeline, "predict_stride": 2}))
        if middle and steps == 28:  # to show what extrapolation gains
            name = f"pipeline in groups, results as they came, k={k}"
            found.append(Candidate(name, devices, pipeline, extrapolate=False))
    return found


class Studio:
    """A trained model with its prompts: pictures of a run, and how close they are to the exact ones."""

    def __init__(self, name: str, loaded: tuple, captions: list[str], host, seed: int):
        import comfy.sample
        import torch
        from piq import haarpsi, ssim
        from text import conditioning

        self.name, (self.model, self.vae, (self.channels, self.side)) = name, loaded
        self.torch, self.host, self.sample = torch, host, comfy.sample
        self.metrics = {"ssim": ssim, "haarpsi": haarpsi}
        self.captions, self.conditioning, self.seed = captions, conditioning, seed

    def joined(self, captions: list[str]) -> list:
        conds = [self.conditioning(caption)[0] for caption in captions]
        more = {key: self.torch.cat([cond[1][key] for cond in conds]) for key in conds[0][1]}
        return [[self.torch.cat([cond[0] for cond in conds]), more]]

    def pictures(self, model, sampler: str, steps: int, cfg: float, batch: int = BATCH, after=lambda: None):
        """[prompts, 3, height, width] in 0 to 1; every prompt has its own seed. `after` is called after each batch."""
        done = []
        for first in range(0, len(self.captions), batch):
            captions = self.captions[first : first + batch]
            empty = self.torch.zeros(1, self.channels, self.side, self.side)
            noise = self.torch.cat(
                [self.sample.prepare_noise(empty, self.seed + first + number) for number in range(len(captions))]
            )
            latent = self.sample.sample(
                model, noise, steps, cfg, sampler, SCHEDULERS[self.name], self.joined(captions),
                self.joined([""] * len(captions)), self.torch.zeros_like(noise), seed=0, disable_pbar=True,
            )  # fmt: skip
            after()
            done.append(self.vae.decode(latent).movedim(-1, 1).clamp(0, 1))
        return self.torch.cat(done)

    def compare(self, pictures, exact) -> dict:
        errors = (pictures - exact).square().flatten(1).mean(1)
        psnr = -10 * errors.clamp_min(1e-12).log10()
        row = {"psnr": psnr.mean().item(), "psnr_worst": psnr.quantile(0.05).item()}
        row["each"] = [round(value, 1) for value in psnr.tolist()]
        for metric, of in self.metrics.items():
            row[metric] = of(pictures, exact, data_range=1.0).item()
        return row

    def accelerated(self, candidate: Candidate, *run) -> tuple:
        """Pictures, the mean cost of a run, and what the last one measured on the way."""
        plan = self.host.run.HybridPlan(**candidate.plan)
        acceleration = self.host.acceleration.Acceleration(plan, ("same",) * (candidate.devices - 1))
        setting, costs = self.host.run.Setting, []
        if not candidate.extrapolate:
            self.host.run.Setting = lambda *given, **more: setting(*given, **more, extrapolate=False)

        def count() -> None:
            works = [step.work for step in acceleration.report.steps]
            if not candidate.adaptive:
                assert len(set(works)) > 1, acceleration.report.lines
            costs.append(sum(COSTS[work] for work in works))

        batch = 1 if candidate.adaptive else BATCH
        try:
            pictures = self.pictures(acceleration.apply(self.model), *run, batch=batch, after=count)
        finally:
            self.host.run.Setting = setting
        measured = {
            name: [value and round(value, 5) for value in (getattr(step, name) for step in acceleration.report.steps)]
            for name in ("rel_mae", "error")
        }
        return pictures, statistics.mean(costs), measured

    def cached(self, threshold: float, *run) -> tuple | None:
        """Pictures with EasyCache, and the mean share of steps that it computed; None where it cannot."""
        import comfy_extras.nodes_easycache as easycache

        network = self.model.model.diffusion_model
        if not hasattr(network, "_forward"):  # the host's MMDiT does not ask its wrappers
            return None
        forward, calls = network._forward, []

        def counted(*given, **more):
            calls.append(1)
            return forward(*given, **more)

        network._forward = counted  # EasyCache's wrapper comes before it
        try:
            (patched,) = easycache.EasyCacheNode.execute(self.model, threshold, 0.15, 0.95, False).args
            pictures = self.pictures(patched, *run, batch=1)
            return pictures, len(calls) / len(self.captions)
        finally:
            del network._forward


class Survey:
    """The rows, kept in a file while they come."""

    def __init__(self, path: Path | None, prompts: int, seed: int):
        self.path, self.prompts, self.seed = path, prompts, seed
        self.rows = kept(path)["rows"] if path and path.exists() else []

    def has(self, setting: tuple, what: str) -> bool:
        for row in self.rows:
            if (row["model"], row["sampler"], row["steps"], row["cfg"], row["what"]) == (*setting, what):
                return row["prompts"] >= self.prompts
        return False

    def add(self, setting: tuple, what: str, **values) -> None:
        row = dict(zip(("model", "sampler", "steps", "cfg", "what"), (*setting, what)))
        key = list(row.items())
        self.rows = [old for old in self.rows if not old.items() >= dict(key).items()]
        self.rows.append({**row, "prompts": self.prompts, **values})
        print(line(self.rows[-1], COLUMNS), flush=True)
        keep(self.path, self.rows, f"{self.seed} and on, one a prompt")


def survey(studio: Studio, rows: Survey, sampler: str, steps: int, cfg: float, only: list[str] | None) -> None:
    """Every candidate and rival of one setting that is not in `rows` yet."""
    setting, run = (studio.name, sampler, steps, cfg), (sampler, steps, cfg)
    fewer = sorted({round(steps * (1 - share)) for share in FEWER})
    caches = CACHES if hasattr(studio.model.model.diffusion_model, "_forward") else ()

    def wanted(what: str) -> bool:
        return (only is None or any(f"{what} ".startswith(f"{name} ") for name in only)) and not rows.has(setting, what)

    todo = [candidate for candidate in candidates(steps, cfg) if wanted(candidate.name)]
    fewer = [count for count in fewer if wanted(f"{count} steps")]
    caches = [threshold for threshold in caches if wanted(f"EasyCache {threshold:g}")]
    if not (todo or fewer or caches):
        return
    exact = studio.pictures(studio.model, *run)
    for candidate in todo:
        pictures, cost, measured = studio.accelerated(candidate, *run)
        compared = studio.compare(pictures, exact)
        rows.add(setting, candidate.name, devices=candidate.devices, cost=cost, **compared, **measured)
    devices = 2 if cfg > 1 else 1
    for count in fewer:
        compared = studio.compare(studio.pictures(studio.model, sampler, count, cfg), exact)
        rows.add(setting, f"{count} steps", devices=devices, cost=count, **compared)
    for threshold in caches:
        pictures, cost = studio.cached(threshold, *run)
        # on one device, whose forwards have both branches; with the host's own split it would be this cost on two
        rows.add(setting, f"EasyCache {threshold:g}", devices=devices, cost=cost, **studio.compare(pictures, exact))


def measure(options: argparse.Namespace, root: Path) -> None:
    host = enter_comfyui(root)
    sys.path.insert(0, str(PACK / "training"))
    from check import load_models
    from data import load

    os.sched_setaffinity(0, range(os.cpu_count()))
    pool = host.leases.pool()
    start_frame = pool.start
    pool.start = lambda place: {**start_frame(place), "cpus": list(range(os.cpu_count()))}
    shown, held_out = load()
    # prompts that no default was chosen by come first: the held-out combinations, then every seventh of the others
    captions = [*held_out, *list(shown)[::7], *list(shown)[3::7]][options.skip :][: options.prompts]
    seed = SEED + options.skip
    rows = Survey(options.json, len(captions), seed)
    loaded = load_models(options.weights)
    studios = [Studio(name, loaded[name], captions, host, seed) for name in options.models]
    started = time.perf_counter()
    print(f"{heading(seed)}\n\n{table([], COLUMNS)}")
    for sampler in options.samplers:
        for steps in options.steps:
            for studio in studios:
                for cfg in options.cfg:
                    survey(studio, rows, sampler, steps, cfg, options.only)
    print(f"\n{time.perf_counter() - started:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path, help="where training/ put its models")
    parser.add_argument("--models", nargs="+", default=["dit", "unet"], choices=["dit", "unet"])
    parser.add_argument("--steps", nargs="+", type=int, default=[20, 28, 50])
    parser.add_argument("--cfg", nargs="+", type=float, default=[1.0, 5.0, 7.5])
    parser.add_argument("--samplers", nargs="+", default=["euler", "dpmpp_2m", "ddim"])
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--skip", type=int, default=0, help="how many prompts to leave out before those that are taken")
    parser.add_argument("--only", nargs="+", help="rows whose name is one of these, or begins with it and a space")
    parser.add_argument("--json", type=Path)
    run_inside(__file__, parser.parse_args(), measure)


if __name__ == "__main__":
    main()
