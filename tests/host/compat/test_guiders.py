"""Sampler nodes, guiders, and what latents they are given, beside stock."""

from __future__ import annotations

import pytest
import torch

from ...tiers import full_but
from ..conftest import FamilyBench
from .conftest import ONE, TWO, Pair, assert_by_tokens, both, each
from .test_packs import sampler

ONE_BRANCH = ("BasicGuider", "CFGGuider at CFG 1", "DualModelGuider, one model twice")  # of these in a call


def guided(side, kind, third, cfg=4.0, **given):
    """SamplerCustomAdvanced with a guider, as a function of the model."""
    of_kind = {
        "BasicGuider": {"conditioning": side.positive},
        "CFGGuider": {"positive": side.positive, "negative": side.negative, "cfg": cfg},
        "DualCFGGuider": {
            "cond1": side.positive, "cond2": third, "negative": side.negative, "cfg_conds": cfg,
            "cfg_cond2_negative": 0.5 * cfg, "style": "regular",
        },
        "PerpNegGuider": {
            "positive": side.positive, "negative": third, "empty_conditioning": side.negative, "cfg": cfg,
            "neg_scale": 0.8,
        },
        "DualModelGuider": {"positive": side.positive, "negative": side.negative, "cfg": cfg},
    }  # fmt: skip
    noise = side.graph.add("RandomNoise", noise_seed=side.settings["seed"])
    chosen = side.graph.add("KSamplerSelect", sampler_name=side.settings["sampler_name"])

    def sample(model):
        more = {"model_negative": model} if kind == "DualModelGuider" and "model_negative" not in given else {}
        guider = side.graph.add(kind, model=model, **{**of_kind[kind], **given}, **more)
        return side.graph.add(
            "SamplerCustomAdvanced", noise=noise, guider=guider, sampler=chosen, sigmas=sigmas_of(side),
            latent_image=side.latent,
        )  # fmt: skip

    return sample


def sigmas_of(side):
    return side.graph.add(
        "BasicScheduler", model=side.model, scheduler="simple", steps=side.settings["steps"], denoise=1.0
    )


def custom(side, cfg=4.0):
    """SamplerCustom, as a function of the model."""
    chosen = side.graph.add("KSamplerSelect", sampler_name=side.settings["sampler_name"])
    return lambda model: side.graph.add(
        "SamplerCustom", model=model, add_noise=True, noise_seed=side.settings["seed"], cfg=cfg, sampler=chosen,
        positive=side.positive, negative=side.negative, sigmas=sigmas_of(side), latent_image=side.latent,
    )  # fmt: skip


GUIDERS = {
    "BasicGuider": ("BasicGuider", {}),
    "CFGGuider": ("CFGGuider", {}),
    "CFGGuider at CFG 1": ("CFGGuider", {"cfg": 1.0}),
    "DualCFGGuider": ("DualCFGGuider", {}),
    "DualCFGGuider, nested": ("DualCFGGuider", {"style": "nested"}),
    "DualCFGGuider, one scale 1": ("DualCFGGuider", {"cfg_cond2_negative": 1.0}),
    "PerpNegGuider": ("PerpNegGuider", {}),
    "DualModelGuider, one model twice": ("DualModelGuider", {}),
}


@pytest.mark.parametrize(
    "name",
    full_but(GUIDERS, "BasicGuider", "CFGGuider", "DualCFGGuider", "PerpNegGuider", "DualModelGuider, one model twice"),
)
def test_a_guider_in_exact_mode(bench, row, name):
    row.of("Samplers", f"SamplerCustomAdvanced, {name}")
    kind, given = GUIDERS[name]
    side = bench("sd3")
    side.settings |= {"steps": 6, "sampler_name": "dpmpp_2m"}
    pair = both(side, guided(side, kind, side.text(9), **given))
    row.compared(pair.difference, pair.report)
    assert pair.report["lines"] == [] and pair.report["calls"] == (12 if kind == "DualModelGuider" else 6)
    if name in ONE_BRANCH:
        assert_by_tokens(pair.report)
    else:
        assert pair.report["shared_calls"] == 6


@pytest.mark.parametrize("name", full_but(GUIDERS, "BasicGuider", "DualCFGGuider"))
def test_a_guider_in_auto(trained, row, name):
    row.of("Samplers", f"SamplerCustomAdvanced, {name}, auto")
    kind, given = GUIDERS[name]
    side = trained(4)
    side.settings["steps"] = 20
    pairs = each(side, guided(side, kind, side.text("green leaf"), **{"cfg": 2.0, **given}))
    row.auto(*pairs)
    if kind == "DualModelGuider":
        assert pairs[0].predicted == 0 and pairs[0].told
    else:
        assert pairs[0].predicted


