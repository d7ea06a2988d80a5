"""Interrupts at random moments of runs in a real ComfyUI: how soon sampling stops, and what is left behind.

    python benchmarks/interrupts.py [--interrupts 200] [--seed 0] [--size 64] [--remote] [--json FILE]

Needs what the tests need; --remote a Python that has both ComfyUI's packages and Ray, and a ComfyUI in COMFYUI_PATH: a
second machine on loopback then has a part in some of the runs. Each interrupt comes at a random moment of such a run,
evenly spread, the worker's preparation and every stage of the plan included. After each, the workers must be the same
processes, and the next exact run must give stock KSampler's latent.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import random
import statistics
import sys
import time
from collections import Counter
from pathlib import Path

PACK = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PACK))
from benchmarks.block import heading  # noqa: E402
from benchmarks.two_machines import OTHER, add_to, comfyui, workers_on  # noqa: E402
from tests.host.comfy_server import Comfy, Events  # noqa: E402
from tests.host.conftest import Bench  # noqa: E402
from tests.host.test_fallbacks import workers  # noqa: E402
from tests.remote.network import Machine  # noqa: E402

STEPS, START, MIDDLE = 14, 5, 5
LIMIT = 1e-5
CASES = {
    "exact": ("exact", 5.0),
    "exact, by tokens": ("exact", 1.0),
    "predict": ("predict", 5.0),
    "pipeline, in turns": ("pipeline", 5.0),
    "pipeline, CFG 1": ("pipeline", 1.0),
    "exact, by its graph": ("exact", 5.0),  # a U-Net with FreeU, which a worker patches by the graph
    "exact, a device elsewhere": ("exact", 5.0),
}
ELSEWHERE = "exact, a device elsewhere"


def long_run(comfy: Comfy, case: str, size: int) -> Bench:
    mode, cfg = CASES[case]
    graph = case == "exact, by its graph"
    side = Bench(comfy, "sd15" if graph else "sd3", size=size // 2 if graph else size)
    side.settings |= {"steps": STEPS, "cfg": cfg}
    side.devices = devices_of(case)
    if graph:
        side.model = side.graph.add("FreeU_V2", model=side.model, b1=1.2, b2=1.2, s1=0.9, s2=0.2)
    side.plan = {"mode": mode}
    if mode != "exact":
        side.plan |= {"warmup": "fixed", "start_step": START, "parallel_steps": MIDDLE}
    side.save(side.sampler("HybridiffKSampler", **side.device_chain()))
    return side


def devices_of(case: str) -> tuple[str, ...]:
    return (OTHER,) if case == ELSEWHERE else ("same",)


def latent(comfy: Comfy, seed: int, kind: str, devices: tuple[str, ...] = ("same",)):
    """A small exact run's latent, by "KSampler" or ours, and our report."""
    side = Bench(comfy, "sd3", size=8)
    side.settings["seed"] = seed
    side.devices = devices
    sampled = side.sampler(kind, **(side.device_chain() if kind != "KSampler" else {}))
    saved = side.save(sampled)
    outputs = comfy.run(side.graph.nodes)
    return side.latent_of(outputs, saved), outputs.get(sampled[0], {}).get("hybridiff")


def stage_of(case: str, steps_done: int | None) -> str:
    """Where in the plan an interrupt came; None steps: before sampling."""
    if steps_done is None:
        return "before the first step's end"
    if CASES[case][0] == "exact":
        return "a step"
    return "warm-up" if steps_done < START else "middle" if steps_done < START + MIDDLE else "after the middle"


