"""A family's forward divided by tokens, threads being the devices. Run by ComfyUI's own Python.

    python token_split.py COMFYUI_ROOT MODELS_FOLDER

Reads a case a line and prints a line of JSON for it. A case is family:devices or family:devices:what:..., what
being a change of token_cases.py, or "halves3" (heads in three parts), or one that must not pass: "wrong" (rotary
positions and modulation of the tokens one further on) or "missing" (one attention's keys do not cross). With "offered"
it tells what block_hooks.py changes for others.
"""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

PART = ("host_call", "control", "cuts", "block_hooks", "comparing", "recipe")

PACK = Path(__file__).resolve().parents[2]
LIMIT_S = 120
BOUNDS = {2: (0, 1500, 4096), 3: (0, 1100, 1900, 4096), 4: (0, 700, 2100, 3000, 4096)}


class QueueWay:
    """A Way (hybridiff_core/network/tokens.py) to another thread."""

    def __init__(self, out: queue.Queue, back: queue.Queue):
        self.out, self.back = out, back

    def stow(self, tensors: Sequence) -> list:
        return [tensor.clone() for tensor in tensors]

    def send(self, stowed: list) -> None:
        self.out.put(stowed)

    def expect(self, parts: Sequence) -> list:
        return [(tuple(shape), dtype) for shape, dtype in parts]

    def receive(self, expected: list) -> list:
        came = self.back.get(timeout=LIMIT_S)
        if isinstance(came, Exception):
            raise RuntimeError("another device failed") from came
        found = [(tuple(tensor.shape), tensor.dtype) for tensor in came]
        assert found == expected, f"{found} came instead of {expected}"
        return came

    def release(self, expected: object) -> None:
        pass


def divided(here, unit, form, devices: int, halves: int) -> object:
    """The prediction of `unit` by so many threads, each with its part."""
    import torch
    from hybridiff_pack.hybridiff_core.network.split import Reached
    from hybridiff_pack.hybridiff_core.network.tokens import Shard

    roads = {(a, b): queue.Queue() for a in range(devices) for b in range(devices) if a != b}
    outcome: list = [None] * devices

    def device(rank: int) -> None:
        ways = [QueueWay(roads[rank, other], roads[other, rank]) if other != rank else None for other in range(devices)]
        shard = Shard(form, rank, BOUNDS[devices], ways, halves)
        try:
            with torch.inference_mode():
                outcome[rank] = here([unit], shard)[unit.branch]
        except Reached as reached:
            outcome[rank] = reached
        except Exception as error:  # noqa: BLE001 - told below
            outcome[rank] = error
            for way in ways:
                if way is not None:
                    way.out.put(error)

    threads = [threading.Thread(target=device, args=(rank,)) for rank in range(devices)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    for one in outcome:
        if not isinstance(one, (Reached, torch.Tensor)):
            raise RuntimeError(f"a device failed: {one!r}") from one
    assert isinstance(outcome[0], torch.Tensor) and all(isinstance(one, Reached) for one in outcome[1:])
    return outcome[0]


def run(case: str, models: str, root: str, host) -> dict:
    import comfy.sample
    import comfy.samplers
    from comfy.patcher_extension import WrappersMP
    from hybridiff_pack.hybridiff_core.network.tokens import Look

    name, devices, *what = case.split(":")
    family = families.FAMILIES[name]
    model = families.load(families.make(root, models, name), family).clone()
    if "offered" in what:
        return token_cases.offered(model, lambda patcher: families.sample(patcher, family, steps=1), host)
    host.block_hooks.offer(model)
    token_cases.prepare(model, what)
    latent = token_cases.latent(family, what)
    positive, negative = families.conditioning(family, 1), families.conditioning(family, 2)
    for conds in (positive, negative):
        token_cases.change(conds, latent, what)
    halves = next((int(one.removeprefix("halves")) for one in what if one.startswith("halves")), 1)
    result: dict = {"case": case, "reason": None, "difference": 0.0, "looked": 0.0, "finite": True, "forms": []}

    def wrapper(executor, network, conds, x, timestep, options):
        call = host.host_call.HostCall(executor, network, conds, x, timestep, options)
        controls = host.control.Controls(call.all_conds, network)
        units = call.units(controls)
        here = call.network(units, host.cuts.splitter_for(network.diffusion_model))
        predictions = {}
        for unit in units:
            whole = here([unit])[unit.branch]
            look = Look()
            looked = here([unit], look)[unit.branch]
            result["looked"] = max(result["looked"], (looked - whole).abs().max().item())
            result["finite"] &= bool(whole.isfinite().all())
            predictions[unit.branch] = whole
            if look.form is None:
                result["reason"] = look.reason
                continue
            result["forms"].append([look.form.blocks, len(look.form.attends), look.form.tokens, look.form.text,
                                    look.form.bytes_a_token])  # fmt: skip
            with token_cases.wrong(host) if "wrong" in what else token_cases.right():
                part = divided(here, unit, token_cases.form_of(look.form, what), int(devices), halves)
            # what the network put out, at unit scale: at a high sigma most of a prediction is not its own
            theirs, ours = ((x - one) / timestep.view(-1, *[1] * (x.ndim - 1)) for one in (whole, part))
            found = max((whole - part).abs().max() / whole.std(), (theirs - ours).abs().max() / theirs.std())
            assert part.isfinite().all()
            result["difference"] = max(result["difference"], found.item())
        return call.answer(predictions)

    model.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "token_split", wrapper)
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 3)[1:3]
    comfy.sample.sample_custom(
        model, comfy.sample.prepare_noise(latent, 0), 3.0, comfy.samplers.sampler_object("euler"), sigmas,
        positive, negative, latent, disable_pbar=True, seed=0, noise_mask=token_cases.noise_mask(latent, what),
    )  # fmt: skip
    return result


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent)
    import families
    import frozen
    import token_cases

    frozen.families = families
    frozen.serve(run, PART)
