"""One device against two, in a real ComfyUI: two cores stand for two devices, one thread each.

    python benchmarks/two_devices.py [--steps 12] [--size 64] [--repeats 3]

Runs itself again with ComfyUI's own Python. The kinds of run alternate; medians are given. With --rival
also ComfyUI's own MultiGPU CFG Split, which shares a step between threads of one process. It knows GPUs
only, so it is told that there are two CPU devices; its process may then use both cores.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
import types
from pathlib import Path

PACK = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PACK))
from tests.host.comfy_server import MODELS, find_comfyui, make_models, python_of  # noqa: E402


def enter_comfyui(root: Path, cpu: bool = True):
    """Be a ComfyUI process on one core, and return the pack's bridge with its workers on the other core.

    Without `cpu` be one as ComfyUI itself would, on its GPU, and leave the cores alone.
    """
    sys.path.remove(str(PACK))
    for name, folder in (("hybridiff_pack", PACK), ("hybridiff_pack.nodes", PACK / "nodes")):
        package = sys.modules[name] = types.ModuleType(name)
        package.__path__ = [str(folder)]
    sys.path.insert(0, str(root))
    import comfy.cli_args

    comfy.cli_args.args.cpu = cpu
    if not cpu:
        from hybridiff_pack.nodes.host import sampling

        read_models_from(MODELS)
        return sampling
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("two cores are needed; only one is to be had here")
    os.sched_setaffinity(0, cores[:1])
    import torch

    torch.set_num_threads(1)
    from hybridiff_pack.nodes.host import sampling

    read_models_from(MODELS)
    pool, start = sampling.pool(), sampling._start_frame
    pool.start = lambda place: {**start(place), "cpus": cores[1:2]}
    return sampling


def read_models_from(models: Path) -> None:
    """Make `models` one of ComfyUI's own model folders: a worker reads no others."""
    import folder_paths

    for kind in ("checkpoints", "diffusion_models"):
        folder_paths.add_model_folder_path(kind, str(models / kind))


def split_by_the_host(model):
    """`model` for ComfyUI's own split, on two CPU devices that it is made to see."""
    import comfy.model_management
    import comfy.multigpu
    import torch

    both = [torch.device("cpu"), torch.device("cpu", 1)]
    comfy.model_management.get_all_torch_devices = lambda exclude_current=False: both[exclude_current:]
    split = comfy.multigpu.create_multigpu_deepclones(model, 2)
    assert len(split.get_additional_models_with_key("multigpu")) == 1
    return split


def measure(options: argparse.Namespace, root: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))
    sampling = enter_comfyui(root)
    import comfy.sample
    import comfy.sd
    import torch
    from hybridiff_pack.hybridiff_core.plan import HybridPlan

    model = comfy.sd.load_diffusion_model(str(MODELS / "diffusion_models" / "sd3_depth6.safetensors"))
    random = torch.Generator().manual_seed(0)
    positive, negative = (
        [[torch.randn(1, 77, 4096, generator=random), {"pooled_output": torch.randn(1, 2048, generator=random)}]]
        for _ in range(2)
    )
    noise = torch.randn(1, 16, options.size, options.size, generator=random)
    acceleration = sampling.Acceleration(HybridPlan(mode="exact"), ("same",))

    def run(model, steps: int) -> tuple[float, torch.Tensor]:
        started = time.perf_counter()
        latent = comfy.sample.sample(
            model, noise, steps, 5.0, "euler", "normal", positive, negative, torch.zeros_like(noise), seed=0,
            disable_pbar=True,
        )  # fmt: skip
        return time.perf_counter() - started, latent

    two_devices = acceleration.apply(model)
    run(model, 1)
    run(two_devices, 1)
    hosts = split_by_the_host(model) if options.rival else None

    def run_hosts(steps: int) -> tuple[float, torch.Tensor]:
        os.sched_setaffinity(0, cores[:2])  # the threads that it starts are to have a core each
        try:
            return run(hosts, steps)
        finally:
            os.sched_setaffinity(0, cores[:1])

    if hosts:
        run_hosts(1)
    ones, twos, ratios, rivals, difference = [], [], [], [], 0.0
    print(f"SD3-type model, 6 blocks, {options.size}x{options.size} latents, {options.steps} steps of euler, CFG 5")
    for _ in range(options.repeats):
        one, expected = run(model, options.steps)
        two, latent = run(two_devices, options.steps)
        ones.append(one)
        twos.append(two)
        ratios.append(one / two)
        difference = max(difference, (expected - latent).abs().max().item())
        text = f"one device {one:6.2f} s   two devices {two:6.2f} s   {one / two:.2f}x"
        if hosts:
            taken, theirs = run_hosts(options.steps)
            rivals.append(one / taken)
            assert (expected - theirs).abs().max().item() < 1e-3
            text += f"   ComfyUI's own split {taken:6.2f} s   {rivals[-1]:.2f}x"
        print(text, flush=True)
    report = acceleration.report
    assert report.shared_steps == len(report.steps) == options.steps, report.lines
    steps = report.steps
    own, theirs = (statistics.median(step.compute_s[i] for step in steps) for i in (0, 1))
    print()
    print("| | median |")
    print("|---|---|")
    print(f"| one device | {statistics.median(ones):.2f} s |")
    print(f"| two devices | {statistics.median(twos):.2f} s |")
    print(f"| speed-up (the bound is 2) | {statistics.median(ratios):.2f}x |")
    if rivals:
        print(f"| speed-up of ComfyUI's own split | {statistics.median(rivals):.2f}x |")
    print(f"| computing here, a step | {1e3 * own:.1f} ms |")
    print(f"| computing in the worker, a step | {1e3 * theirs:.1f} ms |")
    print(f"| waiting, a step | {1e3 * statistics.median(step.wait_s for step in steps):.1f} ms |")
    print(f"| waiting, of the run | {sum(step.wait_s for step in steps) / twos[-1]:.1%} |")
    print(f"| bytes out, a step | {statistics.median_high(step.bytes_sent for step in steps)} |")
    print(f"| bytes back, a step | {statistics.median_high(step.bytes_received for step in steps)} |")
    print(f"| largest difference | {difference:.1e} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rival", action="store_true", help="ComfyUI's own MultiGPU CFG Split too")
    root = find_comfyui()
    if root is None:
        sys.exit("no ComfyUI is to be found; set COMFYUI_PATH")
    if os.environ.get("HYBRIDIFF_BENCHMARK") != "inside":
        parser.parse_args()
        make_models(root)
        sys.exit(
            subprocess.run(
                [python_of(root), __file__, *sys.argv[1:]], env={**os.environ, "HYBRIDIFF_BENCHMARK": "inside"}
            ).returncode
        )
    import torch

    with torch.inference_mode():
        measure(parser.parse_args(), root)


if __name__ == "__main__":
    main()
