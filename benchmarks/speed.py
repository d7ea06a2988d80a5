"""One device against two, and against ComfyUI's own split, in a real ComfyUI: two cores stand for two devices.

    python benchmarks/speed.py [--steps 20] [--batch 8] [--repeats 5] [--json FILE]

The small trained transformer draws several pictures at once, so that a step is long enough to be shared. Runs itself
again with ComfyUI's own Python; one thread for each device. The kinds of run alternate; medians of the ratios are
given. ComfyUI's own MultiGPU CFG Split shares a step between threads of one process. It knows GPUs only, so it is
told that there are two CPU devices; its process may then use both cores.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.block import heading, keep, table
from benchmarks.inside import enter_comfyui, run_inside
from hybridiff_core.demo import text, trained
from tests.host.comfy_server import MODELS

SEED = 0
STOCK, RIVAL = "KSampler, one device", "ComfyUI's MultiGPU CFG Split, two CPU devices by a shim"
MODES = {"Hybridiff exact, two devices": {"mode": "exact"}, "Hybridiff auto, two devices": {}}
COLUMNS = [
    ("CFG", lambda row: f"{row['cfg']:g}"),
    ("what", lambda row: row["what"]),
    ("s a run", lambda row: f"{row['seconds']:.2f}"),
    ("speed-up", lambda row: f"**{row['ratio']:.2f}x**"),
    ("of all repeats", lambda row: f"{row['least']:.2f} to {row['most']:.2f}"),
    ("bound", lambda row: f"{row['bound']:.2f}" if row["bound"] else "-"),
    ("model calls computed", lambda row: row["computed"] or "-"),
    ("waiting", lambda row: f"{row['waiting']:.1%}" if row["waiting"] is not None else "-"),
    ("KiB a step, both ways", lambda row: f"{row['bytes'] / 1024:.0f}" if row["bytes"] else "-"),
    ("largest difference", lambda row: f"{row['difference']:.0e}"),
]


def render(block: dict) -> str:
    return table(block["rows"], COLUMNS)


def split_by_the_host(model):
    """`model` for ComfyUI's own split, on two CPU devices that it is made to see."""
    import comfy.model_management
    import comfy.multigpu
    import torch

    both = [torch.device("cpu"), torch.device("cpu", 1)]
    comfy.model_management.get_all_torch_devices = lambda exclude_current=False: both[exclude_current:]
    split = comfy.multigpu.create_multigpu_deepclones(model, 2)
    assert len(split.get_additional_models_with_key("multigpu")) == 1
    return split


def conds_of(captions: list[str]) -> list:
    """One cond with a row for each caption."""
    import torch

    tokens, pooled = (torch.cat(parts) for parts in zip(*map(text.encode, captions)))
    return [tokens, {"pooled_output": pooled}]


def measure(options: argparse.Namespace, root: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))
    host = enter_comfyui(root)
    import comfy.sample
    import comfy.sd
    import torch
    from hybridiff_pack.hybridiff_core.plan import HybridPlan

    model = comfy.sd.load_diffusion_model(str(MODELS / "diffusion_models" / trained.NETWORK.name))
    shown = ["red heart", "birthday cake", "cat", "green apple", "sunflower", "rocket", "pizza", "penguin"]
    captions = [shown[place % len(shown)] for place in range(options.batch)]
    positive, negative = ([conds_of(captions)], [conds_of([""] * options.batch)])
    random = torch.Generator().manual_seed(SEED)
    noise = torch.randn(options.batch, *trained.LATENT, generator=random)

    def run(model, cfg: float, steps: int = options.steps, both: bool = False) -> tuple[float, torch.Tensor]:
        if both:
            os.sched_setaffinity(0, cores[:2])  # the threads that it starts are to have a core each
        started = time.perf_counter()
        try:
            latent = comfy.sample.sample(
                model, noise, steps, cfg, "euler", "simple", positive, negative, torch.zeros_like(noise), seed=SEED,
                disable_pbar=True,
            )  # fmt: skip
        finally:
            os.sched_setaffinity(0, cores[:1])
        return time.perf_counter() - started, latent

    accelerations = {
        (cfg, what): host.acceleration.Acceleration(HybridPlan(**plan), ("same",))
        for what, plan in MODES.items() for cfg in (5.0, 1.0) if cfg > 1 or plan == {}
    }  # fmt: skip
    hosts = split_by_the_host(model)
    for cfg in (5.0, 1.0):
        run(model, cfg, 1)
    for (cfg, _), acceleration in accelerations.items():
        run(acceleration.apply(model), cfg)  # cuts are chosen, workers start
    del os.environ["HYBRIDIFF_WAIT"]  # the workers are there: from here on as users have it
    run(hosts, 5.0, 1, both=True)
    taken, ratios, off = {}, {}, {}
    print(heading(SEED), f"\n{options.batch} pictures at once, {options.steps} steps")
    for _ in range(options.repeats):
        for cfg in (5.0, 1.0):
            stock, expected = run(model, cfg)
            runs = {what: run(a.apply(model), of) for (of, what), a in accelerations.items() if of == cfg}
            if cfg > 1:
                runs[RIVAL] = run(hosts, cfg, both=True)
            for what, (seconds, latent) in {STOCK: (stock, expected), **runs}.items():
                key = (cfg, what)
                taken.setdefault(key, []).append(seconds)
                ratios.setdefault(key, []).append(stock / seconds)
                off[key] = max(off.get(key, 0.0), (expected - latent).abs().max().item())
                print(f"CFG {cfg:g}  {what}: {seconds:.2f} s, {ratios[key][-1]:.2f}x", flush=True)
    rows = []
    for cfg, what in taken:
        key = (cfg, what)
        report = accelerations[key].report if key in accelerations else None
        works = [step.work for step in report.steps] if report else []
        row = {"cfg": cfg, "what": what, "seconds": statistics.median(taken[key])}
        row |= {"ratio": statistics.median(ratios[key]), "least": min(ratios[key]), "most": max(ratios[key])}
        row |= {"difference": off[key], "computed": None, "waiting": None, "bytes": None}
        row["bound"] = 2.0 if cfg > 1 and what != STOCK else None
        if report:
            assert report.shared_steps or cfg == 1, report.lines
            cost = sum({"predicted": 0.0, "exact": 1.0}.get(work, 0.5) for work in works)
            row["bound"] = (2.0 if report.shared_steps else 1.0) * options.steps / cost
            row["computed"] = ", ".join(f"{works.count(work)} {work}" for work in dict.fromkeys(works))
            row["waiting"] = sum(step.wait_s for step in report.steps) / taken[key][-1]
            row["bytes"] = statistics.median_high(step.bytes_sent + step.bytes_received for step in report.steps)
        rows.append(row)
    print(f"\n{table(rows, COLUMNS)}")
    keep(options.json, rows, SEED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    run_inside(__file__, parser.parse_args(), measure)


if __name__ == "__main__":
    main()
