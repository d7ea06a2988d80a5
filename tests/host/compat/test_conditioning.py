"""What graphs do with conditioning and latents, beside stock."""

from __future__ import annotations

import json

import pytest

from ...tiers import full, full_but
from ..comfy_server import make_loaders
from ..conftest import FamilyBench
from ..test_exact import assert_shared
from .conftest import compared, without

AREA = {"width": 64, "height": 96, "x": 32, "y": 32}


def average(side, put):
    return put(side, "ConditioningAverage", conditioning_to=side.positive, conditioning_from=side.text(5))


def concat(side, put):
    return put(side, "ConditioningConcat", conditioning_to=side.positive, conditioning_from=side.text(5))


def combine(side, put, other=None):
    return put(side, "ConditioningCombine", conditioning_1=side.positive, conditioning_2=other or side.text(5))


def area(side, put):
    return combine(side, put, put(side, "ConditioningSetArea", conditioning=side.text(5), **AREA))


def area_percentage(side, put):
    part = put(side, "ConditioningSetAreaPercentage", conditioning=side.text(5), width=0.5, height=0.5, x=0.5, y=0.25)
    return combine(side, put, part)


def area_strength(side, put):
    part = put(side, "ConditioningSetArea", conditioning=side.text(5), **AREA)
    return combine(side, put, put(side, "ConditioningSetAreaStrength", conditioning=part, strength=0.6))


def mask(side, put):
    made = side.graph.add("TestMask", size=128)
    masked = put(side, "ConditioningSetMask", conditioning=side.text(5), mask=made, strength=0.8)
    return combine(side, put, masked)


def mask_bounds(side, put):
    made = side.graph.add("TestMask", size=128)
    how = {"set_cond_area": "mask bounds"}
    return combine(side, put, put(side, "ConditioningSetMask", conditioning=side.text(5), mask=made, **how))


def timestep_range(side, put):
    late = put(side, "ConditioningSetTimestepRange", conditioning=side.text(5), start=0.5, end=1.0)
    early = put(side, "ConditioningSetTimestepRange", conditioning=side.positive, start=0.0, end=0.5)
    return put(side, "ConditioningCombine", conditioning_1=early, conditioning_2=late)


def zero_out(side, put):
    side.negative = put(side, "ConditioningZeroOut", conditioning=side.negative)
    return side.positive


def properties(side, put):
    made = side.graph.add("TestMask", size=128)
    return put(side, "ConditioningSetPropertiesAndCombine", cond=side.positive, cond_NEW=side.text(5), mask=made)


def default(side, put):
    made = side.graph.add("TestMask", size=128)
    masked = put(side, "ConditioningSetMask", conditioning=side.positive, mask=made)
    return put(side, "ConditioningSetDefaultCombine", cond=masked, cond_DEFAULT=side.text(5))


def pair(side, put):
    both = put(
        side, "PairConditioningCombine", positive_A=side.positive, negative_A=side.negative, positive_B=side.text(5),
        negative_B=side.text(6),
    )  # fmt: skip
    side.negative = [both[0], 1]
    return both


WAYS = {
    "ConditioningAverage": average,
    "ConditioningConcat": concat,
    "ConditioningCombine": combine,
    "area": area,
    "area in percent": area_percentage,
    "area with a strength": area_strength,
    "mask": mask,
    "mask with its bounds as area": mask_bounds,
    "ConditioningSetTimestepRange": timestep_range,
    "ConditioningZeroOut as negative": zero_out,
    "ConditioningSetProperties with a mask, combined": properties,
    "ConditioningSetDefaultCombine": default,
    "PairConditioningCombine": pair,
}


UNETS = ("area", "ConditioningSetDefaultCombine")  # of these every change tests a U-Net too


