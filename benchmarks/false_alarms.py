"""How near a worker's results are to this process's own, over many ordinary runs: does the handshake ever err?

    python benchmarks/false_alarms.py [--runs 1000] [--json FILE]

Models, types, latents, samplers and seeds change from run to run. Each run's first result is compared, and one of its
second half, as if the worker were new. It computes with other instructions of the processor than this process, and so
rounds otherwise, as unlike devices do.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.block import heading, keep, table
from benchmarks.inside import enter_comfyui, run_inside
from hybridiff_core.demo import text, trained
from hybridiff_core.rules import ROUNDING, ROUNDING_BFLOAT16, ROUNDING_FLOAT16
from tests.host.comfy_server import MODELS

SEED = 0
SAMPLERS, SCHEDULERS = ("euler", "dpmpp_2m", "heun", "lcm", "uni_pc"), ("simple", "normal", "karras", "beta")
ALLOWED = {"float32": ROUNDING, "bfloat16": ROUNDING_BFLOAT16, "float16": ROUNDING_FLOAT16}
COLUMNS = [
    ("model", lambda row: row["model"]),
    ("computed in", lambda row: row["type"]),
    ("runs", lambda row: row["runs"]),
    ("compared", lambda row: row["compared"]),
    ("furthest off", lambda row: f"{row['most']:.1e}"),
    ("allowed", lambda row: f"{row['allowed']:.0e}"),
    ("false alarms", lambda row: row["alarms"]),
]


def render(block: dict) -> str:
    return table(block["rows"], COLUMNS)


def measure(options: argparse.Namespace, root: Path) -> None:
    host = enter_comfyui(root)
    import comfy.sample
    import comfy.sd
    import torch
    from hybridiff_pack.hybridiff_core.handshake import Handshake
    from hybridiff_pack.hybridiff_core.plan import HybridPlan

    seen, off = [], Handshake.off

    def watched(self, *compared):
        seen.append(off(self, *compared))
        return seen[-1]

    Handshake.off = watched
    folder = MODELS / "diffusion_models"
    files = {"emoji DiT": folder / trained.NETWORK.name, "SD3 type": folder / "sd3_depth4.safetensors"}
    torch.rand(9, 9).mm(torch.rand(9, 9)).exp()  # this process's instructions are chosen now, the worker's at its start
    os.environ |= {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"}
    models = {
        (name, dtype): comfy.sd.load_diffusion_model(str(file))
        for name, file in files.items() for dtype in ALLOWED
    }  # fmt: skip
    for (_, dtype), model in models.items():
        model.set_model_compute_dtype(getattr(torch, dtype))
    drawn = random.Random(SEED)
    rows = defaultdict(lambda: {"runs": 0, "compared": 0, "most": 0.0, "allowed": 0.0, "alarms": 0})
    print(heading(SEED), flush=True)
    for number in range(options.runs):
        key = drawn.choice(list(models))
        size = drawn.choice((8, 12, 16, 24)) if key[0] == "SD3 type" else trained.LATENT[-1]
        generator = torch.Generator().manual_seed(number)
        batch = drawn.choice((1, 1, 2))
        noise = torch.randn(batch, trained.LATENT[0] if key[0] != "SD3 type" else 16, size, size, generator=generator)
        if key[0] == "SD3 type":
            conds = [
                [[torch.randn(1, 16, 4096, generator=generator), {"pooled_output": torch.randn(1, 2048)}]]
                for _ in range(2)
            ]
        else:
            conds = [
                [[tokens, {"pooled_output": pooled}]]
                for tokens, pooled in map(text.encode, (drawn.choice(("red heart", "cat", "rocket")), ""))
            ]
        for lease in host.leases.pool()._leases.values():
            lease.exchange._found.clear()
        seen.clear()
        acceleration = host.acceleration.Acceleration(HybridPlan(mode="exact"), ("same",))
        comfy.sample.sample(
            acceleration.apply(models[key]), noise, 3, drawn.uniform(1.5, 12.0), drawn.choice(SAMPLERS),
            drawn.choice(SCHEDULERS), *conds, torch.zeros_like(noise), seed=number, disable_pbar=True,
        )  # fmt: skip
        row, report = rows[key], acceleration.report
        assert len(seen) >= 2, report.lines
        row["runs"] += 1
        row["compared"] += len(seen)
        row["most"] = max(row["most"], *seen)
        row["alarms"] += any("another picture" in line for line in report.lines)
        row["allowed"] = ALLOWED[key[1]]
        if number % 100 == 99:
            print(number + 1, "runs,", sum(row["alarms"] for row in rows.values()), "false alarms", flush=True)
    found = [{"model": name, "type": dtype, **rows[name, dtype]} for name, dtype in sorted(rows)]
    print(f"\n{table(found, COLUMNS)}")
    keep(options.json, found, SEED)
    host.leases.pool().close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    run_inside(__file__, parser.parse_args(), measure)


if __name__ == "__main__":
    main()
