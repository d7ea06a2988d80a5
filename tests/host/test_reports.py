"""What people reported of sampling on several GPUs, here and in other packs: each as a graph that they would have.

The list of reports, with the tests that are elsewhere, is in docs/RELIABILITY.md.
"""

from __future__ import annotations

import pytest

from ..tiers import full, full_but
from .comfy_server import Comfy, Events, make_controls, make_models
from .compat.conftest import adder
from .conftest import Bench
from .test_exact import LIMIT, assert_shared


def test_a_prompt_without_a_client(bench):
    """As scripts queue it: there is no page to tell."""
    difference, report = bench("sd3").compare()  # comfy.run gives no client_id
    assert difference <= LIMIT
    assert_shared(report)


# -- previews


def previews(comfy: Comfy, graph: dict, method: str) -> list[bytes]:
    """The pictures that a prompt's page gets while it runs."""
    tab = Events(comfy, f"previews-{id(graph)}")
    try:
        prompt = comfy.queue(graph, tab.client, preview_method=method)
        comfy.wait(prompt)
        tab.end_of(prompt)
        return [data["picture"] for _, data in tab.of(None, "preview")]
    finally:
        tab.close()


@pytest.mark.parametrize("mode", ["exact", "predict"])
@pytest.mark.parametrize("method", ["latent2rgb", full("auto"), full("none")])
def test_previews_come_at_every_step(bench, method, mode):
    """A predicted step has a picture too, and an exact run has KSampler's."""
    found = []
    for kind in ("KSampler", "HybridiffKSampler"):
        side = bench("sd3", size=16)
        side.settings |= {"steps": 12, "seed": 77}
        side.plan = {"mode": mode, "tolerance": 0.0, "warmup": "fixed", "start_step": 4, "parallel_steps": 6}
        given = side.device_chain() if kind != "KSampler" else {}
        side.save(side.sampler(kind, **given))
        found.append(previews(side.comfy, side.graph.nodes, method))
    theirs, ours = found
    assert len(ours) == len(theirs) == (0 if method == "none" else 12)
    if mode == "exact":
        assert ours == theirs


@pytest.mark.full
def test_previews_of_a_video_and_its_sound(comfy):
    from .compat.test_guiders import NestedBench

    counts = []
    for kind in ("KSampler", "HybridiffKSampler"):
        side = NestedBench(comfy, "ltxav")
        side.settings |= {"steps": 4, "cfg": 3.0, "seed": 78}
        side.nest()
        given = side.device_chain() if kind != "KSampler" else {}
        side.save(side.sampler(kind, **given))
        counts.append(len(previews(comfy, side.graph.nodes, "latent2rgb")))
    assert counts[0] == counts[1] > 0


# -- context windows


@pytest.mark.parametrize("sampler", full_but(["dpmpp_sde", "dpm_2", "heun", "seeds_3"], "dpm_2"))
def test_context_windows_with_samplers_that_ask_between_steps(bench, sampler):
    side = bench("sd3", batch=4)
    side.settings |= {"steps": 6, "cfg": 3.0, "sampler_name": sampler, "scheduler": "karras"}
    put = adder(side.comfy.get("/object_info"))  # newer releases have further inputs
    side.model = put(
        side, "ContextWindowsManual", model=side.model, context_length=2, context_overlap=1,
        context_schedule="standard_static", context_stride=1, closed_loop=False, fuse_method="pyramid", dim=0,
        freenoise=False,
    )  # fmt: skip
    difference, report = side.compare()
    assert difference <= LIMIT
    assert_shared(report)


# -- batches, passes


def test_one_of_a_batch_again(bench):
    """LatentFromBatch gives an item its place in the batch (batch_index), and with it the batch's noise."""
    side = bench("sd3", batch=4)
    side.latent = side.graph.add("LatentFromBatch", samples=side.latent, batch_index=2, length=1)
    difference, report = side.compare()
    assert difference <= LIMIT
    assert_shared(report)


@pytest.mark.parametrize("family", full_but(["sd3", "sd15"], "sd3"))
def test_a_second_pass_on_a_larger_latent(bench, family):
    side = bench(family, size=8)

    def passes(kind: str, given: dict) -> list[list]:
        first = side.sampler(kind, **given)
        larger = side.graph.add("LatentUpscaleBy", samples=first, upscale_method="bilinear", scale_by=1.5)
        second = {**side.settings, "denoise": 0.5}
        return [first, side.graph.add(
            kind, model=side.model, positive=side.positive, negative=side.negative, latent_image=larger, **second,
            **given,
        )]  # fmt: skip

    stock, ours = passes("KSampler", {}), passes("HybridiffKSampler", side.device_chain())
    saved = [(side.save(theirs), side.save(own)) for theirs, own in zip(stock, ours)]
    outputs = side.comfy.run(side.graph.nodes)
    for own, pair in zip(ours, saved):
        assert side.difference(outputs, *pair) <= LIMIT
        assert_shared(outputs[own[0]]["hybridiff"][0])