@pytest.mark.parametrize(  # a family after the other: the worker need not load one for each row
    ("way", "family"),
    [*((way, "sd3") for way in WAYS), *((way, "sd15") if way in UNETS else full(way, "sd15") for way in WAYS)],
)
def test_conditioning(bench, row, put, infos, way, family):
    row.of("Conditioning", f"{way}, {family}")
    side = bench(family, size=16)
    side.settings["steps"] = 4 if family == "sd3" else 2
    side.positive = WAYS[way](side, put)
    row.compared(*(found := side.compare()))
    assert_shared(found[1], calls=side.settings["steps"])


@pytest.mark.parametrize("what", ["denoise 0.6", "noise mask", "batch of 4"])
@pytest.mark.parametrize("family", full_but(["sd3", "sd15"], "sd3"))
def test_latents(bench, row, what, family):
    row.of("Conditioning", f"latent: {what}, {family}")
    side = bench(family, size=8, batch=4 if what == "batch of 4" else 1)
    side.settings["steps"] = 3
    if what == "denoise 0.6":
        side.settings["denoise"] = 0.6
    if what == "noise mask":
        made = side.graph.add("TestMask", size=64)
        side.latent = side.graph.add("SetLatentNoiseMask", samples=side.latent, mask=made)
    row.compared(*(found := side.compare()))
    assert_shared(found[1], calls=side.settings["steps"])


# -- what belongs to one family of models


@pytest.fixture
def loaders(comfyui_root):
    make_loaders(comfyui_root)


def gligen(side, put):
    clip = [side.model[0], 1]
    boxes = side.graph.add("GLIGENLoader", gligen_name="loaders_gligen.safetensors")
    for text, x in (("a red heart", 0), ("a blue star", 64)):
        side.positive = put(
            side, "GLIGENTextBoxApply", conditioning_to=side.positive, clip=clip, gligen_textbox_model=boxes,
            text=text, width=64, height=96, x=x, y=16,
        )  # fmt: skip


def gligen_beside_a_cond(side, put):
    plain = side.text(5)
    gligen(side, put)
    side.positive = combine(side, put, plain)


GLIGEN_WAYS = {"GLIGEN, two boxes": gligen, "GLIGEN beside a cond without": gligen_beside_a_cond}


@pytest.mark.full
@pytest.mark.parametrize("way", GLIGEN_WAYS)
def test_gligen(bench, row, put, loaders, way):
    row.of("Conditioning", f"{way}, sd15")
    side = bench("sd15", size=16)
    side.settings["steps"] = 3
    side.model = side.graph.add("CheckpointLoaderSimple", ckpt_name="loaders_sd15.safetensors")
    before = without(side)
    GLIGEN_WAYS[way](side, put)
    difference, report = compared(side, before)
    row.compared(difference, report)
    if way == "GLIGEN, two boxes":
        assert (
            report["shared_calls"] == 0
            and "ran on one device" in report["lines"][0]
            and "GLIGEN boxes" in report["lines"][0]
        )
    else:
        assert report["shared_calls"] == 3


def vision(side, put, seed=5):
    return side.graph.add("TestVision", seed=seed)


def unclip(side, put):
    seen = [vision(side, put, seed) for seed in (5, 6)]
    for strength, noise, output in ((0.8, 0.0, seen[0]), (0.5, 0.3, seen[1])):
        side.positive = put(
            side, "unCLIPConditioning", conditioning=side.positive, clip_vision_output=output, strength=strength,
            noise_augmentation=noise,
        )  # fmt: skip


def inpaint(side, put):
    vae = [side.graph.add("CheckpointLoaderSimple", ckpt_name="loaders_sd15.safetensors")[0], 2]
    pixels, mask = side.graph.add("TestImage", seed=4, size=128, batch=1), side.graph.add("TestMask", size=128)
    both = put(
        side, "InpaintModelConditioning", positive=side.positive, negative=side.negative, vae=vae, pixels=pixels,
        mask=mask, noise_mask=True,
    )  # fmt: skip
    side.positive, side.negative, side.latent = both, [both[0], 1], [both[0], 2]


