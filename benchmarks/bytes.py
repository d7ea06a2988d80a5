"""Bytes that cross between two devices for one image, counted over the real channel, tensors of the true sizes.

    python benchmarks/bytes.py

1024 x 1024 pixels, 50 steps, CFG, two devices. The network computes nothing; workers, frames,
channel and schedule are the real ones.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.block import heading, keep, line, table
from hybridiff_core.demo.demo_backend import DemoBackend
from hybridiff_core.demo.model import sample_euler, sigmas
from hybridiff_core.engine import Engine
from hybridiff_core.plan import HybridPlan
from hybridiff_core.report import RunReport
from hybridiff_core.setting import Setting
from hybridiff_core.share import Unit
from hybridiff_core.workers.devices import Place
from hybridiff_core.workers.pool import Pool

STEPS = 50
# latent; h and z at the balanced cut, in the half precision that both compute in.
# SDXL: inner part from input block 7 (640 channels come in) to output block 1 (1280 go out), at 32 x 32.
# SD3-medium: half of the 24 blocks; 4096 image tokens and 154 of text, 1536 wide.
SHAPES = {
    "SDXL": ((1, 4, 128, 128), [[1, 640, 32, 32]], [[1, 1280, 32, 32]]),
    "SD3": ((1, 16, 128, 128), [[1, 4096, 1536], [1, 154, 1536]], [[1, 4096, 1536], [1, 154, 1536]]),
}
PUBLISHED = {"SDXL": (0.516, 9.83), "SD3": (0.189, 1.29)}  # the paper's own, AsyncDiff's; GB
COLUMNS = [
    ("model", lambda row: row["model"]),
    ("mode", lambda row: row["mode"]),
    ("k", lambda row: row["k"] or "-"),
    ("GB", lambda row: f"{row['gb']:.4f}"),
    ("the paper", lambda row: PUBLISHED[row["model"]][0]),
    ("AsyncDiff", lambda row: PUBLISHED[row["model"]][1]),
]


def render(block: dict) -> str:
    return table(block["rows"], COLUMNS)


def count(model: str, plan: HybridPlan) -> float:
    """GB of 1e9 bytes, both ways together."""
    latent, h, z = SHAPES[model]
    sizes = {"h": h, "z": z, "dtype": "float16"}
    conds = [torch.zeros(1, 1, 1), torch.zeros(1, 1, 1)]
    pool = Pool("demo", lambda place: {"threads": 1})
    try:
        lease = pool.prepare(Place("cpu#0", "cpu (process 2)", "cpu"), torch.device("cpu"), {"sizes": sizes})
        exchange = lease.ready(lambda: None)
        exchange.begin({"conds": conds})
        here = DemoBackend({"device": "cpu"})
        here.load({"sizes": sizes})
        here.begin({"conds": conds}, fresh=True)
        report = RunReport("", [])
        setting = Setting(plan, sigmas(STEPS).tolist(), 5.0, openings=lambda blocks, segments: [(1, 2)])
        engine = Engine([exchange], report, setting)

        def predict(x, sigma):
            def network(units, through=None):
                done = here.predict(x, sigma, [(unit.branch, unit.index) for unit in units], through)
                return {unit.branch: prediction for unit, prediction in zip(units, done)}

            done = engine.step(x, sigma, [Unit(0, 0), Unit(1, 0)], network, lambda units: None)
            return done[0], done[1]

        before = exchange.channel.bytes_sent + exchange.channel.bytes_received
        with torch.inference_mode():
            sample_euler(predict, torch.zeros(latent), sigmas(STEPS), 5.0)
        return (exchange.channel.bytes_sent + exchange.channel.bytes_received - before) / 1e9
    finally:
        pool.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    print(f"{heading('none')}\n\n{table([], COLUMNS)}")
    for model in SHAPES:
        for mode, k in (("exact", 0), ("pipeline", 5), ("predict", 5), ("pipeline", 20), ("predict", 20)):
            plan = HybridPlan(mode=mode, warmup="fixed", start_step=15, parallel_steps=k or 20)
            rows.append({"model": model, "mode": mode, "k": k, "gb": count(model, plan)})
            print(line(rows[-1], COLUMNS), flush=True)
    keep(options.json, rows, "none")


if __name__ == "__main__":
    main()
