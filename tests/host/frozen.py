"""The cut of a family's network, with the stage's inputs frozen. Run by ComfyUI's own Python.

    python frozen.py COMFYUI_ROOT MODELS_FOLDER

Reads a case a line and prints a line of JSON for it. A case is family:devices or family:devices:what,
what being "areas" (two conds of different areas) or "wrong" (the inner device runs one block less than
it should: such a cut must not pass). Every call has the same x and sigma, so a pipeline must come to
the exact prediction.
"""

from __future__ import annotations

import importlib
import json
import runpy
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

PACK = Path(__file__).resolve().parents[2]
STEPS, START = 16, 5


def enter(root: str):
    """Be a ComfyUI process with this pack, and return the pack's host side and its chain."""
    runpy.run_path(str(PACK / "nodes" / "host" / "worker.py"))["register_pack"]()
    families.host(root)
    import torch

    torch.set_num_threads(1)
    from hybridiff_pack.hybridiff_core import engine
    from hybridiff_pack.hybridiff_core.workers import chain

    importlib.import_module("hybridiff_pack.nodes.host.acceleration")  # and what it needs, which is all of host
    from hybridiff_pack.nodes import host

    class Counted(engine.Schedule):
        before = float("inf")  # no call is taken for one that goes back

        def locate(self, sigma):
            self._step += 1
            return self._step - 1

    engine.Schedule = Counted  # all calls are at one sigma: every call is a step
    return host, chain


def serve(run: Callable[[str, str, str, object], dict], parts: Iterable[str]) -> None:
    """Answer each line on standard input with what `run` gives for it: (line, models, root, the pack's host side).

    `parts` are modules of the host side that `run` needs. For scripts that are run as this one is.
    """
    root, models = sys.argv[1:]
    host, _ = enter(root)
    for part in parts:
        importlib.import_module(f"hybridiff_pack.nodes.host.{part}")
    import torch

    with torch.inference_mode():
        for line in sys.stdin:
            print(json.dumps(run(line.strip(), models, root, host)), flush=True)


def run(case: str, models: str, root: str, host, chain) -> dict:
    import comfy.sample
    import comfy.samplers
    import torch
    from hybridiff_pack.hybridiff_core.plan import HybridPlan

    name, devices, *what = case.split(":")
    family = families.FAMILIES[name]
    model = families.load(families.make(root, models, name), family)
    plan = HybridPlan(mode="pipeline", warmup="fixed", start_step=START, parallel_steps=STEPS - START)
    acceleration = host.acceleration.Acceleration(plan, ("same",) * (int(devices) - 1))
    positive = families.conditioning(family, 1)
    if "areas" in what:
        height, width = family.latent[-2:]
        other = families.conditioning(family, 3)
        positive[0][1]["area"], other[0][1]["area"] = (
            (height, width // 2, 0, 0),
            (height, 3 * width // 4, 0, width // 4),
        )
        positive += other
    seen, rounding = [], []

    def frozen(network, x, sigmas, extra_args=None, callback=None, disable=None):
        middle = sigmas[len(sigmas) // 2] * torch.ones(x.shape[0])
        for _ in range(len(sigmas) - 1):
            d = network(x, middle, **extra_args)
            # each hides what is wrong where x is large: d of a network that predicts eps, eps of one that predicts v
            seen.append((d, (x - d) / middle[0]))
            rounding[:] = 0.0, (torch.finfo(d.dtype).eps * d.abs().max() / middle[0]).item()  # one of d's, in eps
        return x

    restore = chain.Chain.send
    if "wrong" in what:

        def send(self, unit, h, z):
            right = self.cut
            self.cut = type(right)((*right.bounds[:-1], right.last - 1))
            restore(self, unit, h, z)
            self.cut = right

        chain.Chain.send = send
    try:
        empty = families.latent(family)
        sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", STEPS)
        noise, sampler = comfy.sample.prepare_noise(empty, 0), comfy.samplers.KSAMPLER(frozen)
        comfy.sample.sample_custom(
            acceleration.apply(model), noise, 1.0, sampler, sigmas,
            positive, families.conditioning(family, 2), empty, disable_pbar=True, seed=0,
        )  # fmt: skip
    finally:
        chain.Chain.send = restore
    exact, report = seen[0], acceleration.report
    late = seen[START + 3 * (int(devices) - 1) :]
    works = [line.split()[3] for line in report.schedule.splitlines()]
    return {
        "case": case,
        "finite": all(bool(value.isfinite().all()) for value in exact),
        "works": works,
        "difference": max(
            max(0.0, (now - then).abs().max().item() - less) / then.std().item()
            for found in late
            for now, then, less in zip(found, exact, rounding)
        ),
        "cuts": report.cuts,
        "lines": report.lines,
    }


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent)
    import families

    root, models = sys.argv[1:]
    parts = enter(root)
    import torch

    with torch.inference_mode():
        for line in sys.stdin:
            print(json.dumps(run(line.strip(), models, root, *parts)), flush=True)
    parts[0].leases.pool().close()
