"""The first run of a fresh ComfyUI, in which the worker is started, beside KSampler's: nobody waits for a helper.

    python benchmarks/start.py [--steps 20] [--batch 32] [--repeats 5] [--json FILE]

Each run is a process of its own, as ComfyUI is when it was just started; one core for it and one for its worker. The
kinds alternate. The small trained transformer draws several pictures at once, so that a run is longer than a start.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.block import heading, keep, table
from benchmarks.inside import enter_comfyui, run_inside
from benchmarks.speed import conds_of
from hybridiff_core.demo import trained
from tests.host.comfy_server import MODELS

SEED = 0
STOCK, BESIDE = "KSampler", "KSampler, another program starting on the other core"
KINDS = {STOCK: None, BESIDE: None, "Hybridiff exact, first run": {"mode": "exact"}, "Hybridiff auto, first run": {}}
START = """
import subprocess, sys
while True:
    subprocess.run([sys.executable, "-c", "import sys; sys.path.insert(0, {root!r}); import comfy.cli_args; "
                    "comfy.cli_args.args.cpu = True; import comfy.sd"], stderr=subprocess.DEVNULL)
"""
COLUMNS = [
    ("what", lambda row: row["what"]),
    ("s a run", lambda row: f"{row['seconds']:.2f}"),
    ("against KSampler's", lambda row: f"**{row['ratio']:.1%}**"),
    ("of all repeats", lambda row: f"{row['least']:.1%} to {row['most']:.1%}"),
    ("s before the first step", lambda row: f"{row['first_s']:.2f}" if row["first_s"] is not None else "-"),
    ("worker ready after s", lambda row: f"{row['ready_s']:.1f}" if row["ready_s"] else "-"),
    ("steps shared", lambda row: row["shared"]),
]


def render(block: dict) -> str:
    return table(block["rows"], COLUMNS)


def one(options: argparse.Namespace, root: Path) -> dict:
    """One run of a kind, as its own process."""
    options.other = sorted(os.sched_getaffinity(0))[1]
    host = enter_comfyui(root)
    os.environ.pop("HYBRIDIFF_WAIT", None)
    import comfy.sample
    import comfy.sd
    import torch
    from hybridiff_pack.hybridiff_core.plan import HybridPlan

    model = comfy.sd.load_diffusion_model(str(MODELS / "diffusion_models" / trained.NETWORK.name))

    def cond(caption: str) -> list:
        return [conds_of([caption] * options.batch)]

    noise = torch.randn(options.batch, *trained.LATENT, generator=torch.Generator().manual_seed(SEED))
    acceleration = None
    if (plan := KINDS[options.one]) is not None:
        acceleration = host.acceleration.Acceleration(HybridPlan(**plan), ("same",))
        model = acceleration.apply(model)
    other = None
    if options.one == BESIDE:  # cores share their memory and a cache: what a start there costs here without us
        other = subprocess.Popen(
            ["taskset", "-c", str(options.other), sys.executable, "-c", START.format(root=str(root))]
        )
    started = time.perf_counter()
    comfy.sample.sample(
        model, noise, options.steps, 5.0, "euler", "simple", cond("red heart"), cond(""), torch.zeros_like(noise),
        seed=SEED, disable_pbar=True,
    )  # fmt: skip
    found = {"seconds": time.perf_counter() - started, "first_s": None, "ready_s": None, "shared": "-"}
    if other:
        other.kill()
        other.wait()
    if acceleration:
        report = acceleration.report
        found |= {"first_s": report.first_step_s, "shared": f"{report.shared_steps} of {len(report.steps)}"}
        helpers = [bool(step.helpers) for step in report.steps]
        before = report.steps[: helpers.index(True)] if any(helpers) else []
        found["ready_s"] = sum(step.seconds for step in before)
        host.leases.pool().close()
    return found


def measure(options: argparse.Namespace, root: Path) -> None:
    if options.one:
        print(json.dumps(one(options, root)))
        return
    found: dict[str, list[dict]] = {what: [] for what in KINDS}
    print(heading(SEED), flush=True)
    for _ in range(options.repeats):
        for what in KINDS:
            command = [sys.executable, __file__, *sys.argv[1:], "--one", what]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[what].append(json.loads(done.stdout.splitlines()[-1]))
            print(what, found[what][-1], flush=True)
    rows = []
    for what, runs in found.items():
        ratios = [run["seconds"] / stock["seconds"] for run, stock in zip(runs, found[STOCK])]
        middle = sorted(runs, key=lambda run: run["seconds"])[len(runs) // 2]
        row = {**middle, "what": what, "ratio": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}
        rows.append(row)
    print(f"\n{table(rows, COLUMNS)}")
    keep(options.json, rows, SEED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", choices=KINDS, help=argparse.SUPPRESS)
    run_inside(__file__, parser.parse_args(), measure)


if __name__ == "__main__":
    main()
