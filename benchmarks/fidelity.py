"""How near each mode's picture is to the exact one, on the two small trained models of training/.

    python benchmarks/fidelity.py TRAINED_FOLDER [--prompts 16] [--half reporting] [--json FILE]

PSNR of decoded pictures against one device's exact run, mean and worst 5 %, in dB; the real nodes'
code with real worker processes, one for each device beside this one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

PACK = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PACK))
from benchmarks.two_devices import enter_comfyui, read_models_from  # noqa: E402
from tests.host.comfy_server import find_comfyui, python_of  # noqa: E402

# model, sampler, scheduler, steps, CFG, start, k
WITH_GUIDANCE = [
    ("unet", "ddim", "ddim_uniform", 50, 5.0, 15, 5),
    ("unet", "ddim", "ddim_uniform", 50, 5.0, 15, 10),
    ("unet", "ddim", "ddim_uniform", 50, 5.0, 15, 20),
    ("unet", "ddim", "ddim_uniform", 50, 5.0, 15, 30),
    ("unet", "dpmpp_2m", "karras", 25, 5.0, 8, 12),
    ("unet", "euler", "karras", 25, 5.0, 8, 12),
    ("unet", "dpmpp_2m", "karras", 40, 5.0, 14, 18),
    ("dit", "euler", "simple", 50, 4.0, 15, 20),
    ("dit", "euler", "simple", 28, 4.0, 8, 14),
    ("dit", "euler", "simple", 20, 4.0, 6, 10),
]
IN_GROUPS = [
    ("dit", "euler", "simple", 50, 1.0, 15, 20),
    ("dit", "euler", "simple", 28, 1.0, 8, 14),
    ("unet", "dpmpp_2m", "karras", 25, 1.0, 8, 12),
    ("unet", "dpmpp_2m", "karras", 25, 5.0, 8, 16),
    ("unet", "dpmpp_2m", "karras", 25, 5.0, 4, 20),
    ("unet", "dpmpp_2m", "karras", 50, 5.0, 10, 38),
    ("dit", "euler", "simple", 28, 4.0, 8, 16),
]


def measure(options: argparse.Namespace, root: Path) -> None:
    sampling = enter_comfyui(root)
    sys.path.insert(0, str(PACK / "training"))
    import comfy.sample
    import comfy.sd
    import numpy as np
    import torch
    from hybridiff_pack.hybridiff_core import modes, stages
    from hybridiff_pack.hybridiff_core.plan import HybridPlan
    from text import Latents, conditioning

    os.sched_setaffinity(0, range(os.cpu_count()))
    stages.FETCHED = options.fetched or stages.FETCHED
    pool = sampling.pool()
    start_frame = pool.start
    pool.start = lambda place: {**start_frame(place), "cpus": list(range(os.cpu_count()))}
    files = {"dit": ("diffusion_models/emoji_dit.safetensors", 16), "unet": ("checkpoints/emoji_unet.safetensors", 4)}
    read_models_from(options.trained)
    models = {name: comfy.sd.load_diffusion_model(str(options.trained / file)) for name, (file, _) in files.items()}
    decoders = {name: Latents.load(str(options.trained / f"pca_{name}.safetensors")) for name in files}
    chosen = json.loads((options.trained / "evaluation.json").read_text())["captions"][options.half][: options.prompts]
    captions = [entry["caption"] for entry in chosen]
    seeds = [entry["seed"] for entry in chosen]

    def joined(name: str, captions: list[str]) -> list:
        conds = [conditioning(caption, name)[0] for caption in captions]
        more = {key: torch.cat([cond[1][key] for cond in conds]) for key in conds[0][1]}
        return [[torch.cat([cond[0] for cond in conds]), more]]

    def pictures(model, name: str, sampler: str, scheduler: str, steps: int, cfg: float) -> np.ndarray:
        empty = torch.zeros(1, files[name][1], 16, 16)
        noise = torch.cat([comfy.sample.prepare_noise(empty, seed) for seed in seeds])
        latent = comfy.sample.sample(
            model, noise, steps, cfg, sampler, scheduler, joined(name, captions), joined(name, [""] * len(captions)),
            torch.zeros_like(noise), seed=0, disable_pbar=True,
        )  # fmt: skip
        return decoders[name].decode(latent).clamp(0, 1).numpy()

    references: dict[tuple, np.ndarray] = {}
    results = []

    def compare(setting: tuple, label: str, plan: HybridPlan | None, devices: int = 2, steps: int | None = None, **how):
        name, sampler, scheduler, _, cfg, _, _ = setting
        key = setting[:5]
        if key not in references:
            references[key] = pictures(models[name], *key)
        if plan is None:
            images = pictures(models[name], name, sampler, scheduler, steps, cfg)
        else:
            acceleration = sampling.Acceleration(plan, ("same",) * (devices - 1))
            setting_of = stages.Setting
            if how:
                sampling.Setting = lambda *given, **named: setting_of(*given, **named, **how)
            try:
                images = pictures(acceleration.apply(models[name]), *key)
            finally:
                sampling.Setting = setting_of
            works = [line.split()[3] for line in acceleration.report.schedule.splitlines()]
            assert len(set(works)) > 1, acceleration.report.lines
        errors = ((images - references[key]) ** 2).reshape(len(images), -1).mean(1)
        psnr = 10 * np.log10(1 / np.maximum(errors, 1e-12))
        result = {"setting": setting, "mode": label, "mean": psnr.mean().item(), "worst": np.percentile(psnr, 5).item()}
        results.append(result)
        return f"{result['mean']:.1f}/{result['worst']:.1f}"

    def plan_of(setting: tuple, mode: str, **more) -> HybridPlan:
        return HybridPlan(mode=mode, warmup="fixed", start_step=setting[5], parallel_steps=setting[6], **more)

    def label(setting: tuple) -> str:
        name, sampler, scheduler, steps, cfg, start, k = setting
        return f"{name} {sampler} {scheduler} T{steps} w{cfg:g} s{start} k{k}"

    def wanted(setting: tuple) -> bool:
        return setting[0] in options.models and options.match in label(setting)

    selected = list(filter(wanted, WITH_GUIDANCE))
    if options.gains:
        print("| setting | " + " | ".join(f"D's slope x {gain:g}" for gain in options.gains) + " |")
        print("|" + "---|" * (1 + len(options.gains)))
        usual = modes.difference_gain
        for setting in selected:
            cells = []
            for gain in options.gains:
                stages.difference_gain = lambda steps, gain=gain: gain
                cells.append(compare(setting, f"alternating, gain {gain}", plan_of(setting, "pipeline")))
            print(f"| {label(setting)} | {' | '.join(cells)} |", flush=True)
        stages.difference_gain = usual
    else:
        print("| setting | paper | alternating pipeline | predict m=2 | m=3 | exact steps at equal time |")
        print("|---|---|---|---|---|---|")
        for setting in selected:
            steps, k = setting[3], setting[6]
            cells = [
                compare(setting, "paper", plan_of(setting, "paper")),
                compare(setting, "alternating", plan_of(setting, "pipeline")),
                compare(setting, "predict 2", plan_of(setting, "predict")),
                compare(setting, "predict 3", plan_of(setting, "predict", predict_stride=3)),
                compare(setting, "fewer steps", None, steps=steps - k // 2),
            ]
            print(f"| {label(setting)} | {' | '.join(cells)} |", flush=True)
        print()
        print("| pipeline inside each branch (groups of two) | z extrapolated | z as it came | predict m=2 |")
        print("|---|---|---|---|")
        for setting in filter(wanted, IN_GROUPS):
            devices = 2 if setting[4] == 1.0 else 4
            cells = [
                compare(setting, "groups", plan_of(setting, "pipeline"), devices),
                compare(setting, "groups, as it came", plan_of(setting, "pipeline"), devices, extrapolate=False),
                compare(setting, "predict 2", plan_of(setting, "predict"), devices),
            ]
            print(f"| {label(setting)}, {devices} devices | {' | '.join(cells)} |", flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trained", type=Path, help="where training/train.py put its models")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--half", default="reporting", choices=["choosing", "reporting"])
    parser.add_argument("--models", nargs="+", default=["unet", "dit"], choices=["unet", "dit"])
    parser.add_argument("--match", default="", help="only settings whose label has this in it")
    parser.add_argument("--gains", nargs="+", type=float, help="instead: compare dampings of the guidance difference")
    parser.add_argument("--fetched", type=int, help="inner results that cross at the start, if not as usual")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    root = find_comfyui()
    if root is None:
        sys.exit("no ComfyUI is to be found; set COMFYUI_PATH")
    if os.environ.get("HYBRIDIFF_BENCHMARK") != "inside":
        command = [python_of(root), __file__, *sys.argv[1:]]
        sys.exit(subprocess.run(command, env={**os.environ, "HYBRIDIFF_BENCHMARK": "inside"}).returncode)
    import torch

    with torch.inference_mode():
        measure(options, root)


if __name__ == "__main__":
    main()
