"""What the live view costs: steps whose event was sent against steps whose was not, in one run, in a real ComfyUI.

    python benchmarks/live_view.py [--steps 12] [--size 48] [--runs 40] [--renderers classic nodes2] [--alone]

Whether a step's event is sent is decided at random. A step's time is from one possible event to the next: sending, the
server's part, the next step, and whatever the browser takes from it. The figure is the ratio of the two medians, each
step's time as a share of its run's median; next to it the same for runs where nothing was sent, which is the noise, and
for both where 95 % of resampled ratios lie. Two processes share two cores with a browser, which takes some of theirs,
whatever we draw. With --alone, one process has one core and the browser the other, as where there are more cores than
processes. Needs chromium and Python's playwright.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
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
        tab.load(flow(tab.comfy, options.steps, options.size, 0, options.alone))
        tab.look_at(7)
        tab.run()  # the worker starts
        self.step_s: list[float] = []
        self.event_s: list[float] = []

    def run(self, which: str) -> list[tuple[bool, float]]:
        """A run's steps: whether the event before it was chosen, and its time as a share of the run's median."""
        self.tab.comfy.get(f"/hybridiff_tests/events/{which}")
        self.tab.choose(7, "seed", next(self.seeds))
        self.tab.run()
        turns = self.tab.comfy.get("/hybridiff_tests/events/all")
        times = [after - before for (before, *_), (after, *_) in itertools.pairwise(turns)]
        middle = statistics.median(times)
        self.step_s.append(middle)
        if which == "half":
            self.event_s += [spent for _, told, spent in turns if told]
        return [(told, time / middle) for (_, told, _), time in zip(turns, times)]


def ratio(steps: list[tuple[bool, float]]) -> float:
    return statistics.median(t for told, t in steps if told) / statistics.median(t for told, t in steps if not told)


def told(steps: list[tuple[bool, float]]) -> str:
    chance = random.Random(0)
    again = sorted(ratio(chance.choices(steps, k=len(steps))) for _ in range(2000))
    return f"{ratio(steps):.4f} ({again[50]:.4f} to {again[-51]:.4f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("steps", 12), ("size", 48), ("runs", 40)):
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
                found = {"half": [], "none": []}
                for _ in range(options.runs):
                    for which, steps in found.items():
                        steps += bench.run(which)
                step_ms, event_ms = (1e3 * statistics.median(of) for of in (bench.step_s, bench.event_s))
                print(
                    f"{name}, {2 * options.runs} runs of {options.steps} steps of {step_ms:.0f} ms, an event "
                    f"{event_ms:.2f} ms: sent / not sent {told(found['half'])}, noise {told(found['none'])}",
                    flush=True,
                )
                bench.tab.page.close()
        finally:
            opened.close()
            comfy.stop()


if __name__ == "__main__":
    main()