def reference(side, put, count=1):
    for seed in range(count):
        shape = {"channels": 128, "size": 8} if side.family == "flux2" else {"channels": 16, "size": 16}
        latent = side.graph.add("TestLatent", seed=7 + seed, batch=1, **shape)
        side.positive = put(side, "ReferenceLatent", conditioning=side.positive, latent=latent)


def references_by_index(side, put):
    reference(side, put, 2)
    side.positive = put(
        side, "FluxKontextMultiReferenceLatentMethod", conditioning=side.positive, reference_latents_method="index"
    )


def style(side, put, **more):
    model = side.graph.add("StyleModelLoader", style_model_name="loaders_redux.safetensors")
    side.positive = put(
        side, "StyleModelApply", conditioning=side.positive, style_model=model, clip_vision_output=vision(side, put),
        **more,
    )  # fmt: skip


def style_bias(side, put):
    style(side, put, strength=0.4, strength_type="attn_bias")


def sizes(side, put):
    given = {"width": 768, "height": 512, "crop_w": 64, "crop_h": 32, "target_width": 1024, "target_height": 640}
    side.positive = put(side, "TestEntries", conditioning=side.positive, entries=json.dumps(given))
    side.negative = put(side, "TestEntries", conditioning=side.negative, entries=json.dumps({"width": 256}))


def score(side, put):
    given = {"aesthetic_score": 2.0, "width": 512, "height": 768}
    side.positive = put(side, "TestEntries", conditioning=side.positive, entries=json.dumps(given))


def guidance(side, put):
    side.positive = put(side, "FluxGuidance", conditioning=side.positive, guidance=9.0)


def no_guidance(side, put):
    side.positive = put(side, "FluxDisableGuidance", conditioning=side.positive)


FAMILY_WAYS = {
    "unCLIPConditioning, two pictures, sd21_unclip": unclip,
    "InpaintModelConditioning, sd15_inpaint": inpaint,
    "sizes, as CLIPTextEncodeSDXL adds them, sdxl": sizes,
    "aesthetic score, as CLIPTextEncodeSDXLRefiner adds it, sdxl_refiner": score,
    "ReferenceLatent, flux2": reference,
    "ReferenceLatent, flux": reference,
    "two ReferenceLatents by index, flux": references_by_index,
    "StyleModelApply (Redux), flux": style,
    "StyleModelApply (Redux) as attention bias, flux": style_bias,
    "FluxGuidance, flux": guidance,
    "FluxDisableGuidance, flux": no_guidance,
}
OF_FILES = (inpaint, style, style_bias)


@pytest.mark.parametrize("way", full_but(FAMILY_WAYS, "two ReferenceLatents by index, flux", "FluxGuidance, flux"))
def test_conditioning_of_a_family(comfy, row, put, request, way):
    row.of("Conditioning", way)
    lay, family = FAMILY_WAYS[way], way.rsplit(", ", 1)[1]
    if lay in OF_FILES:
        request.getfixturevalue("loaders")
    side = FamilyBench(comfy, family)
    side.settings |= {"steps": 3, "cfg": 3.0}
    before = without(side)
    lay(side, put)
    row.compared(*(found := compared(side, before)))
    assert found[1]["shared_calls"] == 3, found[1]["lines"]


# -- hooks: a LoRA on a cond


def hooks(side, put, strength=0.8, keyframes=((0.5, 0.4),)):
    made = put(
        side, "CreateHookLoraModelOnly", lora_name="sd3_depth4.safetensors", strength_model=strength
    )  # fmt: skip
    frames = None
    for start, mult in keyframes:
        given = {"prev_hook_kf": frames} if frames else {}
        frames = put(side, "CreateHookKeyframe", strength_mult=mult, start_percent=start, **given)
    return put(side, "SetHookKeyframes", hooks=made, hook_kf=frames) if frames else made


def hooks_on_both(side, put):
    pair = put(
        side, "PairConditioningSetProperties", positive_NEW=side.positive, negative_NEW=side.negative,
        hooks=hooks(side, put, keyframes=((0.0, 1.0), (0.3, 0.2), (0.7, 0.6))),
    )  # fmt: skip
    side.positive, side.negative = pair, [pair[0], 1]


