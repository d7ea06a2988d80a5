"""The table of faults: python -m tests.faults [--rounds 3] [--json FILE] [FAULT:MOMENT ...]

In a real ComfyUI process a worker is made to fail in each way at each moment. A row holds where the
run completes, its latent is what stock gives from the step on in which this process took over, the
fault was noticed in time, and the next run has a fresh worker and the right picture.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
from pathlib import Path

from tests.faults.drive import BLOCK_FAULTS, BLOCKS, FAULTS, MOMENTS
from tests.host.asked import Asked
from tests.host.comfy_server import PACK, find_comfyui, make_models

LIMIT = 1e-5
DEAD_S, STUCK_S, STUCK_STEPS = 2.0, 10.0, 20
HANGS = ("stopped",)


ROWS = [f"{fault}:{moment}" for fault in FAULTS for moment in MOMENTS]
ROWS += [f"{fault}:{moment}" for fault in BLOCK_FAULTS for moment in BLOCKS]


def driver(root: Path) -> Asked:
    """What runs rows, in a ComfyUI process."""
    make_models(root)
    return Asked(root, PACK / "tests" / "faults" / "drive.py")


def rows_of(chosen: list[str]) -> list[dict]:
    """The rows' results; each is printed as it comes."""
    root = find_comfyui()
    if root is None:
        sys.exit("no ComfyUI is to be found; set COMFYUI_PATH")
    asked, rows = driver(root), []
    for row in chosen:
        rows.append(asked.ask(row))
        print(line_of(rows[-1]), flush=True)
    asked.close()
    return rows


def faults_of(row: dict) -> list[str]:
    """What is wrong with a row."""
    # a worker that says half a sentence and then nothing is a stuck one
    stuck = row["fault"] in HANGS or (row["fault"] == "short" and row["moment"] in ("start", "load"))
    limit = max(STUCK_S, STUCK_STEPS * (row["median_step_s"] or 0)) if stuck else DEAD_S
    # a worker that has room for a second try goes on
    goes_on = row["fault"] == "out of memory" and row["noticed_s"] is None and not row["next_fresh"]
    wrong = []
    if not row["difference"] <= LIMIT:
        wrong.append(f"the latent is {row['difference']:.1e} off")
    if not goes_on and (row["noticed_s"] is None or row["noticed_s"] > limit):
        wrong.append(f"it was noticed after {row['noticed_s']} s, the limit is {limit:.1f}")
    if not (goes_on or any(" out: " in line for line in row["lines"])):
        wrong.append("the report does not say so")
    if not (row["next_shared"] and (row["next_fresh"] or goes_on) and row["next_difference"] <= LIMIT):
        wrong.append("the next run was not right, shared and with a fresh worker")
    return wrong


def line_of(row: dict) -> str:
    wrong = faults_of(row)
    said = next((line.split(": ", 1)[1].split(";")[0] for line in row["lines"] if " out: " in line), "")
    difference = max(row["difference"], row["next_difference"])
    return (
        f"| {row['fault']} | {row['moment']} | {'yes' if not wrong else 'NO: ' + ', '.join(wrong)} | "
        f"{difference:.1e} | {row['noticed_s'] or 0:.2f} s | {said[:100]} |"
    )


def summary(rows: list[dict]) -> str:
    """A table of all rounds: how often a row held, and the longest until the fault was noticed."""
    moments = list(dict.fromkeys(row["moment"] for row in rows))
    lines = ["| fault | " + " | ".join(moments) + " | max difference |", "|---" * (len(moments) + 2) + "|"]
    for fault in dict.fromkeys(row["fault"] for row in rows):
        mine = [row for row in rows if row["fault"] == fault]
        cells = []
        for moment in moments:
            here = [row for row in mine if row["moment"] == moment]
            held = sum(not faults_of(row) for row in here)
            noticed = max((row["noticed_s"] or 0.0 for row in here), default=0.0)
            cells.append(f"{held} of {len(here)}, {noticed:.2f} s" if here else "")
        difference = max(max(row["difference"], row["next_difference"]) for row in mine)
        lines.append(f"| {fault} | {' | '.join(cells)} | {difference:.1e} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", help="fault:moment, all without")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = []
    for number in range(options.rounds):
        print(f"\nRound {number + 1}, {datetime.date.today()}, {platform.system()}, {os.cpu_count()} cores\n")
        print("| fault | moment | survived | max difference | noticed after | what the report says |")
        print("|---|---|---|---|---|---|")
        found += [{**row, "round": number + 1} for row in rows_of(options.rows or ROWS)]
    bad = [row for row in found if faults_of(row)]
    print(f"\n{summary(found)}\n\n{len(found) - len(bad)} of {len(found)} rows hold.")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
