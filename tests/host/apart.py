"""Batch items computed apart, beside the whole batch. Run by ComfyUI's own Python.

    python apart.py COMFYUI_ROOT MODELS_FOLDER

Reads a case a line and prints a line of JSON for it. A case is family:batch:cfg:kind; KINDS says what each kind is.
"reasons" asks why batches are not divided.
With :wrong at its end every row of what conds bring is taken from the first on, which must not pass.
Every call of a run is computed whole by this process, and again in rows that are not of one length, by this process
and, where there is more than one branch, by a worker.
"""

from __future__ import annotations

import json
import os
import sys
import types
from pathlib import Path

NARROW = "sd15_narrow"  # of make_models.py: the model that the small ControlNets are for


def pictures(count: int, side: int):
    generator = torch.Generator().manual_seed(count)
    return torch.rand((count, 3, side, side), generator=generator)


def control(case: Case, name: str, count: int, vae: str | None = None, **more) -> None:
    """A ControlNet on both branches, with `count` pictures."""
    import comfy.controlnet
    import comfy.sd
    import comfy.utils

    made = comfy.controlnet.load_controlnet(os.path.join(case.models, "controlnet", f"{name}.safetensors"))
    vae = vae and comfy.sd.VAE(sd=comfy.utils.load_torch_file(os.path.join(case.models, "vae", vae)))
    case.control(made.copy().set_cond_hint(pictures(count, 8 * case.latent.shape[-1]), 0.7, (0.0, 1.0), vae, **more))


def adapter(case: Case, count: int) -> None:
    """A T2I adapter of the narrow U-Net's widths."""
    from comfy.controlnet import T2IAdapter
    from comfy.t2i_adapter.adapter import Adapter
    from make_models import fill

    net = Adapter(cin=192, channels=[320] * 4, nums_rb=2, ksize=1, sk=True, use_conv=False, xl=False)
    fill(net, seed=24, last=())
    made = T2IAdapter(net, 3, 8, "nearest-exact")
    case.control(made.set_cond_hint(pictures(count, 8 * case.latent.shape[-1]), 0.7, (0.0, 1.0)))


def masks(case: Case) -> None:
    """Two prompts, one with a mask for each image, the other with one for all."""
    height, width = case.latent.shape[-2:]
    other = families.conditioning(case.family, 3)
    case.positive[0][1]["mask"] = case.random(case.batch, height, width).abs()
    other[0][1]["mask"] = case.random(1, height, width).abs()
    case.positive += other


