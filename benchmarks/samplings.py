"""How far auto really puts a latent off, beside its tolerance, with every sampling and scheduler of ComfyUI.

    python benchmarks/samplings.py [--samplings EPS "EDM 700" ...] [--networks mixture pictures random]
        [--schedulers karras ...] [--steps 12 20 30] [--cfg 1 5] [--samplers euler dpmpp_2m] [--seeds 1] [--json FILE]

Two networks' answer is known in closed form, the mean of the pictures that a noisy latent may have come from:
`mixture`, Gaussians with a picture's spectrum, and `pictures`, a few single pictures. `random` is a small one with
random weights. The samplings, schedulers and samplers are ComfyUI's, and auto is the nodes' code on one device. `off`
is how far the final latent is from that of the exact run, as a share of it.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

PACK = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PACK))
from benchmarks.block import heading, keep, table  # noqa: E402
from benchmarks.inside import enter_comfyui, run_inside  # noqa: E402
from hybridiff_core.rules import AUTO_TOLERANCE  # noqa: E402

SEED = 1
SHAPE = (4, 12, 12)
CLASS = 2  # of how many of the mixture's parts, or of the pictures, the cond is


IDEAL = {"mixture": (6, 0.3), "pictures": (24, 0.0)}  # how many, and how much of the variance is within each


class Sampling(NamedTuple):
    """A node of ComfyUI's that sets a sampling, its values, and how a latent is mixed from picture and noise."""

    node: str
    values: dict
    flow: bool = False
    scale: float = 1.0  # of the pictures; the data of sigma_data 0.5 is half as large


def edm(sigma_max: float, kind: str = "v_prediction", scale: float = 1.0) -> Sampling:
    return Sampling("ContinuousEDM", {"sampling": kind, "sigma_max": sigma_max, "sigma_min": 0.002}, scale=scale)


def flow(shift: float) -> Sampling:
    return Sampling("SD3", {"shift": shift}, flow=True)


SAMPLINGS = {
    "EPS": Sampling("Discrete", {"sampling": "eps", "zsnr": False}),
    "v, zero-SNR": Sampling("Discrete", {"sampling": "v_prediction", "zsnr": True}),
    "LCM": Sampling("Discrete", {"sampling": "lcm", "zsnr": False}),
    "EDM 80": edm(80.0, "eps"),
    "EDM 120": edm(120.0),
    "EDM 500": edm(500.0),
    "EDM 700": edm(700.0),
    "Playground 2.5": edm(80.0, "edm_playground_v2.5", 0.5),
    "Cosmos": edm(80.0, "cosmos_rflow"),
    "continuous v 500": Sampling("ContinuousV", {"sampling": "v_prediction", "sigma_max": 500.0, "sigma_min": 0.03}),
    "Cascade": Sampling("StableCascade", {"shift": 2.0}),
    "flow, shift 1": flow(1.0),
    "SD3": flow(3.0),
    "flow, shift 8": flow(8.0),
    "AuraFlow": Sampling("AuraFlow", {"shift": 1.73}, flow=True),
    "Flux": Sampling("Flux", {"max_shift": 1.15, "base_shift": 0.5, "width": 1024, "height": 1024}, flow=True),
}


def cosines(size: int) -> torch.Tensor:
    """The orthonormal basis of the discrete cosine transform, a row each."""
    place = torch.arange(size, dtype=torch.float64)
    rows = torch.cos(math.pi / size * (place + 0.5) * place[:, None]) * math.sqrt(2 / size)
    rows[0] /= math.sqrt(2)
    return rows.float()


