"""What the live view costs: a run with the page open, its step events on against off, in a real ComfyUI.

    python benchmarks/live_view.py [--steps 12] [--size 48] [--pairs 9] [--renderers classic nodes2] [--alone]

Two processes on two cores, and a browser beside them: where there are no more cores, it takes some of theirs, whatever
we draw. With --alone, one process on one core and the browser on the other. On and off alternate, each first in every
second pair. Of a run counts its median step, events included; given is the median of the pairs'
ratios, and the same for off against off, which is the noise. Needs chromium and Python's playwright.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

PACK = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PACK))
from tests.browser.page import FLAGS, Tab, Workflow, find_browser  # noqa: E402
from tests.host.comfy_server import Comfy, find_comfyui, make_models  # noqa: E402

ID = "1f2e3d4c-0000-4000-8000-0000000000ff"


def flow(comfy: Comfy, steps: int, size: int, seed: int, alone: bool) -> dict:
    """Exact steps: the most events for a time."""
    made = Workflow(comfy)
    model = made.add("UNETLoader", (0, 0), ["sd3_depth4.safetensors", "default"])
    positive, negative = (
        made.add("TestConditioning", (0, 170 * place), [place, "fixed", 16, 4096, 2048]) for place in (1, 2)
    )
    latent = made.add("TestLatent", (0, 520), [3, "fixed", 16, size, 1])
    device = made.add("HybridiffDevices", (330, 0), ["auto" if alone else "same"])
    plan = made.add("HybridiffPlan", (330, 150), ["exact", "slope", 10, 12, 0.0004, 15, 20, 0.0, 0, "auto"])
    ours = made.add(
        "HybridiffKSampler", (660, 0), [seed, "fixed", steps, 5.0, "euler", "normal", 1.0],
        model=(model, 0), positive=(positive, 0), negative=(negative, 0), latent_image=(latent, 0),
        plan=(plan, 0), devices=(device, 0),
    )  # fmt: skip
    made.add("SaveLatent", (990, 0), ["bench"], samples=(ours, 0))
    return made.to_dict(ID)


class Bench:
    def __init__(self, tab: Tab, options: argparse.Namespace):
        self.tab, self.options, self.seeds = tab, options, itertools.count(1)
        self.spent: list[float] = []
        tab.load(flow(tab.comfy, options.steps, options.size, 0, options.alone))
        tab.look_at(7)
        tab.run()  # the worker starts

    def seconds(self, events: bool) -> float:
        """A run's median step, its event included."""
        self.tab.comfy.get(f"/hybridiff_tests/events/{'on' if events else 'off'}")
        self.tab.choose(7, "seed", next(self.seeds))
        entry = self.tab.run()
        spent = self.tab.comfy.get("/hybridiff_tests/events/off")
        self.spent += spent
        (report,) = entry["outputs"]["7"]["hybridiff"]
        step = statistics.median(record["seconds"] for record in report["steps"][1:])
        return step + (statistics.median(spent) if spent else 0.0)

    def ratio(self, swapped: bool, events: bool) -> float:
        """A run with `events` over one without."""
        order = (False, events) if swapped else (events, False)
        times = [self.seconds(on) for on in order]
        return times[1] / times[0] if swapped else times[0] / times[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("steps", 12), ("size", 48), ("pairs", 9)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--renderers", nargs="+", choices=("classic", "nodes2"), default=("classic", "nodes2"))
    parser.add_argument("--alone", action="store_true", help="one process; the browser has the other core")
    options = parser.parse_args()
    root, browser = find_comfyui(), find_browser()
    if root is None or browser is None:
        sys.exit("a ComfyUI (COMFYUI_PATH) and chromium (CHROMIUM_PATH) are needed; one of them is not here")
    make_models(root)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        if options.alone:
            os.sched_setaffinity(0, {0})
        comfy = Comfy(root, Path(folder) / "base")
        if options.alone:
            os.sched_setaffinity(0, set(range(1, os.cpu_count())))
        opened = play.chromium.launch(executable_path=browser, args=FLAGS)
        try:
            for name in options.renderers:
                bench = Bench(
                    Tab(opened.new_page(viewport={"width": 1500, "height": 1000}), comfy, name == "nodes2"), options
                )
                whole = bench.seconds(events=False)
                found = {True: [], False: []}
                for pair in range(options.pairs):
                    for events in found:
                        found[events].append(bench.ratio(bool(pair % 2), events))
                on, off = (statistics.median(ratios) for ratios in found.values())
                spread = ", ".join(f"{ratio:.3f}" for ratio in sorted(found[True]))
                event_s = statistics.median(bench.spent)
                print(
                    f"{name}, {options.steps} steps of {whole * 1e3:.0f} ms, an event {event_s * 1e3:.2f} ms: "
                    f"events on / off {on:.4f}, off / off {off:.4f} ({options.pairs} pairs: {spread})",
                    flush=True,
                )
                bench.tab.page.close()
        finally:
            opened.close()
            comfy.stop()


if __name__ == "__main__":
    main()
