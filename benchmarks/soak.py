"""Hundreds of mixed runs in one real ComfyUI, some interrupted, some with a killed worker: does anything grow or drift?

    python benchmarks/soak.py [--runs 500] [--seed 0] [--remote] [--json FILE]

Needs what the tests need; --remote a Python that has both ComfyUI's packages and Ray, and a ComfyUI in COMFYUI_PATH: a
second machine on loopback is then among the devices. After every run the memory (USS), descriptors, threads and
processes of ComfyUI and of its workers are noted; every exact run that was not interrupted is compared with stock
KSampler's latent. The first 50 runs are for warming up.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import json
import random
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil

PACK = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PACK))
from benchmarks.block import heading  # noqa: E402
from benchmarks.two_machines import OTHER, add_to, comfyui, workers_on  # noqa: E402
from tests.host.comfy_server import Comfy, Events  # noqa: E402
from tests.host.conftest import Bench  # noqa: E402
from tests.host.test_fallbacks import workers  # noqa: E402
from tests.remote.network import Machine  # noqa: E402

WARM_UP = 50
INTERRUPTED, KILLED = 0.10, 0.05
LIMIT = 1e-5
SEEDS = (1, 2, 3)
MIDDLE = {"warmup": "fixed", "start_step": 5, "parallel_steps": 4}
# what may grow, and by how much: between the medians of the first and the last runs after the warm-up, or each 100 runs
MOST = {"uss_mb": 20.0, "fds": 2.0, "threads": 2.0}


@dataclass(frozen=True)
class Case:
    """A graph: `weight` says how often it comes."""

    name: str
    weight: int
    family: str = "sd3"
    mode: str = "exact"
    devices: tuple[str, ...] = ("same",)
    cfg: float = 5.0
    lora: float = 0.0
    steps: int = 4
    size: int = 8
    free_u: float = 0.0  # strength of a patch in a U-Net, which a worker makes by the graph

    def bench(self, comfy: Comfy, seed: int) -> Bench:
        side = Bench(comfy, self.family, size=self.size)
        side.settings |= {"seed": seed, "cfg": self.cfg, "steps": self.steps}
        side.devices = self.devices
        if self.mode == "exact" and len(self.devices) > 1:  # a third device helps with a third cond
            more = side.text(8)
            side.positive = side.graph.add("ConditioningCombine", conditioning_1=side.positive, conditioning_2=more)
        if self.lora:
            side.model = side.graph.add(
                "LoraLoaderModelOnly", model=side.model, lora_name="sd3_depth4.safetensors", strength_model=self.lora
            )
        if self.free_u:
            side.model = side.graph.add("FreeU_V2", model=side.model, b1=self.free_u, b2=1.2, s1=0.9, s2=0.2)
        return side


CASES = [
    Case("exact", 16),
    Case("exact, three devices", 10, devices=("same", "same")),
    *(Case(f"exact, LoRA at {strength}", 6, lora=strength) for strength in (0.3, 0.6, 0.9)),
    Case("predict", 12, mode="predict", steps=12),
    Case("predict, LoRA at 0.6", 6, mode="predict", steps=12, lora=0.6),
    Case("pipeline, in turns", 12, mode="pipeline", steps=12),
    Case("pipeline, three devices", 10, mode="pipeline", devices=("same", "same"), steps=12),
    Case("pipeline, CFG 1", 8, mode="pipeline", cfg=1.0, steps=12),
    Case("by tokens, CFG 1", 8, cfg=1.0, size=32, steps=6),
    Case("by tokens, LoRA at 0.6", 4, cfg=1.0, size=32, steps=6, lora=0.6),
    *(Case(f"SD1.5, by its graph, FreeU at {strength}", 3, family="sd15", free_u=strength) for strength in (1.1, 1.3)),
    Case("SD1.5, exact", 4, family="sd15", steps=2),
    Case("SD1.5, predict", 1, family="sd15", mode="predict", steps=10),
    Case("SD1.5, pipeline", 1, family="sd15", mode="pipeline", steps=10),
]

ELSEWHERE = [
    Case("exact, a device elsewhere", 24, devices=(OTHER,)),
    Case("exact, a device here and one elsewhere", 16, devices=("same", OTHER)),
    Case("exact, a device elsewhere, LoRA at 0.6", 8, devices=(OTHER,), lora=0.6),
    Case("predict, a device elsewhere", 8, mode="predict", devices=(OTHER,), steps=12),
]


def sizes(process: psutil.Process) -> dict:
    return {
        "uss_mb": process.memory_full_info().uss / 2**20,
        "fds": process.num_fds(),
        "threads": process.num_threads(),
    }


def soak(comfy: Comfy, count: int, seed: int, say=print, other: Machine | None = None) -> dict:
    """Do `count` runs; gives a row for each, and what was wrong, in words. `other` is the machine "pc-b"."""
    cases = CASES + (ELSEWHERE if other else [])
    chance = random.Random(seed)
    tab = Events(comfy, f"soak-{seed}")
    host = psutil.Process(comfy.process.pid)
    stock, lengths = {}, {}
    rows, faults, ages = [], [], Counter()
    fresh = itertools.count(1)
    for number in range(1, count + 1):
        case = chance.choices(cases, [case.weight for case in cases])[0]
        happening = chance.choices(["interrupt", "kill", ""], [INTERRUPTED, KILLED, 1 - INTERRUPTED - KILLED])[0]
        if number <= len(cases):  # each once undisturbed, so that all models are there
            case, happening = cases[number - 1], ""
        if happening == "kill" and rows and rows[-1]["happening"] == "kill":  # twice in a row sets a device aside
            happening = ""
        sample_seed = chance.choice(SEEDS) if case.mode == "exact" else 1000 + number
        if case.mode == "exact" and (case, sample_seed) not in stock:
            side = case.bench(comfy, sample_seed)
            saved = side.save(side.sampler("KSampler"))
            stock[case, sample_seed] = take_latent(side, comfy.run(side.graph.nodes), saved)
        side = case.bench(comfy, sample_seed)
        # a value that exact mode does not use makes the graph a new one, which the server has to run
        side.plan = {"mode": case.mode, "slope_threshold": 0.001 + 1e-5 * next(fresh)}
        if case.mode != "exact":
            side.plan |= MIDDLE
        ours = side.sampler("HybridiffKSampler", **side.device_chain())
        saved = side.save(ours)
        mine = [*workers(comfy), *workers_on(other)]
        if case in ELSEWHERE:  # the device elsewhere as often as the one here
            mine = workers_on(other) or mine
        children = {worker.pid: worker for worker in mine}
        started = time.monotonic()
        prompt = comfy.queue(side.graph.nodes, tab.client)
        killed = None
        if happening:
            time.sleep(chance.uniform(0.0, lengths[case]))
            if happening == "interrupt":
                comfy.post("/interrupt", {})
            elif children:
                killed = children[chance.choice(sorted(children))]
                killed.kill()
        tab.end_of(prompt, limit_s=180.0)
        took = time.monotonic() - started
        status = comfy.get(f"/history/{prompt}")[prompt]
        outputs, events = status["outputs"], dict(status["status"]["messages"])
        interrupted = "execution_interrupted" in events
        row = {"run": number, "case": case.name, "happening": happening, "interrupted": interrupted, "took_s": took}
        if interrupted and happening != "interrupt":
            faults.append(f"run {number} ({case.name}): interrupted without having been asked")
        if "execution_error" in events:
            faults.append(f"run {number} ({case.name}, {happening}): {events['execution_error']['exception_message']}")
        if saved in outputs:
            lengths[case] = took
            (report,) = outputs[ours[0]]["hybridiff"]
            row |= {"lines": report["lines"], "shared": report["shared_calls"], "calls": report["calls"]}
            latent = take_latent(side, outputs, saved)
            if not latent.isfinite().all():
                faults.append(f"run {number} ({case.name}, {happening}): the latent is not finite")
            if case.mode == "exact":
                expected = stock[case, sample_seed]
                row["difference"] = (latent - expected).abs().max().item() / max(1.0, expected.std().item())
                if row["difference"] > LIMIT:
                    faults.append(f"run {number} ({case.name}, {happening}): off by {row['difference']:.1e}")
        comfy.post("/history", {"clear": True})  # the server would keep every report
        if killed:
            psutil.wait_procs([killed], timeout=5)
        row["host"] = sizes(host)
        row["host"]["processes"] = len(host.children(recursive=True))
        row["workers"] = []
        for worker in [*workers(comfy), *workers_on(other)]:
            ages[worker.pid] += 1
            with contextlib.suppress(psutil.Error):  # it may be ending
                row["workers"].append({"pid": worker.pid, "age": ages[worker.pid], **sizes(worker)})
        rows.append(row)
        if number % 25 == 0:
            say(f"{number} runs, {len(faults)} faults, host {row['host']['uss_mb']:.0f} MB, last took {took:.1f} s")
    tab.close()
    return {"rows": rows, "faults": faults}


def take_latent(side: Bench, outputs: dict, saved: str):
    """The saved latent; its file is removed, so that an answer out of the server's cache would be noticed."""
    latent = side.latent_of(outputs, saved)
    (file,) = outputs[saved]["latents"]
    (side.comfy.base / "output" / file["subfolder"] / file["filename"]).unlink()
    return latent