class Ideal:
    """The mean of the pictures that a latent may have come from: Gaussians of one covariance, around `means`.

    Of `spread` 0 it is single pictures. In the place of a network, in ComfyUI's model_function_wrapper.
    """

    def __init__(self, parts: int, spread: float, sampling: Sampling):
        generator = torch.Generator().manual_seed(SEED)
        channels, *sides = SHAPE
        self.basis = torch.kron(cosines(sides[0]), cosines(sides[1]))
        frequency = torch.hypot(*torch.meshgrid(*(torch.arange(float(side)) for side in sides), indexing="ij"))
        power = (1.0 / (1.0 + frequency) ** 2).flatten().repeat(channels)
        self.variance = power / power.mean() * sampling.scale**2
        means = torch.randn(parts, len(power), generator=generator) * self.variance.sqrt()
        self.means = means * math.sqrt(1.0 - spread)
        self.variance = self.variance * spread
        self.sampling = sampling

    def __call__(self, apply_model, given: dict) -> torch.Tensor:
        found = []
        x, sigma = given["input"], float(given["timestep"][0])
        for part, kind in zip(x.chunk(len(given["cond_or_uncond"])), given["cond_or_uncond"]):
            found.append(self.denoised(part, sigma, self.means[:CLASS] if kind == 0 else self.means))
        return torch.cat(found)

    def denoised(self, x: torch.Tensor, sigma: float, means: torch.Tensor) -> torch.Tensor:
        a, b = (1.0 - sigma, sigma) if self.sampling.flow else (1.0, sigma)
        z = (x.flatten(2) @ self.basis.T).flatten(1)
        total = a * a * self.variance + b * b + 1e-12
        away = z[:, None] - a * means
        share = (-0.5 * (away.square() / total).sum(-1)).softmax(-1)
        mean = (share[..., None] * (means + a * self.variance / total * away)).sum(1)
        return (mean.view(x.shape[0], x.shape[1], -1) @ self.basis).view(x.shape)