# -- guiders and controls of other packs


def guided(side: Bench, kind: str, devices: bool) -> list:
    """SamplerCustomAdvanced with a test guider: the latent, and our model where devices help."""
    model = side.model
    if devices:
        model = side.graph.add("HybridiffModel", model=model, **side.device_chain())
    guider = side.graph.add(
        "TestGuider", model=model, positive=side.positive, negative=side.negative, cfg=4.0, way=kind
    )
    sigmas = side.graph.add("BasicScheduler", model=side.model, scheduler="simple", steps=5, denoise=1.0)
    return [side.graph.add(
        "SamplerCustomAdvanced", noise=side.graph.add("RandomNoise", noise_seed=side.settings["seed"]), guider=guider,
        sampler=side.graph.add("KSamplerSelect", sampler_name="euler"), sigmas=sigmas, latent_image=side.latent,
    ), model]  # fmt: skip


@pytest.mark.parametrize("kind", ["of 2024", "one by one"])
def test_a_guider_of_another_pack(bench, kind):
    side = bench("sd3")
    stock, _ = guided(side, kind, devices=False)
    ours, model = guided(side, kind, devices=True)
    saved = side.save(stock), side.save(ours)
    told = side.graph.add("TestReportOf", model=model, latent=ours)[0] if kind == "one by one" else None
    outputs = side.comfy.run(side.graph.nodes)
    assert side.difference(outputs, *saved) <= LIMIT
    if told:  # a guider with a `sample` of its own has no run of ours, and so no report
        report = outputs[told]["hybridiff"][0]
        assert report["calls"] == 15 and report["shared_calls"] > 0, report["lines"]


def test_a_control_of_no_class_of_the_hosts(bench, comfyui_root):
    make_controls(comfyui_root)
    side = bench("sd15", size=16)
    net = side.graph.add("ControlNetLoader", control_net_name="sd15_narrow.safetensors")
    both = side.graph.add(
        "ControlNetApplyAdvanced", positive=side.positive, negative=side.negative, control_net=net, strength=0.7,
        image=side.graph.add("TestImage", seed=1, size=128, batch=1), start_percent=0.0, end_percent=1.0,
    )  # fmt: skip
    side.positive = side.graph.add("TestDuckControl", conditioning=both)
    side.negative = side.graph.add("TestDuckControl", conditioning=[both[0], 1])
    difference, report = side.compare()
    assert difference <= LIMIT
    assert report["shared_calls"] == 0 and "ControlNet" in "; ".join(report["lines"])


# -- models and LoRA in turn


def in_turn(comfy: Comfy, number: int) -> Bench:
    """A prompt with one of two models, and one of three strengths of a LoRA."""
    side = Bench(comfy, "sd3")
    depth = (4, 6)[number % 2]
    file = f"sd3_depth{depth}.safetensors"
    side.model = side.graph.add("UNETLoader", unet_name=file, weight_dtype="default")
    if strength := (0.0, 0.6, -0.4)[number % 3] if depth == 4 else 0.0:
        side.model = side.graph.add(
            "LoraLoaderModelOnly", model=side.model, lora_name="sd3_depth4.safetensors", strength_model=strength
        )
    side.settings |= {"steps": 2, "seed": 5 * 10**7 + number}
    return side


@pytest.mark.full
@pytest.mark.parametrize("flags", [("--cache-none",), ("--cache-lru", "2")], ids=" ".join)
def test_models_and_loras_in_turn(comfyui_root, tmp_path, flags):
    """With ComfyUI's other caches, and its memory freed on the way."""
    make_models(comfyui_root)
    comfy = Comfy(comfyui_root, tmp_path / "base", flags=flags)
    try:
        for number in range(8):
            difference, report = in_turn(comfy, number).compare()
            assert difference <= LIMIT
            assert_shared(report)
            if number == 3:
                comfy.post("/free", {"unload_models": True, "free_memory": True})
        assert "memory leak" not in comfy.log.read_text()
    finally:
        comfy.stop()


@pytest.mark.full
def test_thirty_loras_hold_no_more_than_one(comfyui_root, tmp_path):
    """ComfyUI warns of a model that somebody still holds, and keeps it among the loaded ones."""
    make_models(comfyui_root)
    comfy = Comfy(comfyui_root, tmp_path / "base")
    try:
        loaded = []
        for number in range(30):
            side = Bench(comfy, "sd3")
            side.model = side.graph.add(
                "LoraLoaderModelOnly", model=side.model, lora_name="sd3_depth4.safetensors",
                strength_model=0.1 + 0.02 * number,
            )  # fmt: skip
            side.settings |= {"steps": 1, "seed": 6 * 10**7 + number}
            side.save(side.sampler("HybridiffKSampler", **side.device_chain()))
            comfy.run(side.graph.nodes)
            loaded.append(comfy.get("/tests/loaded")["loaded"])
        assert max(loaded) <= 2, loaded
        assert "memory leak" not in comfy.log.read_text()
    finally:
        comfy.stop()