def areas(case: Case) -> None:
    height, width = case.latent.shape[-2:]
    other = families.conditioning(case.family, 3)
    case.positive[0][1]["area"] = (height, width // 2, 0, 0)
    other[0][1]["area"] = (height, 3 * width // 4, 0, width // 4)
    case.positive += other


def prompts(case: Case, count: int) -> None:
    """As many prompts as `count` in one cond: the host gives them to the images in turn."""
    several = [families.conditioning(case.family, 10 + i)[0] for i in range(count)]
    pooled = [extra["pooled_output"] for _, extra in several if "pooled_output" in extra]
    more = {"pooled_output": torch.cat(pooled)} if pooled else {}
    case.positive = [[torch.cat([hidden for hidden, _ in several]), {**several[0][1], **more}]]


def concat(case: Case) -> None:
    """What an inpainting model is given beside the latent, another for each image."""
    for _, extra in case.positive + case.negative:
        extra["concat_latent_image"] = case.random(*case.latent.shape)
        extra["concat_mask"] = (case.random(case.batch, 1, *case.latent.shape[2:]) > 0).float()


def noise_mask(case: Case) -> None:
    case.latent = case.random(*case.latent.shape)
    case.noise_mask = (case.random(case.batch, 1, *case.latent.shape[2:]) > 0).float()


def image(case: Case) -> None:
    """Image to image, from another latent for each."""
    case.latent, case.denoise = case.random(*case.latent.shape), 0.5


def reference(case: Case) -> None:
    for _, extra in case.positive + case.negative:
        extra["reference_latents"] = [case.random(1, *case.latent.shape[1:])]


def two_controls(case: Case) -> None:
    """A chain: one with a picture for all before one with a picture for each."""
    control(case, "sd15_narrow", 1)
    first = case.positive[0][1]["control"]
    control(case, "sd15_narrow", case.batch)
    case.positive[0][1]["control"].set_previous_controlnet(first)


KINDS = {
    "plain": lambda case: None,
    "masks": masks,
    "areas": areas,
    "prompts": lambda case: prompts(case, 2),
    "more_prompts": lambda case: prompts(case, case.batch + 1),
    "concat": concat,
    "noise_mask": noise_mask,
    "image": image,
    "reference": reference,
    "control": lambda case: control(case, "sd15_narrow", 1),
    "controls": lambda case: control(case, "sd15_narrow", case.batch),
    "lora": lambda case: control(case, "sd15_narrow_lora", case.batch),
    "two_controls": two_controls,
    "sd3_control": lambda case: control(case, "sd3", 1, "emoji_dit_vae.safetensors"),
    "sd3_controls": lambda case: control(case, "sd3", case.batch, "emoji_dit_vae.safetensors"),
    "sd35_controls": lambda case: control(case, "sd35", case.batch, "emoji_dit_vae.safetensors"),
    "some_controls": lambda case: control(case, "sd15_narrow", case.batch - 1),
    "adapter": lambda case: adapter(case, 1),
    "adapters": lambda case: adapter(case, case.batch),
}


class Case:
    """What one sampling is given."""

    def __init__(self, line: str, models: str):
        self.name, batch, cfg, self.kind = line.split(":")
        self.models, self.batch, self.cfg = models, int(batch), float(cfg)
        self.family = families.FAMILIES["sd15" if self.name == NARROW else self.name]
        self.generator = torch.Generator().manual_seed(7)
        shape = (4, 8, 8) if self.family.network == families.UNET else self.family.latent[1:]  # a U-Net takes long
        self.latent, self.noise_mask, self.denoise = torch.zeros(self.batch, *shape), None, 1.0
        self.positive, self.negative = (families.conditioning(self.family, seed) for seed in (1, 2))
        KINDS[self.kind](self)

    def random(self, *shape: int):
        return torch.randn(shape, generator=self.generator)

    def control(self, made: object) -> None:
        for _, extra in self.positive + self.negative:
            extra |= {"control": made, "control_apply_to_uncond": False}

    def sample(self, model, acceleration) -> None:
        import comfy.sample
        import comfy.samplers

        # x - denoised hides what is wrong where x is large, and is rounded most where sigma is small
        sigmas = self.denoise * torch.tensor([1.0, 0.5, 0.0])
        comfy.sample.sample_custom(
            acceleration.apply(model), comfy.sample.prepare_noise(self.latent, 0), self.cfg,
            comfy.samplers.sampler_object("euler"), sigmas, self.positive, self.negative, self.latent,
            noise_mask=self.noise_mask, disable_pbar=True, seed=0,
        )  # fmt: skip


class Comparison:
    """Stands in the place of the engine's step, and of the calls that have no engine."""

    def __init__(self, host):
        self.host, self.seen, self.reasons, self.by_workers = host, [], [], 0

    def compare(self, call, units, here, exchanges) -> dict:
        from hybridiff_pack.hybridiff_core.call import merge

        batch = len(call.x)
        reason = self.host.rows.undividable(call.model, call.conds, call.model_options, batch)
        self.reasons.append(reason)
        whole = here(units)
        if reason:
            return whole
        cut = max(1, batch // 2)
        borders = [(0, 1), (1, batch)] if batch < 4 else [(0, 1), (1, cut + 1), (cut + 1, batch)]
        for turn in range(2 if exchanges else 1):
            parts = []
            for i, (first, end) in enumerate(borders):
                rows = (first, end, batch)
                if exchanges and i % 2 == turn:
                    exchanges[0].submit(call.x, call.timestep, units, rows)
                    parts += exchanges[0].collect().parts
                    self.by_workers += 1
                else:
                    parts += self.here(units, here, rows)
            self.take(merge(parts, call.weight, batch), whole, call)
        if len(units) > 1:  # one cond whole, the others by rows
            parts = self.here(units[:1], here, None)
            for first, end in borders:
                parts += self.here(units[1:], here, (first, end, batch))
            self.take(merge(parts, call.weight, batch), whole, call)
        return whole

    def here(self, units, here, rows) -> list:
        from hybridiff_pack.hybridiff_core.call import Piece

        return [
            Piece([unit for unit in units if unit.branch == branch], prediction, rows and rows[:2])
            for branch, prediction in here(units, rows=rows).items()
        ]

    def take(self, merged, whole, call) -> None:
        for branch, expected in whole.items():
            off = (merged[branch] - expected).norm()
            output = call.x - expected
            of_each = [float(off / tensor.norm().clamp_min(1e-9)) for tensor in (expected, output)]
            self.seen.append((*of_each, bool(torch.isfinite(expected).all() and output.norm() > 0)))


def run(line: str, models: str, root: str, host) -> dict:
    from hybridiff_pack.hybridiff_core.engine import Engine
    from hybridiff_pack.hybridiff_core.plan import HybridPlan

    wrong = line.endswith(":wrong")
    case = Case(line.removesuffix(":wrong"), models)
    narrow = os.path.join(models, "checkpoints", f"{NARROW}.safetensors")
    model = families.load(narrow if case.name == NARROW else families.make(root, models, case.name), case.family)
    comparison, calls = Comparison(host), []

    class Known(host.host_call.HostCall):
        def network(self, units, splitter):
            calls.append(self)
            return super().network(units, splitter)

    def step(self, x, sigma, units, here, weight, *args, **how):
        self.report.open_step(float(sigma[0]), [units])
        return comparison.compare(calls[-1], list(units), here, self.exchanges)

    def by_the_host(self, call, units):
        self.report.open_step(float(call.timestep[0]), [units])
        return call.answer(comparison.compare(call, units, call.network(units, None), []))

    items = host.rows.items
    restore = Engine.step, host.run.Run._by_the_host, host.acceleration.HostCall
    Engine.step, host.run.Run._by_the_host, host.acceleration.HostCall = step, by_the_host, Known
    if wrong:
        host.rows.items = lambda tensor, rows: items(tensor, (0, rows[1] - rows[0], rows[2]))
    acceleration = host.acceleration.Acceleration(HybridPlan(mode="exact"), ("same",))
    try:
        case.sample(model, acceleration)
    finally:
        Engine.step, host.run.Run._by_the_host, host.acceleration.HostCall = restore
        host.rows.items = items
    return {
        "case": line,
        "finite": all(finite for _, _, finite in comparison.seen),
        "calls": len(calls),
        "by_workers": comparison.by_workers,
        "difference": max((of_denoised for of_denoised, _, _ in comparison.seen), default=None),
        "of_output": max((of_output for _, of_output, _ in comparison.seen), default=None),
        "reasons": comparison.reasons,
    }


def reasons(host) -> dict:
    """Why batches of 3 are not divided, case by case."""
    from comfy import conds
    from comfy.controlnet import ControlBase
    from comfy.ldm.hunyuan3dv2_1.hunyuandit import HunYuanDiTPlain

    class Theirs(ControlBase):
        pass

    class TheirValue(conds.CONDRegular):
        pass

    each, network = torch.zeros(3, 4), torch.nn.Identity()

    def said(network=network, options=(), control=None, handler=None, **values: object) -> str | None:
        cond = {"model_conds": {"c_crossattn": conds.CONDCrossAttn(torch.zeros(1, 8, 4)), **values}, "control": control}
        given = {"transformer_options": dict(options), "context_handler": handler}
        model = types.SimpleNamespace(diffusion_model=network)
        return host.rows.undividable(model, [[cond], None], given, 3)

    return {
        "plain": said(c_concat=conds.CONDNoiseShape(each)),
        "frames": said(num_video_frames=conds.CONDConstant(3)),
        "halves": said(HunYuanDiTPlain.__new__(HunYuanDiTPlain)),
        "windows": said(handler=object()),
        "a constant of one": said(ref_audio=conds.CONDConstant({"tokens": each[:1]})),
        "a constant of each": said(ref_audio=conds.CONDConstant({"tokens": [each]})),
        "a constant of unknown rows": said(coords=conds.CONDConstant(torch.zeros(50, 4))),
        "an option of each": said(options={"audio_embeds": each}),
        "sigmas of a run": said(options={"sample_sigmas": torch.zeros(3)}),
        "a pack's value": said(theirs=TheirValue(each)),
        "a pack's control": said(control=Theirs()),
        "no branch": host.rows.undividable(types.SimpleNamespace(diffusion_model=network), [None], {}, 3),
    }


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent)
    os.environ["HYBRIDIFF_WAIT"] = "1"
    import families
    import frozen
    import torch

    frozen.families = families
    root, models = sys.argv[1:]
    host, _ = frozen.enter(root)
    with torch.inference_mode():
        for line in sys.stdin:
            answer = reasons(host) if line.strip() == "reasons" else run(line.strip(), models, root, host)
            print(json.dumps(answer), flush=True)
    host.leases.pool().close()
