"""What more devices would bring, PROJECTED from block and transfer times measured on two.

    python benchmarks/projection.py STAGES_JSON

Takes what benchmarks/stages.py --json wrote for its pipeline at CFG 1. No run with as many devices
as the table names was timed: two cores are two devices.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

PACK = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PACK))
from hybridiff_core.split import balance  # noqa: E402


def main(path: str) -> None:
    print("| model (blocks) | devices | branches | stage step / forward | k of T=50 | projected speed-up | bound |")
    print("|---|---|---|---|---|---|---|")
    for result in json.loads(Path(path).read_text()):
        if result["cfg"] != 1.0:
            continue
        times, rest, k = result["times"], result["rest"], result["k"]
        blocks = [(a + b) / 2 for a, b in zip(*times)]
        forward = rest + sum(blocks)
        for devices, branches in ((2, 1), (3, 1), (4, 1), (4, 2), (6, 2), (8, 2)):
            group = devices // branches
            openings = [tuple(opening) for opening in result["openings"][str(group - 1)]]
            found = balance([blocks] * group, rest, openings)
            if found is None:
                continue
            # the lead waits for z if the inner part and both transfers take longer than its own part
            step = max(max(found[1]), found[1][1] + result["transfer_s"])
            whole = 50 * branches * forward
            projected = whole / ((50 - k) * forward + k * step)
            bound = 50 * branches / ((50 - k) + k / group)
            print(
                f"| {result['model']} ({len(blocks)}) | {devices} | {branches} | {step / forward:.2f} | {k} | "
                f"{projected:.2f} | {bound:.2f} |"
            )


if __name__ == "__main__":
    main(sys.argv[1])