def interrupt_runs(comfy: Comfy, count: int, seed: int, size: int, say=print, other: Machine | None = None) -> dict:
    """Interrupt `count` runs; gives every interrupt's row, and what was wrong, in words. `other`: machine "pc-b"."""
    chance = random.Random(seed)
    cases = [case for case in CASES if other or case != ELSEWHERE]
    tab = Events(comfy, f"interrupts-{seed}")
    expected = {n: latent(comfy, n, "KSampler")[0] for n in range(10_000, 10_010)}
    lengths, usual_step = {}, {}
    for case in cases:
        for _ in range(2):  # the first run starts the worker
            started = time.monotonic()
            prompt = comfy.queue(long_run(comfy, case, size).graph.nodes, tab.client)
            lengths[case] = tab.end_of(prompt) - started
            usual_step[case] = step_time(tab, prompt)

    def pids() -> list[int]:
        return sorted(worker.pid for worker in [*workers(comfy), *workers_on(other)])

    before = pids()
    rows, faults, ended = [], [], Counter()
    while len(rows) < count:
        case = chance.choice(cases)
        moment = chance.uniform(0.0, lengths[case])
        started = time.monotonic()
        prompt = comfy.queue(long_run(comfy, case, size).graph.nodes, tab.client)
        time.sleep(max(0.0, started + moment - time.monotonic()))
        asked = time.monotonic()
        comfy.post("/interrupt", {})
        took = tab.end_of(prompt) - asked
        if not tab.of(prompt, "execution_interrupted"):
            ended[case] += 1  # over before the interrupt, or not yet begun
            if took > 0.1:
                say(f"not interrupted: {case} at {moment:.2f} s of {lengths[case]:.2f}, over {took:.2f} s later")
            continue
        values = [data["value"] for at, data in tab.of(prompt, "progress") if at < asked]
        steps_after = len(tab.of(prompt, "progress")) - len(values)
        step = usual_step[case] = step_time(tab, prompt) or usual_step[case]
        row = {
            "case": case, "moment_s": moment, "stage": stage_of(case, max(values, default=None)), "took_s": took,
            "step_s": step, "ratio": took / step, "steps_after": steps_after,
        }  # fmt: skip
        after = pids()
        row["same_workers"] = after == before
        if after != before:
            faults.append(f"{case} at {moment:.2f} s: the workers were {before}, now they are {after}")
            before = after
        number = chance.choice(list(expected))
        ours, (report,) = latent(comfy, number, "HybridiffKSampler", devices_of(case))
        scale = max(1.0, expected[number].std().item())
        row["difference"] = (ours - expected[number]).abs().max().item() / scale
        row["shared"] = report["shared_calls"] == report["calls"]
        row["next_first_step_s"] = report["first_step_s"]
        if row["difference"] > LIMIT or not row["shared"]:
            faults.append(
                f"{case} at {moment:.2f} s: the next run was off by {row['difference']:.1e}; {report['lines']}"
            )
        rows.append(row)
        if len(rows) % 20 == 0:
            late = sum(row["ratio"] > 1 for row in rows)
            say(f"{len(rows)} interrupts, {late} took longer than a step, {len(faults)} faults")
    tab.close()
    return {"rows": rows, "faults": faults, "not_interrupted": sum(ended.values()), "lengths": lengths}


def step_time(tab: Events, prompt: str) -> float | None:
    """The median time between a run's steps; None where it had fewer than four: then the run before counts."""
    times = [at for at, _ in tab.of(prompt, "progress")]
    between = [b - a for a, b in itertools.pairwise(times)]
    return statistics.median(between) if len(between) >= 3 else None


def markdown(result: dict) -> str:
    rows = result["rows"]
    lines = [
        "| mode | where | interrupts | median, of a step | worst, of a step | longer than a step |",
        "|---|---|---|---|---|---|",
    ]
    for case, stage in sorted({(row["case"], row["stage"]) for row in rows}):
        ratios = [row["ratio"] for row in rows if (row["case"], row["stage"]) == (case, stage)]
        lines.append(
            f"| {case} | {stage} | {len(ratios)} | {statistics.median(ratios):.2f} | {max(ratios):.2f} | "
            f"{sum(ratio > 1 for ratio in ratios)} |"
        )
    late = [row for row in rows if row["ratio"] > 1]
    counts = Counter(row["steps_after"] for row in rows)
    after = ", ".join(f"{n} in {counts[n]} runs" for n in sorted(counts))
    worst = max(rows, key=lambda row: row["ratio"])
    lines += [
        "",
        f"{len(rows)} interrupts; {len(late)} took longer than the run's median step; the worst took "
        f"{worst['ratio']:.2f} steps ({1e3 * worst['took_s']:.0f} ms of {1e3 * worst['step_s']:.0f} ms). "
        f"Steps that still ended after the request: {after}. "
        f"The workers lived on after {sum(row['same_workers'] for row in rows)}; the next run was shared after "
        f"{sum(row['shared'] for row in rows)} and within {LIMIT:g} of KSampler after "
        f"{sum(row['difference'] <= LIMIT for row in rows)}, at most {max(row['difference'] for row in rows):.1e} off.",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--interrupts", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=64, help="of the interrupted runs' latents")
    add_to(parser)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with comfyui(options.remote) as (comfy, other):
        told = functools.partial(print, file=sys.stderr, flush=True)
        result = interrupt_runs(comfy, options.interrupts, options.seed, options.size, told, other)
    print(f"{heading(options.seed)}\n\n{markdown(result)}")
    for fault in result["faults"]:
        print(f"- {fault}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))
    sys.exit(1 if result["faults"] else 0)


if __name__ == "__main__":
    main()