def test_a_guider_of_two_models(bench, row):
    row.of("Samplers", "SamplerCustomAdvanced, DualModelGuider, two models")
    side = bench("sd3")
    other = side.graph.add("UNETLoader", unet_name="sd3_depth6.safetensors", weight_dtype="default")
    pair = both(side, guided(side, "DualModelGuider", None, model_negative=other))
    row.compared(pair.difference, pair.report)
    assert pair.report["lines"] == [] and pair.report["shared_calls"] == pair.report["calls"] - 1


def test_a_guider_of_two_models_in_auto(trained, row):
    row.of("Samplers", "SamplerCustomAdvanced, DualModelGuider, two models, auto")
    side = trained(4)
    side.settings["steps"] = 20
    other = side.graph.add("TestOwnLoader", file="emoji_dit.safetensors", how="plain")
    two, one = each(side, guided(side, "DualModelGuider", None, model_negative=other))
    row.auto(two, one)
    assert two.predicted == 0 and any("a guider mixes the results of two models" in line for line in two.told)


def test_guidance_that_comes_on_the_way(trained, row, put):
    row.of("Samplers", "CFG Override from CFG 1 to 5, auto")
    side = trained(4)
    side.settings |= {"steps": 20, "sampler_name": "dpmpp_2m"}

    def override(model):
        return put(side, "CFGOverride", model=model, cfg=5.0, start_percent=0.4, end_percent=1.0)

    two, one = each(side, guided(side, "CFGGuider", None, cfg=1.0), override)
    row.auto(two, one)
    works = [(step["helpers"] and step["way"], step["work"]) for step in two.report["steps"]]
    both_branches = works.count(("conds", "exact"))  # one branch goes by tokens
    assert two.predicted and both_branches, works
    assert works[-both_branches:] == [("conds", "exact")] * both_branches, works


def test_guidance_that_ends_on_the_way_in_exact_mode(bench, row, put):
    row.of("Samplers", "CFG Override from CFG 4 to 1")
    side = bench("sd3")
    side.settings["steps"] = 6

    def override(model):
        return put(side, "CFGOverride", model=model, cfg=1.0, start_percent=0.5, end_percent=1.0)

    pair = both(side, guided(side, "CFGGuider", None), override)
    row.compared(pair.difference, pair.report)
    ways = [step["way"] for step in pair.report["steps"] if step["helpers"]]
    assert set(ways) == {"conds", "tokens"} and len(ways) >= 5 and pair.report["lines"] == []


@pytest.mark.parametrize("cfg", full_but([1.0, 3.0], 3.0))
def test_guidance_by_a_call_of_its_own(trained, row, put, cfg):
    row.of("Samplers", f"SkipLayerGuidanceDiT at CFG {cfg:g}, auto")
    side = trained(4)
    side.settings |= {"steps": 20, "cfg": cfg}

    def skip(model):
        given = {"double_layers": "1", "single_layers": "", "scale": 3.0, "start_percent": 0.0, "end_percent": 1.0}
        return put(side, "SkipLayerGuidanceDiT", model=model, **given)

    pairs = each(side, sampler(side), skip)
    row.auto(*pairs)
    assert pairs[0].predicted


def test_sampler_custom(bench, row):
    row.of("Samplers", "SamplerCustom")
    side = bench("sd3")
    pair = both(side, custom(side))
    row.compared(pair.difference, pair.report)
    assert pair.report["lines"] == [] and pair.report["shared_calls"] == pair.report["calls"] == 4


@pytest.mark.full
def test_sampler_custom_in_auto(trained, row):
    row.of("Samplers", "SamplerCustom, auto")
    side = trained(6)
    pairs = each(side, custom(side, cfg=3.0))
    row.auto(*pairs)
    assert pairs[0].predicted


def chained(side, kind, parts, **more):
    """KSamplerAdvanced for each (start, end) of `parts`, noise left over between them: their latents."""
    settings = {key: value for key, value in side.settings.items() if key not in ("seed", "denoise")}
    latent, latents = side.latent, []
    for start, end in parts:
        latent = side.graph.add(
            kind, model=side.model, positive=side.positive, negative=side.negative, latent_image=latent,
            noise_seed=side.settings["seed"], add_noise="disable" if start else "enable", start_at_step=start,
            end_at_step=end, return_with_leftover_noise="enable" if end < settings["steps"] else "disable", **settings,
            **more,
        )  # fmt: skip
        latents.append(latent)
    return latents


