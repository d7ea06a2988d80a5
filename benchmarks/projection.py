"""What more devices would bring, PROJECTED from block and transfer times measured on two.

    python benchmarks/projection.py STAGES_JSON

Takes what benchmarks/stages.py --json wrote for its pipeline at CFG 1. No run with as many devices
as the table names was timed: two cores are two devices.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.block import heading, kept, table
from hybridiff_core.network.split import balance

STEPS = 50
COLUMNS = [
    ("model (blocks)", lambda row: f"{row['model']} ({row['blocks']})"),
    ("devices", lambda row: row["devices"]),
    ("branches", lambda row: row["branches"]),
    ("stage step / forward", lambda row: f"{row['step']:.2f}"),
    ("k of T=50", lambda row: row["k"]),
    ("projected speed-up", lambda row: f"{row['projected']:.2f}"),
    ("bound", lambda row: f"{row['bound']:.2f}"),
]


def project(result: dict) -> list[dict]:
    """Rows for one network, from a result of stages.py at CFG 1."""
    times, rest, k = result["times"], result["rest"], result["k"]
    blocks = [(a + b) / 2 for a, b in zip(*times)]
    forward = rest + sum(blocks)
    rows = []
    for devices, branches in ((2, 1), (3, 1), (4, 1), (4, 2), (6, 2), (8, 2)):
        group = devices // branches
        openings = [tuple(opening) for opening in result["openings"][str(group - 1)]]
        found = balance([blocks] * group, rest, openings)
        if found is None:
            continue
        # the lead waits for z if the inner part and both transfers take longer than its own part
        step = max(max(found[1]), found[1][1] + result["transfer_s"])
        rows.append({
            "model": result["model"], "blocks": len(blocks), "devices": devices, "branches": branches, "k": k,
            "step": step / forward,
            "projected": STEPS * branches * forward / ((STEPS - k) * forward + k * step),
            "bound": STEPS * branches / ((STEPS - k) + k / group),
        })  # fmt: skip
    return rows


def render(block: dict) -> str:
    """Takes the block that stages.py kept."""
    return table([row for result in block["rows"] if result["cfg"] == 1.0 for row in project(result)], COLUMNS)


if __name__ == "__main__":
    print(f"{heading('of the given file')}\n\n{render(kept(Path(sys.argv[1])))}")
