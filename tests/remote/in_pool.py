"""A process on machine "a" with a pool of workers of the demo's, as ComfyUI's is. Run on that machine.

Reads a line of JSON and prints one for it: {"ask": "exact" or "times" or "devices"}.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path[0] = str(Path(__file__).resolve().parents[2])

from hybridiff_core.demo.demo_backend import DemoBackend  # noqa: E402
from hybridiff_core.demo.model import ModelConfig, words_to_context  # noqa: E402
from hybridiff_core.share import Unit  # noqa: E402
from hybridiff_core.workers.devices import choices, places  # noqa: E402
from hybridiff_core.workers.pool import Pool  # noqa: E402

CPU = torch.device("cpu")
CONFIG = {"depth": 2, "width": 64}
UNITS = [Unit(0, 0), Unit(1, 0)]


def worker(pool: Pool, recipe: dict):
    found, said = places(["pc-b/cpu"], CPU)
    if not found:
        return None, said
    lease = pool.prepare(found[0], CPU, recipe)
    try:
        return lease, [lease.ready(lambda: None)]
    except Exception as error:  # noqa: BLE001 - told to the test
        pool.release(lease)
        return None, [str(error)]


def exact(pool: Pool) -> dict:
    """The largest difference between the other machine's predictions and this one's, of whole units and of rows."""
    lease, found = worker(pool, {"config": CONFIG})
    if lease is None:
        return {"off": 1.0, "said": found}
    (exchange,) = found
    conds = [words_to_context(text, ModelConfig(**CONFIG)) for text in ("a cat", "")]
    local = DemoBackend({"device": "cpu"})
    local.load({"config": CONFIG})
    local.begin({"conds": conds}, fresh=True)
    exchange.begin({"conds": conds})
    x, sigma = torch.randn(4, 4, 64, 64, generator=torch.Generator().manual_seed(0)), torch.full((4,), 2.0)
    off = []
    for rows in (None, (1, 3, 4)):
        first, end, _ = rows or (0, 4, 4)
        exchange.submit(x, sigma, UNITS, rows)
        own = local.predict(x[first:end], sigma[first:end], [(0, 0), (1, 0)], None, rows)
        parts = exchange.collect().parts
        off += [(part.prediction - mine).abs().max().item() for part, mine in zip(parts, own)]
    pid = exchange.process.pid
    pool.release(lease)
    return {"off": max(off), "parts": len(off), "ray": "ray" in sys.modules, "bridge": pid}


def times(pool: Pool, sizes: list[int], repeats: int = 40) -> dict:
    """Median and 90th percentile of milliseconds of a step that computes nothing, by KiB each way."""
    lease, found = worker(pool, {"sizes": {"h": [[1]], "z": [[1]], "dtype": "float32"}})
    if lease is None:
        return {"said": found}
    (exchange,) = found
    exchange.begin({"conds": [torch.zeros(1, 1, 1)]})
    found = {}
    for kib in sizes:
        x, sigma, took = torch.randn(1, kib * 256), torch.ones(1), []
        for _ in range(repeats + 3):
            since = time.perf_counter()
            exchange.submit(x, sigma, [Unit(0, 0)])
            exchange.collect()
            took.append(1e3 * (time.perf_counter() - since))
        took = sorted(took[3:])
        found[kib] = [statistics.median(took), took[int(0.9 * len(took))]]
    pool.release(lease)
    return {"ms": found}


if __name__ == "__main__":
    torch.set_num_threads(1)
    pool = Pool("demo", lambda place: {"threads": 1})
    print("ready", flush=True)
    with torch.inference_mode():
        for line in sys.stdin:
            case = json.loads(line)
            match case.pop("ask"):
                case "exact":
                    told = exact(pool)
                case "times":
                    told = times(pool, **case)
                case _:
                    told = {"choices": choices()}
            print("told " + json.dumps(told), flush=True)
    pool.close()
    print("over", flush=True)
