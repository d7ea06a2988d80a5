"""What the stages bring in time: one device against two, in a real ComfyUI, against the arithmetic bound.

    python benchmarks/stages.py [--models sd3 sd15] [--steps 50] [--repeats 2] [--json FILE]

Two cores stand for two devices, one thread each. Runs of one and of two devices alternate; medians.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.block import heading, keep, line, table
from benchmarks.inside import enter_comfyui, run_inside
from tests.host.comfy_server import MODELS

SEED = 0
START = 10
INTERVALS = (5, 10, 20, 30)
COLUMNS = [
    ("model", lambda row: row["model"]),
    ("CFG", lambda row: f"{row['cfg']:g}"),
    ("mode", lambda row: row["mode"]),
    ("k", lambda row: row["k"]),
    ("one device s", lambda row: f"{row['one_s']:.2f}"),
    ("two devices s", lambda row: f"{row['two_s']:.2f}"),
    ("speed-up", lambda row: f"**{row['speed_up']:.2f}x**"),
    ("bound", lambda row: f"{row['bound']:.2f}"),
    ("share of the bound", lambda row: f"{row['speed_up'] / row['bound']:.3f}"),
    ("waiting", lambda row: f"{row['wait']:.1%}"),
    ("cut", lambda row: row["cut"]),
]


def render(block: dict) -> str:
    return table(block["rows"], COLUMNS)


def bound(steps: int, k: int, cfg: float) -> float:
    """The bound: an exact CFG step on two devices costs 1/2, a stage step 1/4; at CFG 1 they cost 1 and 1/2."""
    return steps / ((steps - k) / 2 + k / 4) if cfg > 1 else steps / ((steps - k) + k / 2)


def transfer(size: int) -> float:
    """Seconds for a message of `size` bytes there and back, over two channels in this process."""
    import torch
    from hybridiff_pack.hybridiff_core.workers.channel import Channel
    from hybridiff_pack.hybridiff_core.workers.sockets import pair

    ends = [Channel(end, torch.device("cpu")) for end in pair()]
    message, taken = torch.zeros(max(int(size), 1), dtype=torch.uint8), []
    for _ in range(10):
        started = time.perf_counter()
        for end in (0, 1):
            expected = ends[1 - end].expect([(tuple(message.shape), torch.uint8)])
            ends[end].send([message])
            expected.wait(10.0)
            expected.release()
        taken.append(time.perf_counter() - started)
    [end.close() for end in ends]
    return statistics.median(taken)


def measure(options: argparse.Namespace, root: Path) -> None:
    host = enter_comfyui(root)
    import comfy.sample
    import comfy.sd
    import torch
    from hybridiff_pack.hybridiff_core.plan import HybridPlan

    random = torch.Generator().manual_seed(SEED)

    def text(tokens: int, width: int, pooled: int) -> list:
        words = torch.randn(1, tokens, width, generator=random)
        return [[words, {"pooled_output": torch.randn(1, pooled, generator=random)}]]

    def load(name: str):
        if name == "sd3":
            model = comfy.sd.load_diffusion_model(str(MODELS / "diffusion_models" / "sd3_depth6.safetensors"))
            return model, torch.randn(1, 16, 64, 64, generator=random), [text(77, 4096, 2048) for _ in range(2)]
        path = str(MODELS / "checkpoints" / "sd15_narrow.safetensors")
        model = comfy.sd.load_checkpoint_guess_config(path, output_vae=False, output_clip=False)[0]
        return model, torch.randn(1, 4, 16, 16, generator=random), [text(77, 768, 768) for _ in range(2)]

    results = []
    print(f"{heading(SEED)}\n\n{table([], COLUMNS)}")
    for name in options.models:
        model, noise, (positive, negative) = load(name)

        def run(model, cfg: float, steps: int, noise=noise, positive=positive, negative=negative) -> float:
            started = time.perf_counter()
            comfy.sample.sample(
                model, noise, steps, cfg, "euler", "normal", positive, negative, torch.zeros_like(noise), seed=0,
                disable_pbar=True,
            )  # fmt: skip
            return time.perf_counter() - started

        cases = [(5.0, mode, START, k) for mode in ("pipeline", "predict") for k in options.intervals]
        if options.only_cfg_1:
            cases = []
        cases += [(1.0, "pipeline", options.steps // 10, options.steps * 4 // 5)]
        accelerations = [
            host.acceleration.Acceleration(
                HybridPlan(mode=mode, warmup="fixed", start_step=start, parallel_steps=k), ("same",)
            )
            for _, mode, start, k in cases
        ]
        run(model, 5.0, 2)
        run(accelerations[0].apply(model), 1.0, options.steps)
        twos, ones = {case: [] for case in cases}, {case: [] for case in cases}
        for _ in range(options.repeats):
            for place, (case, acceleration) in enumerate(zip(cases, accelerations)):
                # a run of one device before every fourth of two: machines drift
                if place % 4 == 0 or case[0] != cases[place - 1][0]:
                    one = run(model, case[0], options.steps)
                ones[case].append(one)
                twos[case].append(run(acceleration.apply(model), case[0], options.steps))
        for case, acceleration in zip(cases, accelerations):
            cfg, mode, _, k = case
            report = acceleration.report
            works = [line.split()[3] for line in report.schedule.splitlines()]
            assert works.count("exact") <= options.steps - k // 2, (case, report.lines)
            speed_up = statistics.median(a / b for a, b in zip(ones[case], twos[case]))
            waiting = sum(step.wait_s for step in report.steps) / twos[case][-1]
            cut = report.cuts[0]["bounds"] if report.cuts else "-"
            result = {
                "model": name, "cfg": cfg, "mode": mode, "k": k, "one_s": statistics.median(ones[case]),
                "two_s": statistics.median(twos[case]), "speed_up": speed_up, "bound": bound(options.steps, k, cfg),
                "wait": waiting, "cut": cut,
            }  # fmt: skip
            if cfg == 1.0:  # for projection.py
                of_cut = report.cuts[0]
                result |= {"times": of_cut["times"], "rest": of_cut["rest"]}
                splitter = host.cuts.splitter_for(model.model.diffusion_model)
                result["openings"] = {n: splitter.openings(of_cut["blocks"], n) for n in range(1, 8)}
                stage = [step for step in report.steps if step.work == "pipeline"]
                # h and z cross at the rate at which x and a prediction do; measured by a message of their size
                result["transfer_s"] = transfer(statistics.median(step.bytes_received for step in stage))
            results.append(result)
            print(line(result, COLUMNS), flush=True)
        keep(options.json, results, SEED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["sd3", "sd15"], choices=["sd3", "sd15"])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--intervals", nargs="+", type=int, default=INTERVALS)
    parser.add_argument("--only-cfg-1", action="store_true")
    parser.add_argument("--json", type=Path)
    run_inside(__file__, parser.parse_args(), measure)


if __name__ == "__main__":
    main()
