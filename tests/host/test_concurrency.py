"""Several prompts, tabs, models, samplers and plans beside each other: the right latents, and no worker too many."""

from __future__ import annotations

import threading

import pytest

from .comfy_server import Comfy, Events, make_models
from .conftest import Bench
from .test_exact import LIMIT, assert_shared
from .test_fallbacks import workers


@pytest.fixture(scope="module")
def comfy(comfyui_root, tmp_path_factory):
    """A server of this file's own: its workers are counted."""
    make_models(comfyui_root)
    server = Comfy(comfyui_root, tmp_path_factory.mktemp("concurrency") / "base")
    yield server
    server.stop()


@pytest.fixture
def one_worker(bench) -> set[int]:
    """The worker on "same" is there, and is known."""
    side = bench("sd3")
    side.compare()
    return pids(side.comfy)


def pids(comfy: Comfy) -> set[int]:
    return {worker.pid for worker in workers(comfy)}


def both(side: Bench) -> tuple[str, str, str]:
    """KSampler and ours in the graph: the nodes of the stock latent, of our sampler, of our latent."""
    stock = side.save(side.sampler("KSampler"))
    ours = side.sampler("HybridiffKSampler", **side.device_chain())
    return stock, ours[0], side.save(ours)


def assert_right(side: Bench, outputs: dict, nodes: tuple[str, str, str], limit: float = LIMIT) -> dict:
    stock, ours, saved = nodes
    assert side.difference(outputs, stock, saved) <= limit
    (report,) = outputs[ours]["hybridiff"]
    return report


def test_two_prompts_in_the_queue(bench, one_worker):
    sides = [bench("sd3"), bench("sd3")]
    nodes = [both(side) for side in sides]
    prompts = [side.comfy.queue(side.graph.nodes) for side in sides]
    for side, of_side, prompt in zip(sides, nodes, prompts):
        assert_shared(assert_right(side, side.comfy.wait(prompt)["outputs"], of_side))
    assert pids(sides[0].comfy) == one_worker


def test_two_tabs_at_once(bench, one_worker):
    sides = [bench("sd3"), bench("sd15", size=8)]
    nodes = [both(side) for side in sides]
    tabs = [Events(side.comfy, f"tab{number}") for number, side in enumerate(sides)]
    prompts: list[str] = ["", ""]

    def queue(number: int) -> None:
        prompts[number] = sides[number].comfy.queue(sides[number].graph.nodes, tabs[number].client)

    threads = [threading.Thread(target=queue, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for side, of_side, prompt in zip(sides, nodes, prompts):
        assert_shared(assert_right(side, side.comfy.wait(prompt)["outputs"], of_side))
    assert pids(sides[0].comfy) == one_worker
    for tab, own, other in zip(tabs, prompts, reversed(prompts)):
        tab.end_of(own)
        assert tab.of(own, "progress") and not tab.of(other, "progress")
        tab.close()


def test_two_models_in_one_graph(bench, one_worker):
    side = bench("sd3")
    first = both(side)
    side.model = side.graph.add("UNETLoader", unet_name="sd3_depth6.safetensors", weight_dtype="default")
    second = both(side)
    outputs = side.comfy.run(side.graph.nodes)
    for nodes in (first, second):
        assert_shared(assert_right(side, outputs, nodes), calls=4)
    assert pids(side.comfy) == one_worker  # it holds one model after the other


def test_stock_after_ours_and_ours_after_stock(bench, one_worker):
    side = bench("sd3")
    before = side.latent

    def chain(*kinds: str) -> str:
        side.latent = before
        for kind, denoise in zip(kinds, (1.0, 0.6)):
            side.settings["denoise"] = denoise
            side.latent = side.sampler(kind, **({} if kind == "KSampler" else side.device_chain()))
        return side.save(side.latent)

    stock, ours = "KSampler", "HybridiffKSampler"
    expected, *others = chain(stock, stock), chain(ours, stock), chain(stock, ours), chain(ours, ours)
    outputs = side.comfy.run(side.graph.nodes)
    for saved in others:
        assert side.difference(outputs, expected, saved) <= LIMIT
    assert pids(side.comfy) == one_worker


def test_one_model_with_several_plans_in_one_graph(bench, one_worker):
    side = bench("sd3")
    side.settings["steps"] = 12
    middle = {"warmup": "fixed", "start_step": 5, "parallel_steps": 4}
    plans = [
        ({"mode": "exact"}, ("same",), LIMIT),
        ({"mode": "predict", **middle}, ("same",), 0.5),
        ({"mode": "pipeline", **middle}, ("same", "same"), 0.5),
        ({"mode": "exact", "slope_window": 6}, ("same", "same"), LIMIT),
    ]
    nodes = []
    for side.plan, side.devices, _ in plans:
        nodes.append(both(side))
    outputs = side.comfy.run(side.graph.nodes)
    for (plan, _, limit), of_plan in zip(plans, nodes):
        report = assert_right(side, outputs, of_plan, limit)
        assert report["mode"] == plan["mode"] and report["shared_calls"] > 0
    started = pids(side.comfy)
    assert one_worker < started and len(started) == 2
