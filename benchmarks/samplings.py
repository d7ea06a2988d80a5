"""How far auto really puts a latent off, beside its tolerance, with every sampling and scheduler of ComfyUI.

    python benchmarks/samplings.py [--samplings EPS "EDM 700" ...] [--networks mixture pictures random trained SVD]
        [--schedulers karras ...] [--steps 12 20 30] [--cfg 1 5] [--samplers euler dpmpp_2m] [--seeds 1] [--json FILE]

Two networks' answer is known in closed form, the mean of the pictures that a noisy latent may have come from:
`mixture`, Gaussians with a picture's spectrum, and `pictures`, a few single pictures. `random` is a small one with
random weights, `trained` the small transformer that draws emoji, and `SVD` ComfyUI's own class of Stable Video
Diffusion, small and with random weights, under its own sampling. The samplings, schedulers and samplers are ComfyUI's,
and auto is the nodes' code on one device. `off` is how far the final latent is from that of the exact run, as a share
of it. Each predicted step is computed too, where it is, for how far it alone is off.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

PACK = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PACK))
from benchmarks import svd  # noqa: E402
from benchmarks.block import heading, keep, table  # noqa: E402
from benchmarks.denoisers import SEED, Ideal, Random, Trained  # noqa: E402
from benchmarks.inside import enter_comfyui, run_inside  # noqa: E402
from hybridiff_core.rules import AUTO_TOLERANCE  # noqa: E402

IDEAL = {"mixture": (6, 0.3), "pictures": (24, 0.0)}  # how many, and how much of the variance is within each
NETWORKS = (*IDEAL, "random", "trained", "SVD")
OF_SVD, STRENGTH = "EDM 700", 1.0  # its own sampling; how much of an answer of size 1 its random network gives


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
    kinds = {"ideal": tuple(IDEAL), **{network: (network,) for network in NETWORKS if network not in IDEAL}}
    for kind, name in itertools.product(kinds, SAMPLINGS):
        mine = [row for row in rows if row["sampling"] == name and row["network"] in kinds[kind]]
        if mine:
            worst = max(mine, key=lambda row: row["off"])
            over = [sum(row["off"] > times * AUTO_TOLERANCE for row in mine) for times in (1, 2)]
            found.append({
                "sampling": name, "network": kind, "runs": len(mine), "over": over,
                "predicted": sum(row["predicted"] for row in mine) / sum(row["calls"] for row in mine),
                "step_off": max(row["step_off"] for row in mine), "worst": worst,
            })  # fmt: skip
    return found


COLUMNS = [
    ("sampling", lambda row: row["sampling"]),
    ("network", lambda row: row["network"]),
    ("runs", lambda row: row["runs"]),
    ("predicted", lambda row: f"{row['predicted']:.0%}"),
    ("a step, worst", lambda row: f"{row['step_off']:.4f}" if "step_off" in row else "-"),
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
        self.off: list[float] = []  # by how much each predicted step alone, where it was, puts the latent off
        self._watch()

    def _watch(self) -> None:
        from hybridiff_pack.hybridiff_core.discrepancy import relative_error
        from hybridiff_pack.hybridiff_core.modes.estimates import guided
        from hybridiff_pack.hybridiff_core.modes.predicting import Predicting

        def watched(predicting, call, record):
            done = predict(predicting, call, record)
            given, right = (guided(call.eps(of), predicting.state.setting.cfg) for of in (done, call.here(call.units)))
            schedule, step = predicting.state.schedule, record.step
            times = relative_error((given,), (right,)) / max(schedule._likely(step), 1e-9)
            self.off.append(times * schedule._part(step))  # which goes by the error that was expected
            return done

        predict, Predicting.predict = Predicting.predict, watched

    def model(self, name: str, network: str):
        if network == "SVD":
            return svd.model(STRENGTH)
        sampling = SAMPLINGS[name]
        node = getattr(self.nodes, f"ModelSampling{sampling.node}")()
        (model,) = getattr(node, node.FUNCTION)(self.base, **sampling.values)
        others = {"random": Random, "trained": Trained}
        found = others[network](sampling) if network in others else Ideal(*IDEAL[network], sampling)
        model.set_model_unet_function_wrapper(found)
        return model

    def latent(self, model, run: Run, seed: int) -> torch.Tensor:
        denoiser = model.model_options.get("model_function_wrapper")
        empty = torch.zeros(1, *denoiser.shape) if denoiser else torch.zeros(svd.SHAPE)
        noise = self.sample.prepare_noise(empty, seed)
        conds = [[[torch.full((1, 1, 8), value), {}]] for value in (1.0, 0.0)] if denoiser else svd.conds()
        return self.sample.sample(
            model, noise, run.steps, run.cfg, run.sampler, run.scheduler, *conds, empty, seed=seed, disable_pbar=True
        )

    def row(self, model, run: Run, seed: int) -> dict:
        acceleration = self.host.acceleration.Acceleration(self.host.run.HybridPlan(), ())
        self.off.clear()
        exact, close = self.latent(model, run, seed), self.latent(acceleration.apply(model), run, seed)
        works = [step.work for step in acceleration.report.steps]
        off = ((close - exact).norm() / exact.norm()).item()
        return {
            **run._asdict(), "seed": seed, "predicted": works.count("predicted"), "calls": len(works),
            "off": round(off, 6), "step_off": round(max(self.off, default=0.0), 6),
        }  # fmt: skip


class Nothing(torch.nn.Module):
    """A network that is not asked."""

    dtype = torch.float32


def runs(options: argparse.Namespace) -> Iterator[Run]:
    names = (options.samplings, options.networks, options.schedulers, options.samplers, options.steps, options.cfg)
    every = itertools.starmap(Run, itertools.product(*names))
    of_four = ("trained", "Playground 2.5")  # whose node sets a latent of four channels; the trained one has sixteen
    every = (run for run in every if (run.network, run.sampling) != of_four)
    return (run for run in every if run.network != "SVD" or run.sampling == OF_SVD)


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
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--schedulers", nargs="+")
    parser.add_argument("--samplers", nargs="+", default=["euler", "dpmpp_2m"])
    parser.add_argument("--steps", nargs="+", type=int, default=[12, 20, 30])
    parser.add_argument("--cfg", nargs="+", type=float, default=[1.0, 5.0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--json", type=Path)
    run_inside(__file__, parser.parse_args(), measure)


if __name__ == "__main__":
    main()
