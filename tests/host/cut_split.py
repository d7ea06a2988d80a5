"""A family's network cut into an outer and an inner part, in one process. Run by ComfyUI's own Python.

    python cut_split.py COMFYUI_ROOT MODELS_FOLDER

Reads a case a line and prints a line of JSON for it. A case is family:devices. The inner part is given what the outer
one handed on, and the outer one the whole forward's z, so both must come to what the whole forward has. For models that
no worker can make from a file (narrow ones, families.py); the others are cut by real workers (frozen.py).
"""

from __future__ import annotations

import sys
from pathlib import Path

PART = ("host_call", "control", "cuts", "block_hooks")


class Handed:
    """What the outer part handed on: a copy, as if it were sent, for networks add to what they are given in place."""

    state: tuple = ()

    def take(self, state: tuple) -> None:
        self.state = tuple(tensor.clone() for tensor in state)


def run(case: str, models: str, root: str, host) -> dict:
    import comfy.sample
    import comfy.samplers
    from comfy.patcher_extension import WrappersMP
    from hybridiff_pack.hybridiff_core import lines
    from hybridiff_pack.hybridiff_core.network.split import Cut, Inner, Outer, Reached, Whole

    name, devices = case.split(":")
    family, segments = families.FAMILIES[name], int(devices) - 1
    model = families.load(families.make(root, models, name), family).clone()
    host.block_hooks.offer(model)
    latent = families.latent(family)
    result: dict = {"case": case, "reason": None, "difference": 0.0, "z": 0.0, "blocks": 0, "bounds": []}

    def wrapper(executor, network, conds, x, timestep, options):
        call = host.host_call.HostCall(executor, network, conds, x, timestep, options)
        units = call.units(host.control.Controls(call.all_conds, network))
        splitter = host.cuts.splitter_for(network.diffusion_model)
        here = call.network(units, splitter)
        predictions = {}
        for unit in units:
            predictions[unit.branch] = whole = here([unit])[unit.branch]
            seen = Whole(settle=lambda: None)
            here([unit], seen)
            blocks = result["blocks"] = len(seen.times)
            openings = splitter.openings(blocks, segments) if blocks else lines.NO_BLOCKS()
            if isinstance(openings, str) or not openings:
                result["reason"] = openings or lines.TOO_FEW_BLOCKS(blocks=blocks, devices=devices)
                continue
            first, last = max(openings, key=lambda opening: opening[1] - opening[0])
            cut = Cut((*range(first, first + segments), last))
            result["bounds"] = cut.bounds
            exact, handed = Whole(cut), Handed()
            here([unit], exact)
            outer = here([unit], Outer(cut, lambda z=exact: z.z, handed.take))[unit.branch]
            state = handed.state
            for segment in cut.segments:
                try:
                    here([unit], Inner(cut.first, segment, state))
                except Reached as reached:
                    state = reached.state
            apart = [((a - b).abs().max() / b.std()).item() for a, b in zip(state, exact.z)]
            result["z"] = max(result["z"], *apart)
            result["difference"] = max(result["difference"], ((outer - whole).abs().max() / whole.std()).item())
        return call.answer(predictions)

    model.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "cut_split", wrapper)
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 3)[1:3]
    comfy.sample.sample_custom(
        model, comfy.sample.prepare_noise(latent, 0), 3.0, comfy.samplers.sampler_object("euler"), sigmas,
        families.conditioning(family, 1), families.conditioning(family, 2), latent, disable_pbar=True, seed=0,
    )  # fmt: skip
    return result


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent)
    import families
    import frozen

    frozen.families = families
    frozen.serve(run, PART)
