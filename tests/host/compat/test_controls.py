"""ControlNets and adapters: their residuals are computed where the branch is."""

from __future__ import annotations

import pytest

from ...tiers import full_but
from ..comfy_server import make_controls
from .conftest import compared, without
from .test_conditioning import AREA, combine


@pytest.fixture(scope="session", autouse=True)
def controls(comfyui_root):
    make_controls(comfyui_root)


def net(side, name="sd15_narrow"):
    return side.graph.add("ControlNetLoader", control_net_name=f"{name}.safetensors")


def image(side, seed=1, batch=1):
    return side.graph.add("TestImage", seed=seed, size=128, batch=batch)


def apply(side, put, control, batch=1, **more):
    """On both prompts."""
    given = {"strength": 0.7, "start_percent": 0.0, "end_percent": 1.0, **more}
    both = put(
        side, "ControlNetApplyAdvanced", positive=side.positive, negative=side.negative, control_net=control,
        image=image(side, batch=batch), **given,
    )  # fmt: skip
    side.positive, side.negative = both, [both[0], 1]


def plain(side, put):
    apply(side, put, net(side))


def part_of_the_way(side, put):
    apply(side, put, net(side), start_percent=0.2, end_percent=0.7)


def chained(side, put):
    apply(side, put, net(side), strength=0.4)
    apply(side, put, net(side), strength=0.8, end_percent=0.6)


def on_positive(side, put):
    side.positive = put(
        side, "ControlNetApply", conditioning=side.positive, control_net=net(side), image=image(side), strength=0.6
    )


def union(side, put):
    kind = put(side, "SetUnionControlNetType", control_net=net(side, "sd15_union"), type="depth")
    apply(side, put, kind)


def control_lora(side, put):
    apply(side, put, net(side, "sd15_narrow_lora"))


def adapter(side, put):
    apply(side, put, net(side, "sd15_t2i"))


def adapter_and_net(side, put):
    apply(side, put, net(side, "sd15_t2i"), strength=0.5, end_percent=0.8)
    union(side, put)


def masked(side, put):
    apply(side, put, net(side))
    made = side.graph.add("TestMask", size=128)
    part = put(side, "ConditioningSetMask", conditioning=side.text(5), mask=made, strength=0.8)
    side.positive = combine(side, put, part)


def on_an_area(side, put):
    apply(side, put, net(side))
    side.positive = put(side, "ConditioningSetArea", conditioning=side.positive, **AREA)


def of_two_pictures(side, put):
    apply(side, put, net(side), batch=2)


def changed(way):
    def change(side, put):
        apply(side, put, net(side))
        side.positive, side.negative = (
            side.graph.add("TestOtherControl", conditioning=conditioning, way=way)
            for conditioning in (side.positive, side.negative)
        )

    return change


STAYING = {
    "ControlNet of two pictures, for one latent": (of_two_pictures, "another number of pictures than the latent"),
    "ControlNet whose get_control is replaced": (changed("replaced get_control"), "with code of another pack in it"),
    "ControlNet with patched weights": (changed("patched weights"), "that another pack changed"),
}


@pytest.mark.parametrize("way", full_but(STAYING, "ControlNet whose get_control is replaced"))
def test_controls_that_stay_here(bench, row, put, way):
    row.of("Conditioning", f"{way}, sd15")
    side = bench("sd15", size=16)
    side.settings["steps"] = 3
    plain = without(side)
    apply_it, words = STAYING[way]
    apply_it(side, put)
    difference, report = compared(side, plain)
    row.compared(difference, report)
    assert report["shared_calls"] == 0 and words in report["lines"][0]


UNET_WAYS = {
    "ControlNet": plain,
    "ControlNet from 20 % to 70 %": part_of_the_way,
    "two ControlNets, chained": chained,
    "ControlNet, the old node": on_positive,
    "union ControlNet": union,
    "Control-LoRA": control_lora,
    "T2I adapter": adapter,
    "T2I adapter and union ControlNet, chained": adapter_and_net,
    "ControlNet and a masked cond": masked,
    "ControlNet on an area": on_an_area,
    "ControlNet of two pictures": of_two_pictures,
}
# the host fixes their widths
OF_TRUE_SIZE = ("union ControlNet", "T2I adapter", "T2I adapter and union ControlNet, chained")


@pytest.mark.parametrize(
    "way", full_but(UNET_WAYS, "ControlNet from 20 % to 70 %", "two ControlNets, chained", "ControlNet on an area")
)
def test_controls_of_a_unet(bench, row, put, comfyui_root, way):
    row.of("Conditioning", f"{way}, sd15")
    family = "sd15"
    if way in OF_TRUE_SIZE:
        family = "sd15_large"
        make_controls(comfyui_root, "large")
    side = bench(family, size=16, batch=2 if way == "ControlNet of two pictures" else 1)
    side.settings["steps"] = 3
    plain = without(side)
    UNET_WAYS[way](side, put)
    difference, report = compared(side, plain)
    row.compared(difference, report)
    assert report["shared_calls"] and not report["lines"]


@pytest.mark.parametrize("name", full_but(["sd3", "sd35"], "sd3"))
def test_controls_of_a_transformer(bench, row, put, name):
    row.of("Conditioning", f"ControlNet of the {name} kind, with a VAE")
    side = bench("sd3", size=16)
    plain = without(side)
    vae = side.graph.add("VAELoader", vae_name="emoji_dit_vae.safetensors")
    apply(side, put, net(side, name), vae=vae)
    difference, report = compared(side, plain)
    row.compared(difference, report)
    assert report["shared_calls"] and not report["lines"]


@pytest.mark.full
def test_a_network_that_lay_patched_in_memory(bench, row, put):
    """Another cond's patches are still on the weights when the workers are given them."""
    row.of("Conditioning", "ControlNet after it was sampled with patched weights, sd15")

    def sample(kind, *, patched):
        side = bench("sd15", size=16)
        side.settings |= {"steps": 3, "seed": 77 if patched else 78}
        apply(side, put, net(side))
        other = [
            side.graph.add("TestOtherControl", conditioning=conditioning, way="patched weights")
            for conditioning in (side.positive, side.negative)
        ]
        if patched:
            side.positive, side.negative = other
        latent = side.sampler(kind, **(side.device_chain() if kind == "HybridiffKSampler" else {}))
        saved = side.save(latent)
        return side, saved, latent[0], side.comfy.run(side.graph.nodes)

    sample("KSampler", patched=True)
    side, ours, sampler, outputs = sample("HybridiffKSampler", patched=False)
    (report,) = outputs[sampler]["hybridiff"]
    _, stock, _, stocks = sample("KSampler", patched=False)
    difference = side.difference({**outputs, **stocks}, stock, ours)
    row.compared(difference, report)
    assert report["shared_calls"]
