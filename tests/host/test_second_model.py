"""A guider of two models, as Ideogram 4's template has it: the other model's calls are a worker's (second_model.py)."""

from __future__ import annotations

import pytest

from .conftest import Bench
from .test_exact import LIMIT

OTHER = "sd3_depth6.safetensors"


def sampled(side: Bench, model: list, other: list, **guided) -> list:
    """SamplerCustomAdvanced with DualModelGuider: the latent."""
    add, settings = side.graph.add, side.settings
    given = {"positive": side.positive, "negative": side.negative, "cfg": settings["cfg"], **guided}
    return add(
        "SamplerCustomAdvanced", noise=add("RandomNoise", noise_seed=settings["seed"]),
        guider=add("DualModelGuider", model=model, model_negative=other, **given),
        sampler=add("KSamplerSelect", sampler_name=settings["sampler_name"]),
        sigmas=add("BasicScheduler", model=side.model, scheduler="simple", steps=settings["steps"], denoise=1.0),
        latent_image=side.latent,
    )  # fmt: skip


def compared(side: Bench, other: list | None = None, **guided) -> tuple[float, dict]:
    """How far off a run with Hybridiff on the first model is, and its report."""
    other = other or side.graph.add("UNETLoader", unet_name=OTHER, weight_dtype="default")
    stock = side.save(sampled(side, side.model, other, **guided))
    model = side.graph.add("HybridiffModel", model=side.model, **side.device_chain())
    ours = sampled(side, model, other, **guided)
    saved, told = side.save(ours), side.graph.add("TestReportOf", model=model, latent=ours)
    outputs = side.comfy.run(side.graph.nodes)
    (report,) = outputs[told[0]]["hybridiff"]
    return side.difference(outputs, stock, saved), report


def helpers(report: dict) -> list[int]:
    return [step["helpers"] for step in report["steps"]]


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m"])
def test_each_model_has_a_device(bench, sampler):
    side = bench("sd3")
    side.settings |= {"steps": 6, "sampler_name": sampler}
    difference, report = compared(side)
    assert difference <= LIMIT and report["lines"] == []
    calls = 11 if sampler == "heun" else 6
    # the first shows what the guider asks for
    assert helpers(report) == [0, *[1] * (calls - 1)]
    assert report["devices"] == ["cpu", "cpu (process 2)"] and len(report["loadings"]) == 1
    assert all(step["conds"] == [1, 1] and step["lanes"] == [0, 1] for step in report["steps"] if step["helpers"])


@pytest.mark.parametrize("what", ["several prompts", "another prompt", "three devices", "batch"])
def test_what_is_asked_of_the_other_model(bench, what):
    side = bench("sd3", batch=3 if what == "batch" else 1)
    if what == "several prompts":
        for name in ("positive", "negative"):
            given = {"conditioning_1": getattr(side, name), "conditioning_2": side.text(8)}
            setattr(side, name, side.graph.add("ConditioningCombine", **given))
    if what == "another prompt":
        side.negative = side.text(99)
    if what == "three devices":
        side.devices = ("same", "same")
    difference, report = compared(side)
    assert difference <= LIMIT and report["lines"] == []
    assert all(helpers(report)[1:]), report["steps"]


def test_at_cfg_1_the_other_model_is_not_asked(bench):
    difference, report = compared(bench("sd3"), cfg=1.0)
    assert difference <= LIMIT and {step["way"] for step in report["steps"] if step["helpers"]} == {"tokens"}


def test_cfg_that_falls_to_1_on_the_way(bench):
    side = bench("sd3")
    side.settings["steps"] = 8
    given = {"cfg": 1.0, "start_percent": 0.5, "end_percent": 1.0}
    side.model = side.graph.add("CFGOverride", model=side.model, **given)
    difference, report = compared(side)
    assert difference <= LIMIT and 1 <= sum(helpers(report)) <= 6, (helpers(report), report["lines"])


def test_a_model_that_no_worker_can_make_stays_here(bench):
    side = bench("sd3")
    difference, report = compared(side, side.graph.add("TestOwnLoader", file=OTHER, how="replaced method"))
    assert difference <= LIMIT
    assert any(line.startswith("the guider's second model is computed here: ") for line in report["lines"])
