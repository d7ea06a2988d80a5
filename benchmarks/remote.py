"""What a step on another machine costs beside the wire: latents there and back between two network namespaces.

    python benchmarks/remote.py [--megabit 100 1000 10000] [--sizes 256 1024 8192] [--repeats 60] [--json FILE]

Two machines of tests/remote/network.py, joined by a link of each rate (tc's token bucket, both ways); a worker on the
second one that computes nothing. Needs root, `ip` and `tc`, and Ray. With --comfyui ROOT, run by a Python that has both
ComfyUI's packages and Ray, a picture with and without the second machine: SD3's layout at 8 blocks, 64x64, CFG 5.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

PACK = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PACK))
from benchmarks.block import heading, keep, table  # noqa: E402
from tests.remote.network import cluster  # noqa: E402

COLUMNS = [
    ("Mbit/s", lambda row: row["megabit"]),
    ("KiB each way", lambda row: row["kib"]),
    ("median, ms", lambda row: f"{row['median']:.1f}"),
    ("p90, ms", lambda row: f"{row['p90']:.1f}"),
    ("wire alone, ms", lambda row: f"{row['wire']:.1f}"),
    ("beyond it, ms", lambda row: f"{row['median'] - row['wire']:.1f}"),
]
OF_PICTURES = [
    ("Mbit/s", lambda row: row["megabit"]),
    ("one machine, s", lambda row: f"{row['alone_s']:.1f}"),
    ("two machines, s", lambda row: f"{row['seconds']:.1f}"),
    ("speed-up", lambda row: f"**{row['alone_s'] / row['seconds']:.2f}x**"),
    ("largest difference", lambda row: f"{row['off']:.0e}"),
]
SPEED = {"model": 8, "size": 64, "steps": 10, "devices": ["pc-b/cpu"], "wait": 1}


def rows_of(rates: list[int], sizes: list[int], repeats: int):
    for megabit in rates:
        with cluster(megabit) as (here, *_):
            run = here.start("tests/remote/in_pool.py")
            run.wait_for("ready", 60)
            run.say(json.dumps({"ask": "times", "sizes": sizes, "repeats": repeats}))
            told = json.loads(run.wait_for("told {", 600).removeprefix("told "))
            if "ms" not in told:
                raise SystemExit(told["said"])
            found = told["ms"]
            for kib in sizes:
                median, p90 = found[str(kib)]
                wire = 2 * kib * 8.192 / megabit
                yield {"megabit": megabit, "kib": kib, "median": median, "p90": p90, "wire": wire}


def picture(root: Path, megabit: int, repeats: int) -> list[dict]:
    """The same picture by stock and on two machines; the model's file is made once for each of them."""
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder) / "a", Path(folder) / "b" / "models" / "unet"
        for one in (ours, theirs):
            one.mkdir(parents=True)
        join = ["--comfyui", str(root), "--base-directory", str(theirs.parents[1])]
        with cluster(megabit, *join) as (here, *_):
            given = {"HYBRIDIFF_TEST_MODELS": str(ours), "HYBRIDIFF_THEIR_MODELS": str(theirs)}
            run = here.start("tests/remote/in_comfyui.py", str(root), **given)
            run.wait_for("ready", 120)
            found = []
            for _ in range(repeats + 1):
                printed = len(run.printed)
                run.say(json.dumps({**SPEED, "again": True}))
                told = json.loads(run.wait_for("done {", 900, printed).removeprefix("done "))
                found.append({"megabit": megabit, **told, "load": os.getloadavg()[0]})
            return found[1:]  # the first one starts the worker


def render(block: dict) -> str:
    return table(block["rows"], OF_PICTURES if "alone_s" in block["rows"][0] else COLUMNS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabit", type=int, nargs="+", default=[100, 1000, 10000])
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 1024, 8192], help="KiB")
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--comfyui", type=Path, help="measure pictures instead, over the first of --megabit")
    parser.add_argument("--pictures", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.comfyui:
        rows = picture(options.comfyui.resolve(), options.megabit[0], options.pictures)
    else:
        rows = list(rows_of(options.megabit, options.sizes, options.repeats))
    keep(options.json, rows, "none")
    print(f"{heading('none')}\n\n{render({'rows': rows})}")


if __name__ == "__main__":
    main()
