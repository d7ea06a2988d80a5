"""Messages to a worker and back while this process's main thread is busy with small operations, as a forward is.

    python benchmarks/messages.py [--before FOLDER] [--sizes 256 8192] [--repeats 200] [--json FILE]

Launching kernels, the main thread takes and gives Python's lock all the time; what other threads must do for a message
waits for it. A message is timed from its submission to the answer's being collected; the main thread looks for the
answer between a few operations. "idle" is the same with nothing to do. With --before the same is measured with the
package as it is in another folder (an older commit that has `Exchange.answered`), in turns. One core for this process,
one for the worker.
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

PACK = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PACK))
from benchmarks.block import heading, keep, table  # noqa: E402

INSIDE = "HYBRIDIFF_BENCHMARK"  # its value is the folder whose package is measured
TURN = 20  # messages before it is the other's turn
OPERATIONS = 20  # between two looks
COLUMNS = [
    ("KiB", lambda row: row["kib"]),
    ("main thread", lambda row: row["main"]),
    ("package", lambda row: row["package"]),
    ("median, ms", lambda row: f"{1e3 * row['median']:.2f}"),
    ("p90, ms", lambda row: f"{1e3 * row['p90']:.2f}"),
    ("of before, median", lambda row: f"{row['ratio']:.2f}" if row["ratio"] else "-"),
    ("of before, p90", lambda row: f"{row['ratio_p90']:.2f}" if row["ratio_p90"] else "-"),
]


def answer(folder: Path) -> None:
    """Measure with the package in `folder`: a line of JSON on standard input says what, one goes back."""
    sys.path.insert(0, str(folder))
    import torch

    from hybridiff_core.share import Unit
    from hybridiff_core.workers.devices import Place
    from hybridiff_core.workers.pool import Pool

    torch.set_num_threads(1)
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else [0]
    pool = Pool("demo", lambda place: {"threads": 1, "cpus": cores[1:2]})
    recipe = {"sizes": {"h": [[1]], "z": [[1]], "dtype": "float32"}}
    exchange = pool.prepare(Place("cpu#0", "cpu", "cpu"), torch.device("cpu"), recipe).ready(lambda: None)
    exchange.begin({"conds": [torch.zeros(1, 1, 1)]})
    if len(cores) > 1:
        os.sched_setaffinity(0, cores[:1])  # not before the worker's start, which would inherit it
    sigma, unit, small = torch.ones(1), [Unit(0, 0)], torch.ones(64)

    def message(x: torch.Tensor, busy: bool) -> float:
        since = time.perf_counter()
        exchange.submit(x, sigma, unit)
        while busy and not exchange.answered():
            for _ in range(OPERATIONS):
                small.mul(0.5).add(small)
        exchange.collect()
        return time.perf_counter() - since

    with torch.inference_mode():
        for line in sys.stdin:
            asked = json.loads(line)
            x = torch.zeros(1, asked["kib"] << 8)
            taken = [message(x, asked["busy"]) for _ in range(asked["count"])]
            print(json.dumps(taken), flush=True)
    pool.close()


class Side:
    """A process that measures one folder's package."""

    def __init__(self, folder: Path):
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, INSIDE: str(folder)},
        )  # fmt: skip

    def take(self, **asked: object) -> list[float]:
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(30)


def p90(taken: list[float]) -> float:
    return statistics.quantiles(taken, n=10)[-1]


def rows_of(sides: dict[str, Side], sizes: list[int], repeats: int):
    for kib in sizes:
        for busy in (False, True):
            taken: dict[str, list[float]] = {name: [] for name in sides}
            for side in sides.values():
                side.take(kib=kib, busy=busy, count=TURN)  # memory is made, and the first ones are slow
            for _ in range(-(-repeats // TURN)):
                for name, side in sides.items():
                    taken[name] += side.take(kib=kib, busy=busy, count=TURN)
            before = taken.get("before")
            for name, mine in taken.items():
                compared = before is not None and name != "before"
                yield {
                    "kib": kib, "main": "busy" if busy else "idle", "package": name,
                    "median": statistics.median(mine), "p90": p90(mine),
                    "ratio": statistics.median(mine) / statistics.median(before) if compared else None,
                    "ratio_p90": p90(mine) / p90(before) if compared else None,
                }  # fmt: skip


def render(block: dict) -> str:
    return table(block["rows"], COLUMNS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, help="the folder of an older commit")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 8192], help="KiB")
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    folders = {"before": options.before, "now": PACK} if options.before else {"now": PACK}
    sides = {name: Side(folder.resolve()) for name, folder in folders.items()}
    try:
        rows = list(rows_of(sides, options.sizes, options.repeats))
    finally:
        for side in sides.values():
            side.close()
    keep(options.json, rows, "none")
    print(f"{heading('none')}\n\n{render({'rows': rows})}")


if __name__ == "__main__":
    if folder := os.environ.get(INSIDE):
        answer(Path(folder))
    else:
        main()
