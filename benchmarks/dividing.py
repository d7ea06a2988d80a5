"""Exact calls by batch items and by tokens: one device against two, in a real ComfyUI, against the bound.

    python benchmarks/dividing.py [--only CASE ...] [--repeats 5] [--json FILE]

Two cores stand for two devices, one thread each; a worker's core is slowed by another program on it for the cases of
unlike devices. Runs of one and of two devices alternate; medians of their ratios. Two processes at once make each
other slower, for they share a cache: "cores" is the time of a forward alone over that of one beside another.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.block import heading, keep, line, table
from benchmarks.inside import enter_comfyui, run_inside
from tests.host.comfy_server import MODELS
from tests.host.make_models import fill, sd3_config

SEED = 0
DEPTH = 8
TEXT = 77
SPINS = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nos.nice(int(sys.argv[2]))\nwhile True: pass"
# how much slower a program of so much niceness makes another on its core, by the kernel's weights
NICE = {1.5: 3, 2.0: 0, 2.5: -2}


@dataclass(frozen=True)
class Case:
    """Runs of `steps` at `cfg`, of `batch` latents of `side` by `side`; the worker's device is `slower` times so.

    With two `models` a guider asks each of them for one of the prompts, as in Ideogram 4's template.
    """

    name: str
    cfg: float
    batch: int
    side: int
    steps: int
    slower: float = 1.0
    models: int = 1

    @property
    def at_most(self) -> int:
        """Repeats: unlike devices take long."""
        return 3 if self.slower > 1.0 or self.cfg > 1.0 else 99


CASES = [
    Case("batch of 4", 1.0, 4, 32, 16),
    Case("batch of 3", 1.0, 3, 32, 8),
    Case("one latent", 1.0, 1, 64, 8),
    Case("one latent, 4 steps", 1.0, 1, 64, 4),
    Case("one latent, small", 1.0, 1, 32, 20),
    Case("one latent, tiny", 1.0, 1, 8, 20),
    Case("one latent, unlike devices", 1.0, 1, 64, 6, 1.5),
    Case("one latent, unlike devices", 1.0, 1, 64, 6, 2.0),
    Case("one latent, unlike devices", 1.0, 1, 64, 6, 2.5),
    Case("two branches", 5.0, 1, 64, 4),
    Case("two branches, unlike devices", 5.0, 1, 64, 4, 1.5),
    Case("two branches, unlike devices", 5.0, 1, 64, 4, 2.0),
    Case("two branches, unlike devices", 5.0, 1, 64, 4, 2.5),
    Case("two models, a branch each", 5.0, 1, 64, 8, models=2),
]
COLUMNS = [
    ("what", lambda row: row["name"]),
    ("CFG", lambda row: f"{row['cfg']:g}"),
    ("latents", lambda row: f"{row['batch']} of {row['side']}x{row['side']}"),
    ("steps", lambda row: row["steps"]),
    ("second device", lambda row: f"{row['slower']:g} times as slow" if row["slower"] > 1 else "alike"),
    ("way", lambda row: row["way"]),
    ("one device s", lambda row: f"{row['one_s']:.2f}"),
    ("two devices s", lambda row: f"{row['two_s']:.2f}"),
    ("speed-up", lambda row: f"**{row['ratio']:.2f}x**"),
    ("repeats", lambda row: row["repeats"]),
    ("of all repeats", lambda row: f"{row['least']:.2f} to {row['most']:.2f}"),
    ("bound", lambda row: f"{row['bound']:.2f}"),
    ("cores", lambda row: f"{row['cores']:.2f}"),
    ("MiB a call, both ways", lambda row: f"{row['mib']:.1f}"),
    ("largest difference", lambda row: f"{row['difference']:.0e}"),
]


def render(block: dict) -> str:
    return table(block["rows"], COLUMNS)


def bound(case: Case, way: str) -> float:
    """What two devices could bring with messages that take no time, the second `slower` times as slow."""
    speeds = 1.0 + 1.0 / case.slower
    if way == "alone":
        return 1.0
    if way == "tokens":
        n = (case.side // 2) ** 2
        return speeds * (n + TEXT) / (n + 2 * TEXT)
    if way == "conds":
        return 2.0 / case.slower if case.slower < 2.0 else 1.0
    return case.batch / (case.batch - case.batch // 2) if way == "rows" else speeds


def model_file(depth: int) -> Path:
    """SD3's layout at `depth` blocks, with random weights; made once."""
    import comfy.ops
    import torch
    from comfy.ldm.modules.diffusionmodules.mmdit import MMDiT
    from safetensors.torch import save_file

    path = MODELS / "diffusion_models" / f"sd3_depth{depth}.safetensors"
    if not path.exists():
        network = MMDiT(
            **sd3_config(depth), dtype=torch.float32, device="cpu", operations=comfy.ops.disable_weight_init
        )
        fill(network, seed=depth, last=("final_layer.linear.weight",))
        weights = {**network.state_dict(), "pos_embed": 0.1 * torch.randn(1, 64 * 64, 64 * depth)}
        save_file(weights, str(path) + ".part")
        os.replace(str(path) + ".part", path)
    return path