def chains(side, parts) -> list[Pair]:
    stock = chained(side, "KSamplerAdvanced", parts)
    ours = chained(side, "HybridiffKSamplerAdvanced", parts, **side.device_chain())
    saved = [(side.save(theirs), side.save(own)) for theirs, own in zip(stock, ours)]
    outputs = side.comfy.run(side.graph.nodes)
    return [Pair(side, outputs, *both, outputs[own[0]]["hybridiff"][0]) for both, own in zip(saved, ours)]


@pytest.mark.parametrize("family", full_but(["sd3", "sd15"], "sd3"))
def test_steps_in_two_samplers(bench, row, family):
    row.of("Samplers", f"two KSamplerAdvanced with noise left over, {family}")
    side = bench(family, size=8)
    side.settings["steps"] = 5
    first, second = chains(side, [(0, 2), (2, 10000)])
    row.compared(max(first.difference, second.difference), second.report)
    assert first.report["shared_calls"] == 2 and second.report["shared_calls"] == 3
    assert first.apart(second) > 1e-3


@pytest.mark.full
def test_steps_in_two_samplers_in_auto(trained, row):
    row.of("Samplers", "two KSamplerAdvanced with noise left over, auto")
    pairs = []
    for devices in (TWO, ONE):
        side = trained(8)
        side.devices, side.settings["steps"] = devices, 20
        pairs.append(chains(side, [(0, 10), (10, 10000)])[-1])
    row.auto(*pairs)


@pytest.mark.parametrize(
    "what",
    full_but(["dpm_adaptive", "heun", "heunpp2", "sa_solver_pece", "lcm", "batch of 4", "mask"], "heun", "lcm", "mask"),
)
def test_auto(trained, row, what):
    row.of("Samplers", f"KSampler, {what}, auto")
    side = trained(9, batch=4 if what == "batch of 4" else 1)
    if what == "mask":
        made = side.graph.add("TestMask", size=128)
        side.latent = side.graph.add("SetLatentNoiseMask", samples=side.latent, mask=made)
    elif what != "batch of 4":
        side.settings |= {"sampler_name": what, "steps": 20, "cfg": 2.0}  # auto is exact at more
    pairs = each(side, sampler(side))
    row.auto(*pairs)
    if what not in ("dpm_adaptive", "lcm", "sa_solver_pece"):  # of these too little can be predicted
        assert pairs[0].predicted


@pytest.mark.full
@pytest.mark.parametrize("what", ["plain", "mask"])
@pytest.mark.parametrize("name", ["wan21", "ltxv"])
def test_video(comfy, row, name, what):
    row.of("Samplers", f"video latent, {what}, {name}")
    side = FamilyBench(comfy, name)
    side.settings |= {"steps": 4, "cfg": 3.0}
    if what == "mask":
        made = side.graph.add("TestMask", size=64)
        side.latent = side.graph.add("SetLatentNoiseMask", samples=side.latent, mask=made)
    pair = both(side, sampler(side))
    row.compared(pair.difference, pair.report)
    assert pair.report["lines"] == [] and pair.report["shared_calls"] == pair.report["calls"] == 4


class NestedBench(FamilyBench):
    """A video and its sound in one latent. A saved one is named by both parts' nodes."""

    def load(self, family: str, size: int, batch: int) -> None:
        super().load(family, size, batch)
        self.sound = self.graph.add("TestLatent", seed=4, channels=8, size=16, batch=1)  # 16 frames of 16 bins

    def nest(self) -> None:
        self.latent = self.graph.add("LTXVConcatAVLatent", video_latent=self.latent, audio_latent=self.sound)

    def save(self, latent: list) -> str:
        node, _ = self.graph.add("LTXVSeparateAVLatent", av_latent=latent)
        return " ".join([super().save([node, 0]), super().save([node, 1])])

    def latent_of(self, outputs: dict, node: str) -> torch.Tensor:
        video, sound = (FamilyBench.latent_of(self, outputs, part) for part in node.split())
        assert video.shape == (1, 128, 3, 8, 8) and sound.shape == (1, 8, 16, 16)
        return torch.cat([video.flatten(), sound.flatten()])


@pytest.mark.full
@pytest.mark.parametrize("what", ["plain", "mask"])
def test_nested_latent(comfy, row, what):
    row.of("Samplers", f"nested latent (video and audio), {'mask, ' if what == 'mask' else ''}ltxav")
    side = NestedBench(comfy, "ltxav")
    side.settings |= {"steps": 4, "cfg": 3.0}
    if what == "mask":
        made = side.graph.add("TestMask", size=64)
        side.latent = side.graph.add("SetLatentNoiseMask", samples=side.latent, mask=made)
    side.nest()
    pair = both(side, sampler(side))
    row.compared(pair.difference, pair.report)
    assert pair.report["lines"] == [] and pair.report["shared_calls"] == pair.report["calls"] == 4
