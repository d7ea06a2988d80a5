"""A process with diffusers' pipelines on machine "a", for a device of "b". Run on that machine.

Reads a pipeline's name a line ("sdxl" or "sd3") and prints a line of JSON for it: how far off, and the report's.
"""

import importlib
import json
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])

from hybridiff_core.plan import HybridPlan  # noqa: E402
from tests.diffusers.conftest import MAKERS, STEPS  # noqa: E402

module = importlib.import_module("hybridiff_core.diffusers.accelerate")


def compare(name: str, mode: str = "exact", **options) -> dict:
    tiny = MAKERS[name]()
    tiny.pipe.set_progress_bar_config(disable=True)
    stock = tiny(**options)
    acceleration = module.accelerate(tiny.pipe, devices=["pc-b/cpu"], plan=HybridPlan(mode=mode))
    try:
        off = ((tiny(**options) - stock).abs().max() / stock.abs().max().clamp_min(1.0)).item()
    finally:
        acceleration.take_off()
    report = acceleration.report
    return {
        "off": off, "shared": report.shared_steps, "steps": STEPS, "lines": report.lines, "devices": report.devices,
        "ray": "ray" in sys.modules,
    }  # fmt: skip


if __name__ == "__main__":
    cuts, _ = module.known()
    module.known = lambda: (cuts, None)  # steps of a few milliseconds say nothing of a device's pace
    print("ready", flush=True)
    for line in sys.stdin:
        print("told " + json.dumps(compare(**json.loads(line))), flush=True)
    module.pool().close()
    print("over", flush=True)