@contextlib.contextmanager
def slowed(core: int, times: float) -> Iterator[None]:
    """Another program on the worker's core, which leaves it 1 / times of its time."""
    if times == 1.0:
        yield
        return
    program = subprocess.Popen([sys.executable, "-c", SPINS, str(core), str(NICE[times])])
    try:
        yield
    finally:
        program.kill()
        program.wait()


def measure(options: argparse.Namespace, root: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))
    host = enter_comfyui(root)
    import comfy.sample
    import comfy.sd
    import torch
    from hybridiff_pack.hybridiff_core.plan import HybridPlan

    random = torch.Generator().manual_seed(SEED)
    model = comfy.sd.load_diffusion_model(str(model_file(DEPTH)))

    def text(batch: int) -> list:
        words = torch.randn(1, TEXT, 4096, generator=random)
        return [[words, {"pooled_output": torch.randn(1, 2048, generator=random)}]]

    positive, negative = text(1), text(1)

    @functools.cache
    def other():
        return comfy.sd.load_diffusion_model(str(model_file(DEPTH)))

    def by_two(model, case: Case, noise, steps: int) -> torch.Tensor:
        from comfy_extras.nodes_custom_sampler import Guider_DualModel

        guider = Guider_DualModel(model, other())
        guider.set_conds(positive, negative)
        guider.set_cfg(case.cfg)
        sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", steps)
        euler = comfy.samplers.sampler_object("euler")
        return guider.sample(noise, torch.zeros_like(noise), euler, sigmas, disable_pbar=True, seed=SEED)

    def run(model, case: Case, noise, steps: int | None = None) -> tuple[float, torch.Tensor]:
        steps = steps or case.steps
        started = time.perf_counter()
        if case.models == 2:
            latent = by_two(model, case, noise, steps)
        else:
            latent = comfy.sample.sample(
                model, noise, steps, case.cfg, "euler", "normal", positive, negative, torch.zeros_like(noise),
                seed=SEED, disable_pbar=True,
            )  # fmt: skip
        return time.perf_counter() - started, latent

    acceleration = host.acceleration.Acceleration(HybridPlan(mode="exact"), ("same",))
    ours = acceleration.apply(model)
    warm = Case("", 5.0, 1, 32, 4)
    run(ours, warm, torch.randn(1, 16, 32, 32))
    del os.environ["HYBRIDIFF_WAIT"]  # the worker is there: from here on as users have it

    @functools.cache
    def cores_allow(side: int, batch: int) -> float:
        """A forward's time alone, over that of one beside another of the same on the other core."""
        noise = torch.randn(batch, 16, side, side, generator=random)
        taken = []
        for _ in range(3):
            alone, _ = run(model, Case("", 1.0, batch, side, 4), noise)
            run(ours, Case("", 5.0, batch, side, 6), noise)
            both = [step.compute_s[0] for step in acceleration.report.steps[2:] if step.way == "conds" and step.helpers]
            taken += [alone / 4 / statistics.median(both)] if both else []
        return statistics.median(taken) if taken else float("nan")

    results = []
    print(f"{heading(SEED)}\n\n{table([], COLUMNS)}", flush=True)
    for case in CASES:
        if options.only and not any(word in case.name for word in options.only):
            continue
        noise = torch.randn(case.batch, 16, case.side, case.side, generator=random)
        with slowed(cores[1], case.slower):
            for _ in range(2):  # ways are tried, parts fitted to the paces
                run(ours, case, noise, max(case.steps, 8))
            ones, twos, off = [], [], 0.0
            for _ in range(min(options.repeats, case.at_most)):
                one, expected = run(model, case, noise)
                two, latent = run(ours, case, noise)
                ones.append(one)
                twos.append(two)
                off = max(off, (expected - latent).abs().max().item() / max(1.0, expected.std().item()))
        report = acceleration.report
        last = report.steps[-1]
        way = last.way if last.helpers else "alone"
        ratios = [a / b for a, b in zip(ones, twos)]
        row = {**vars(case), "way": way, "one_s": statistics.median(ones), "two_s": statistics.median(twos)}
        row |= {
            "repeats": len(ratios),
            "ratio": statistics.median(ratios),
            "least": min(ratios),
            "most": max(ratios),
            "difference": off,
        }
        row |= {"bound": bound(case, way), "mib": (last.bytes_sent + last.bytes_received) / 2**20}
        row |= {"cores": cores_allow(case.side, case.batch), "lines": report.lines}
        results.append(row)
        print(line(row, COLUMNS), *report.lines, sep="\n  ", flush=True)
    keep(options.json, results, SEED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[], help="words of the cases' names")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    run_inside(__file__, parser.parse_args(), measure)


if __name__ == "__main__":
    main()
