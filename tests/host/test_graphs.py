"""What people put in graphs, on two devices, beside stock KSampler: the same latents."""

from __future__ import annotations

import pytest

from .test_exact import LIMIT, assert_shared


def test_lora(bench):
    side = bench("sd3")
    side.model = side.graph.add(
        "LoraLoaderModelOnly", model=side.model, lora_name="sd3_depth4.safetensors", strength_model=0.7
    )
    difference, report = side.compare()
    assert difference <= LIMIT
    assert_shared(report, calls=4)
    assert report["loadings"][0]["sent_bytes"] > 100_000


def test_changed_sampling_shift(bench):
    side = bench("sd3")
    side.model = side.graph.add("ModelSamplingSD3", model=side.model, shift=7.0)
    difference, report = side.compare()
    assert difference <= LIMIT
    assert_shared(report)


def test_v_prediction_on_a_unet(bench):
    side = bench("sd15", size=8)
    side.model = side.graph.add("ModelSamplingDiscrete", model=side.model, sampling="v_prediction", zsnr=False)
    difference, report = side.compare()
    assert difference <= LIMIT
    assert_shared(report)


@pytest.mark.parametrize("family", ["sd3", "sd15"])
def test_three_conds_against_one_are_taken_apart(bench, family):
    side = bench(family, size=16)
    side.settings["steps"] = 2
    area = {"width": 64, "height": 96, "x": 32, "y": 32, "strength": 1.3}
    for seed in (5, 6):
        more = side.text(seed)
        if seed == 6 and family == "sd3":
            more = side.graph.add(
                "ConditioningSetMask", conditioning=more, mask=side.graph.add("TestMask", size=128), strength=0.6,
                set_cond_area="default",
            )  # fmt: skip
        if seed == 6 and family == "sd15":
            more = side.graph.add("ConditioningSetArea", conditioning=more, **area)
        side.positive = side.graph.add("ConditioningCombine", conditioning_1=side.positive, conditioning_2=more)
    difference, report = side.compare()
    assert difference <= LIMIT
    assert_shared(report)
    if family == "sd3":
        # four whole conds, two on each device: the positive branch is computed in two places
        assert report["steps"][0]["conds"] == [2, 2]


def test_cfg_hooks_of_other_nodes(bench):
    side = bench("sd3")
    side.model = side.graph.add("TestHooks", model=side.model)
    difference, report = side.compare()
    assert difference <= LIMIT
    assert_shared(report)


def test_a_guidance_node_with_a_patched_call_of_its_own(bench):
    side = bench("sd3")
    mask = side.graph.add("TestMask", size=128)
    masked = side.graph.add(
        "ConditioningSetMask", conditioning=side.text(5), mask=mask, strength=0.8, set_cond_area="default"
    )
    # two conds, so that the extra call too has something that could be shared, wrongly
    side.positive = side.graph.add("ConditioningCombine", conditioning_1=side.positive, conditioning_2=masked)
    side.model = side.graph.add(
        "SkipLayerGuidanceSD3", model=side.model, layers="1, 2", scale=3.0, start_percent=0.0, end_percent=1.0
    )
    difference, report = side.compare()
    assert difference <= LIMIT
    assert report["lines"] == []
    # every step: the two branches, shared; then the positive one without its layers, here
    assert (report["shared_calls"], report["calls"]) == (4, 8)


def test_two_chained_advanced_samplers(bench):
    side = bench("sd3")
    del side.settings["denoise"]
    side.settings["noise_seed"] = side.settings.pop("seed")

    def chain(kind, **more):
        first = side.sampler(
            kind, add_noise="enable", start_at_step=0, end_at_step=2, return_with_leftover_noise="enable", **more
        )
        before, side.latent = side.latent, first
        second = side.sampler(
            kind, add_noise="disable", start_at_step=2, end_at_step=10000, return_with_leftover_noise="disable", **more
        )
        side.latent = before
        return side.save(second)

    stock, ours = chain("KSamplerAdvanced"), chain("HybridiffKSamplerAdvanced", **side.device_chain())
    outputs = side.comfy.run(side.graph.nodes)
    assert (side.latent_of(outputs, stock) - side.latent_of(outputs, ours)).abs().max() <= LIMIT


def guiders(side, model):
    add = side.graph.add
    third = side.text(9)
    return {
        "CFGGuider": lambda: add("CFGGuider", model=model, positive=side.positive, negative=side.negative, cfg=5.0),
        "DualCFGGuider": lambda: add(
            "DualCFGGuider", model=model, cond1=side.positive, cond2=third, negative=side.negative, cfg_conds=5.0,
            cfg_cond2_negative=3.0, style="regular",
        ),
        "PerpNegGuider": lambda: add(
            "PerpNegGuider", model=model, positive=side.positive, negative=side.negative, empty_conditioning=third,
            cfg=5.0, neg_scale=1.0,
        ),
    }  # fmt: skip


@pytest.mark.parametrize(
    "family, guider", [("sd15", "CFGGuider"), ("sd3", "CFGGuider"), ("sd3", "DualCFGGuider"), ("sd3", "PerpNegGuider")]
)
def test_hybridiff_model_with_custom_sampling_on_three_devices(bench, family, guider):
    side = bench(family, size=8 if family == "sd15" else 16)
    side.devices = ("same", "same")
    add = side.graph.add
    noise, sampler = add("RandomNoise", noise_seed=5), add("KSamplerSelect", sampler_name="dpmpp_2m")
    sigmas = add("BasicScheduler", model=side.model, scheduler="simple", steps=4, denoise=1.0)
    saved = []
    for model in (side.model, add("HybridiffModel", model=side.model, **side.device_chain())):
        sampled = add(
            "SamplerCustomAdvanced", noise=noise, guider=guiders(side, model)[guider](), sampler=sampler,
            sigmas=sigmas, latent_image=side.latent,
        )  # fmt: skip
        saved.append(side.save(sampled))
    outputs = side.comfy.run(side.graph.nodes)
    assert side.difference(outputs, *saved) <= LIMIT
    helpers = 1 if family == "sd15" else 2  # a U-Net has no tokens: a third device would hold the model for nothing
    line = [line for line in side.comfy.log.read_text().splitlines() if "model calls shared by" in line][-1]
    assert "4 of 4 model calls shared" in line and line.count("process") == helpers
