"""What graphs do with conditioning and latents, beside stock."""

from __future__ import annotations

import pytest

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


@pytest.mark.parametrize("family", ["sd3", "sd15"])
@pytest.mark.parametrize("way", WAYS)
def test_conditioning(bench, row, put, infos, way, family):
    row.of("Conditioning", f"{way}, {family}")
    side = bench(family, size=16)
    side.settings["steps"] = 4 if family == "sd3" else 2
    side.positive = WAYS[way](side, put)
    row.compared(*side.compare())


@pytest.mark.parametrize("family", ["sd3", "sd15"])
@pytest.mark.parametrize("what", ["denoise 0.6", "noise mask", "batch of 4"])
def test_latents(bench, row, what, family):
    row.of("Conditioning", f"latent: {what}, {family}")
    side = bench(family, size=8, batch=4 if what == "batch of 4" else 1)
    side.settings["steps"] = 3
    if what == "denoise 0.6":
        side.settings["denoise"] = 0.6
    if what == "noise mask":
        made = side.graph.add("TestMask", size=64)
        side.latent = side.graph.add("SetLatentNoiseMask", samples=side.latent, mask=made)
    row.compared(*side.compare())
