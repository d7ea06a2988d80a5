"""ControlNets beside workers: their weights cross once, and no step is predicted across their ends."""

from __future__ import annotations

import pytest

from .comfy_server import make_controls
from .test_exact import LIMIT, assert_shared

WEIGHTS_BYTES = 1 << 20  # the net's weights are some MB


@pytest.fixture
def side(bench, comfyui_root):
    make_controls(comfyui_root)
    return with_control(bench("sd3"))


def with_control(side, **more):
    graph = side.graph
    control = graph.add("ControlNetLoader", control_net_name="sd3.safetensors")
    given = {"strength": 0.7, "start_percent": 0.0, "end_percent": 1.0, **more}
    both = graph.add(
        "ControlNetApplyAdvanced", positive=side.positive, negative=side.negative, control_net=control,
        image=graph.add("TestImage", seed=1, size=128, batch=1),
        vae=graph.add("VAELoader", vae_name="emoji_dit_vae.safetensors"), **given,
    )  # fmt: skip
    side.positive, side.negative = both, [both[0], 1]
    return side


def test_weights_cross_once(side, bench):
    side.compare()
    for strength in (0.7, 0.3):  # the loader's node is cached, so it is the same net
        again = with_control(bench("sd3"), strength=strength)
        difference, report = again.compare()
        assert difference <= LIMIT
        assert_shared(report)
        assert [loading["sent_bytes"] for loading in report["loadings"]] == [0]


def test_the_net_goes_when_it_is_not_wanted(side, bench):
    side.compare()
    difference, report = bench("sd3").compare()
    assert difference <= LIMIT
    assert_shared(report)
    difference, report = with_control(bench("sd3")).compare()
    assert difference <= LIMIT
    assert_shared(report)
    assert report["loadings"][0]["sent_bytes"] > WEIGHTS_BYTES


def test_a_pass_without_the_net_does_not_cost_it(bench, comfyui_root):
    make_controls(comfyui_root)
    for seed in (1, 2):
        side = bench("sd3")
        plain = side.positive, side.negative
        with_control(side)
        side.settings["seed"] = seed
        passes, conds = [], [(side.positive, side.negative), plain]
        for positive, negative in conds:
            side.positive, side.negative = positive, negative
            passes.append(side.sampler("HybridiffKSampler", **side.device_chain()))
            side.latent = passes[-1]
        side.save(side.latent)
        outputs = side.comfy.run(side.graph.nodes)
        sent = [outputs[one[0]]["hybridiff"][0]["loadings"][0]["sent_bytes"] for one in passes]
        assert sent[1] == 0 and (seed == 1 or sent[0] == 0), sent


def test_an_inner_part_has_no_control(side):
    side.plan = {"mode": "pipeline", "warmup": "fixed", "start_step": 3, "parallel_steps": 8}
    side.settings["steps"] = 14
    difference, report = side.compare()
    assert difference <= LIMIT
    assert report["shared_calls"] == 14
    assert any("a ControlNet needs the whole input" in line for line in report["lines"])


def test_no_step_is_foreseen_across_its_end(bench, comfyui_root):
    make_controls(comfyui_root)
    side = with_control(bench("sd3"), end_percent=0.5)
    side.plan = {"mode": "predict", "warmup": "fixed", "start_step": 3, "parallel_steps": 16}
    side.settings |= {"steps": 20, "scheduler": "simple"}
    _, report = side.compare()
    works = [step["work"] for step in report["steps"]]
    # with shift 3 the first half of the percents ends at sigma 0.75, before the steps that begin below it
    end = next(i for i, step in enumerate(report["steps"]) if step["sigma"] < 0.75)
    assert works[end : end + 2] == ["exact"] * 2
    assert "predicted" in works[:end] and "predicted" in works[end + 2 :]