class Random:
    """A small network with random weights; what goes in and comes out is of size 1 at every noise level."""

    def __init__(self, sampling: Sampling):
        generator = torch.Generator().manual_seed(SEED)
        self.sampling = sampling
        sizes = ((SHAPE[0] + 2, 16), (16, 16), (16, SHAPE[0]))
        self.weights = [torch.randn(out, into, 3, 3, generator=generator) / (3 * into**0.5) for into, out in sizes]

    def __call__(self, apply_model, given: dict) -> torch.Tensor:
        x, sigma = given["input"], float(given["timestep"][0])
        kinds = torch.tensor(given["cond_or_uncond"]).repeat_interleave(len(x) // len(given["cond_or_uncond"]))
        size = 1.0 if self.sampling.flow else math.hypot(1.0, sigma)
        level = sigma if self.sampling.flow else math.log(sigma) / 4
        told = torch.stack([torch.full((len(x),), level), 1.0 - kinds]).T[..., None, None].expand(-1, -1, *SHAPE[1:])
        out = torch.cat([x / size, told], 1)
        for weight in self.weights:
            out = torch.nn.functional.conv2d(out.sin(), weight, padding=1)
        return x - sigma * out if self.sampling.flow else x / size**2 + sigma / size * out


class Run(NamedTuple):
    sampling: str
    network: str
    scheduler: str
    sampler: str
    steps: int
    cfg: float


def summary(rows: list[dict]) -> list[dict]:
    """A row for each sampling and network, "ideal" being both that are known in closed form."""
    found = []
    for ideal, name in itertools.product((True, False), SAMPLINGS):
        mine = [row for row in rows if row["sampling"] == name and (row["network"] in IDEAL) == ideal]
        if mine:
            worst = max(mine, key=lambda row: row["off"])
            over = [sum(row["off"] > times * AUTO_TOLERANCE for row in mine) for times in (1, 2)]
            found.append({
                "sampling": name, "network": "ideal" if ideal else "random", "runs": len(mine), "over": over,
                "predicted": sum(row["predicted"] for row in mine) / sum(row["calls"] for row in mine), "worst": worst,
            })  # fmt: skip
    return found


COLUMNS = [
    ("sampling", lambda row: row["sampling"]),
    ("network", lambda row: row["network"]),
    ("runs", lambda row: row["runs"]),
    ("predicted", lambda row: f"{row['predicted']:.0%}"),
    ("off, worst", lambda row: f"{row['worst']['off']:.4f}"),
    ("where", lambda row: "{scheduler}, {sampler}, {steps} steps, CFG {cfg:g}".format(**row["worst"])),
    (f"over {AUTO_TOLERANCE:g}", lambda row: row["over"][0]),
    (f"over {2 * AUTO_TOLERANCE:g}", lambda row: row["over"][1]),
]


def render(block: dict) -> str:
    return table(block["rows"], COLUMNS)


class Bench:
    """A model for each sampling and network, and the runs on it."""

    def __init__(self, host: object):
        import comfy.model_base
        import comfy.model_patcher
        import comfy.sample
        import comfy.supported_models
        import comfy_extras.nodes_model_advanced as nodes

        self.host, self.nodes, self.sample = host, nodes, comfy.sample
        config = comfy.supported_models.SD15({"disable_unet_model_creation": True})
        base = comfy.model_base.BaseModel(config)
        base.diffusion_model = Nothing()
        self.base = comfy.model_patcher.ModelPatcher(base, torch.device("cpu"), torch.device("cpu"))

    def model(self, name: str, network: str):
        sampling = SAMPLINGS[name]
        node = getattr(self.nodes, f"ModelSampling{sampling.node}")()
        (model,) = getattr(node, node.FUNCTION)(self.base, **sampling.values)
        found = Random(sampling) if network == "random" else Ideal(*IDEAL[network], sampling)
        model.set_model_unet_function_wrapper(found)
        return model

    def latent(self, model, run: Run, seed: int) -> torch.Tensor:
        empty = torch.zeros(1, *SHAPE)
        noise = self.sample.prepare_noise(empty, seed)
        conds = [[[torch.full((1, 1, 8), value), {}]] for value in (1.0, 0.0)]
        return self.sample.sample(
            model, noise, run.steps, run.cfg, run.sampler, run.scheduler, *conds, empty, seed=seed, disable_pbar=True
        )

    def row(self, model, run: Run, seed: int) -> dict:
        acceleration = self.host.acceleration.Acceleration(self.host.run.HybridPlan(), ())
        exact, close = self.latent(model, run, seed), self.latent(acceleration.apply(model), run, seed)
        works = [step.work for step in acceleration.report.steps]
        off = ((close - exact).norm() / exact.norm()).item()
        return {
            **run._asdict(), "seed": seed, "predicted": works.count("predicted"), "calls": len(works),
            "off": round(off, 6),
        }  # fmt: skip


class Nothing(torch.nn.Module):
    """A network that is not asked."""

    dtype = torch.float32


def runs(options: argparse.Namespace) -> Iterator[Run]:
    names = (options.samplings, options.networks, options.schedulers, options.samplers, options.steps, options.cfg)
    return itertools.starmap(Run, itertools.product(*names))


def measure(options: argparse.Namespace, root: Path) -> None:
    bench = Bench(enter_comfyui(root))
    import comfy.samplers

    options.schedulers = options.schedulers or list(comfy.samplers.SCHEDULER_NAMES)
    started, rows = time.perf_counter(), []
    print(f"{heading(SEED)}\n")
    for (sampling, network), chosen in itertools.groupby(runs(options), key=lambda run: run[:2]):
        model = bench.model(sampling, network)
        for run in chosen:
            rows += [bench.row(model, run, SEED + seed) for seed in range(options.seeds)]
        keep(options.json, summary(rows), SEED)
    print(f"{render({'rows': summary(rows)})}\n\n{time.perf_counter() - started:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samplings", nargs="+", default=list(SAMPLINGS), choices=list(SAMPLINGS))
    parser.add_argument("--networks", nargs="+", default=[*IDEAL, "random"], choices=[*IDEAL, "random"])
    parser.add_argument("--schedulers", nargs="+")
    parser.add_argument("--samplers", nargs="+", default=["euler", "dpmpp_2m"])
    parser.add_argument("--steps", nargs="+", type=int, default=[12, 20, 30])
    parser.add_argument("--cfg", nargs="+", type=float, default=[1.0, 5.0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--json", type=Path)
    run_inside(__file__, parser.parse_args(), measure)


if __name__ == "__main__":
    main()