def hooks_shared(side, put):
    same = hooks(side, put)
    first = put(side, "ConditioningSetProperties", cond_NEW=side.positive, hooks=same)
    second = put(side, "ConditioningSetProperties", cond_NEW=side.text(5), hooks=same, strength=0.5)
    side.positive = put(side, "ConditioningCombine", conditioning_1=first, conditioning_2=second)
    side.positive = combine(side, put, side.text(6))


def hooks_on_a_mask(side, put):
    made = side.graph.add("TestMask", size=128)
    side.positive = put(
        side, "ConditioningSetPropertiesAndCombine", cond=side.positive, cond_NEW=side.text(5), mask=made,
        hooks=hooks(side, put),
    )  # fmt: skip


def hooks_on_a_masks_bounds(side, put):
    made = side.graph.add("TestMask", size=128)
    side.positive = put(
        side, "ConditioningSetPropertiesAndCombine", cond=side.positive, cond_NEW=side.text(5), mask=made,
        hooks=hooks(side, put), set_cond_area="mask bounds",
    )  # fmt: skip


def hooks_on_a_default(side, put):
    made = side.graph.add("TestMask", size=128)
    masked = put(side, "ConditioningSetMask", conditioning=side.positive, mask=made)
    side.positive = put(
        side, "ConditioningSetDefaultCombine", cond=masked, cond_DEFAULT=side.text(5), hooks=hooks(side, put)
    )


def hooks_and_a_default_pair(side, put):
    made = side.graph.add("TestMask", size=128)
    pair = put(
        side, "PairConditioningSetProperties", positive_NEW=side.positive, negative_NEW=side.negative, mask=made,
        hooks=hooks(side, put, keyframes=()),
    )  # fmt: skip
    pair = put(
        side, "PairConditioningSetDefaultCombine", positive=pair, negative=[pair[0], 1], positive_DEFAULT=side.text(5),
        negative_DEFAULT=side.text(6),
    )  # fmt: skip
    side.positive, side.negative = pair, [pair[0], 1]


def hooks_in_a_range(side, put):
    times = put(side, "ConditioningTimestepsRange", start_percent=0.0, end_percent=0.5)
    late = put(side, "ConditioningSetTimestepRange", conditioning=side.text(5), start=0.5, end=1.0)
    early = put(
        side, "ConditioningSetProperties", cond_NEW=side.positive, hooks=hooks(side, put), timesteps=times
    )  # fmt: skip
    side.positive = put(side, "ConditioningCombine", conditioning_1=early, conditioning_2=late)


def two_hooks(side, put):
    both = put(side, "CombineHooks2", hooks_A=hooks(side, put), hooks_B=hooks(side, put, -0.3, ()))
    side.positive = put(side, "ConditioningSetProperties", cond_NEW=side.positive, hooks=both)
    side.negative = put(side, "ConditioningSetProperties", cond_NEW=side.negative, hooks=hooks(side, put, 0.5, ()))


HOOK_WAYS = {
    "both prompts, three keyframes": hooks_on_both,
    "two conds share them, a third has none": hooks_shared,
    "a masked cond": hooks_on_a_mask,
    "a cond in a mask's bounds": hooks_on_a_masks_bounds,
    "the default cond": hooks_on_a_default,
    "masked pair, a default pair without": hooks_and_a_default_pair,
    "half of the run": hooks_in_a_range,
    "two on positive, another on negative": two_hooks,
}


@pytest.mark.parametrize(
    "way",
    full_but(
        HOOK_WAYS,
        "both prompts, three keyframes",
        "two conds share them, a third has none",
        "a cond in a mask's bounds",
        "half of the run",
    ),
)
def test_hooks(bench, row, put, way):
    row.of("Conditioning", f"LoRA hooks: {way}, sd3")
    side = bench("sd3", size=16)
    side.settings["steps"] = 6
    before = without(side)
    HOOK_WAYS[way](side, put)
    row.compared(*compared(side, before))