def slope(pairs: list[tuple[float, float]]) -> float:
    """Least squares, of the second by the first; 0 where there are too few."""
    if len({x for x, _ in pairs}) < 2:
        return 0.0
    return statistics.linear_regression(*zip(*pairs)).slope


def growth(rows: list[dict]) -> list[dict]:
    """How each size of ComfyUI and of its workers went after the warm-up.

    Memory is taken after runs of the SD3 model, for a worker holds one model. A killed worker
    is replaced: what is looked at is how far each is from its own mean, by its age.
    """
    late = rows[min(WARM_UP, len(rows) // 2) :]
    calm = [row for row in late if not row["case"].startswith("SD1.5")]
    window = min(50, len(calm) // 2)
    found = []
    for key in ("uss_mb", "fds", "threads", "processes"):
        values = [(row["run"], row["host"][key]) for row in calm]
        first, last = (statistics.median(v for _, v in some) for some in (values[:window], values[-window:]))
        found.append({"of": "ComfyUI", "key": key, "first": first, "last": last, "slope": 100 * slope(values)})
    lives: dict[int, list[dict]] = {}
    for row in rows:
        if not row["case"].startswith("SD1.5"):
            for worker in row["workers"]:
                if worker["age"] > 5:
                    lives.setdefault(worker["pid"], []).append(worker)
    lives = {pid: life for pid, life in lives.items() if len(life) >= 8}
    for key in ("uss_mb", "fds", "threads"):
        young, old, pairs = [], [], []
        for life in lives.values():
            quarter = len(life) // 4
            young.append(statistics.median(worker[key] for worker in life[:quarter]))
            old.append(statistics.median(worker[key] for worker in life[-quarter:]))
            age, value = (statistics.mean(worker[k] for worker in life) for k in ("age", key))
            pairs += [(worker["age"] - age, worker[key] - value) for worker in life]
        if lives:
            first, last = statistics.median(young), statistics.median(old)
            found.append({
                "of": f"a worker ({len(lives)} lives)", "key": key, "first": first, "last": last,
                "slope": 100 * slope(pairs),
            })  # fmt: skip
    for row in found:
        most = MOST.get(row["key"], 0.5)
        row["grew"] = row["last"] - row["first"] > most and row["slope"] > most
    return found


def markdown(result: dict) -> str:
    rows = result["rows"]
    names = {"uss_mb": "memory (USS), MB", "fds": "descriptors", "threads": "threads", "processes": "processes"}
    lines = ["| of | | first runs | last runs | a 100 runs | grew |", "|---|---|---|---|---|---|"]
    for row in result["growth"]:
        lines.append(
            f"| {row['of']} | {names[row['key']]} | {row['first']:.1f} | {row['last']:.1f} | {row['slope']:+.2f} | "
            f"{'YES' if row['grew'] else 'no'} |"
        )
    compared = [row["difference"] for row in rows if "difference" in row]
    calm = [row for row in rows if "lines" in row and row["happening"] != "kill" and not row["case"].startswith("SD")]
    elsewhere = [row for row in rows if "elsewhere" in row["case"] and row.get("shared", 0) > 0]
    alone = [row for row in calm if row["case"].startswith("exact") and row["shared"] < row["calls"]]
    happenings = Counter(row["happening"] for row in rows)
    tokens, graphs = (
        sum(what in row["case"] and row.get("shared", 0) > 0 for row in rows) for what in ("by tokens", "by its graph")
    )
    lines += [
        "",
        f"{len(rows)} runs: {happenings['interrupt']} asked to stop ({sum(row['interrupted'] for row in rows)} before "
        f"their end), {happenings['kill']} with a worker killed. {len(compared)} exact runs compared with KSampler, at "
        f"most {max(compared):.1e} off (limit {LIMIT:g}). {len(alone)} undisturbed exact runs were not shared in every "
        f"step; {tokens} runs were shared by tokens, {graphs} with a model made by its "
        f"graph{', ' + str(len(elsewhere)) + ' with a device elsewhere' if elsewhere else ''}. Grew: more than "
        f"{MOST['uss_mb']:g} MB, {MOST['fds']:g} descriptors, {MOST['threads']:g} threads or half a process, both "
        f"between the medians and a 100 runs. Verdict: {'BAD' if result['bad'] else 'good'}.",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    add_to(parser)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    # the server's own cache of results is bounded, so that what grows is not it; models stay in it
    with comfyui(options.remote, flags=("--cache-lru", "1000")) as (comfy, other):
        told = functools.partial(print, file=sys.stderr, flush=True)
        result = soak(comfy, options.runs, options.seed, told, other)
    result["growth"] = growth(result["rows"])
    result["bad"] = bool(result["faults"]) or any(row["grew"] for row in result["growth"])
    print(f"{heading(options.seed)}\n\n{markdown(result)}")
    for fault in result["faults"]:
        print(f"- {fault}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))
    sys.exit(1 if result["bad"] else 0)


if __name__ == "__main__":
    main()
