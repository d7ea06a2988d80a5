"""The page of a real ComfyUI in both renderers: workflows load, Run draws, the plan's fields answer."""

from __future__ import annotations

import itertools
import json

import pytest

from hybridiff_core.account import bands

from ..host.comfy_server import PACK

FLOWS = sorted((PACK / "workflows").glob("*.json"))
SEEDS = itertools.count(500)
TEXT = [16, 4096, 2048]
PLAN = ["predict", "fixed", 5, 12, 0.0004, 15, 4, 0.0, 0, "auto"]
SAMPLER, PLANNER = 7, 6
ID = "1f2e3d4c-0000-4000-8000-00000000000"


@pytest.fixture
def small(comfy):
    """A graph of a small model as the page saves it: small(plan=[...], steps=12, samplers=1, id="1")."""
    from .page import Workflow

    def make(plan=PLAN, steps=12, samplers=1, size=16, id="1", device="same"):
        flow = Workflow(comfy)
        model = flow.add("UNETLoader", (0, 0), ["sd3_depth4.safetensors", "default"])
        positive, negative = (flow.add("TestConditioning", (0, 170 * seed), [seed, "fixed", *TEXT]) for seed in (1, 2))
        latent = flow.add("TestLatent", (0, 520), [3, "fixed", 16, size, 1])
        device = flow.add("HybridiffDevices", (330, 0), [device])
        planned = flow.add("HybridiffPlan", (330, 150), plan)
        for place in range(samplers):
            ours = flow.add(
                "HybridiffKSampler", (660 + 640 * place, 0), [next(SEEDS), "fixed", steps, 5.0, "euler", "normal", 1.0],
                model=(model, 0), positive=(positive, 0), negative=(negative, 0), latent_image=(latent, 0),
                plan=(planned, 0), devices=(device, 0),
            )  # fmt: skip
            flow.add("SaveLatent", (990 + 640 * place, 0), ["browser"], samples=(ours, 0))
        return flow.to_dict(ID + id)

    return make


@pytest.mark.parametrize("flow", FLOWS, ids=lambda path: path.stem)
def test_our_workflows_load(tab, flow):
    tab.load(json.loads(flow.read_text()))
    types = tab.page.evaluate("window.app.canvas.graph._nodes.map(({ type, has_errors }) => [type, !!has_errors])")
    expected = [node["type"] for node in json.loads(flow.read_text())["nodes"]]
    assert sorted(kind for kind, _ in types) == sorted(expected)
    assert tab.missing_nodes() == []
    written = {node["id"]: node.get("widgets_values") or [] for node in json.loads(flow.read_text())["nodes"]}
    assert tab.saved_widgets() == written  # a value without a widget would be gone, a widget without one would be new
    tab.page.keyboard.press("Escape")
    tab.page.wait_for_timeout(300)
    ours = ("HybridiffKSampler", "HybridiffModel")
    (sampler,) = [node["id"] for node in json.loads(flow.read_text())["nodes"] if node["type"] in ours]
    tab.look_at(sampler, 0.8)
    tab.shot(f"workflow-{flow.stem}")


def test_a_missing_node_and_a_missing_widget_show(tab):
    flow = json.loads((PACK / "workflows" / "lora.json").read_text())
    sampler = next(node for node in flow["nodes"] if node["type"] == "HybridiffKSampler")
    sampler["widgets_values"].append("of another version")
    flow["nodes"][0]["type"] = "NodeOfAnotherVersion"
    tab.load(flow)
    assert tab.missing_nodes() == ["NodeOfAnotherVersion"]
    assert "of another version" not in tab.saved_widgets()[sampler["id"]]


def test_our_subgraph_loads_as_one_node(tab, comfy):
    (path,) = (PACK / "subgraphs").glob("*.json")
    listed = comfy.get("/global_subgraphs")
    assert path.stem in {entry["name"] for entry in listed.values() if entry["info"]["node_pack"].endswith("hybridiff")}
    tab.load(json.loads(path.read_text()))
    (made,) = tab.page.evaluate("window.app.canvas.graph._nodes.map(({ id, title }) => [id, title])")
    assert made[1] == path.stem
    shown = {name: value for name, (value, _) in tab.values(made[0]).items()}
    assert shown["text"].startswith("a lighthouse") and shown["text_1"].startswith("blurry")
    assert shown["ckpt_name"] == "sd_xl_base_1.0.safetensors"
    assert [shown[name] for name in ("width", "height", "seed", "steps", "cfg")] == [1024, 1024, 0, 30, 6]
    tab.shot("blueprint")
    tab.enter(made[0])
    inside = tab.page.evaluate("window.app.canvas.graph._nodes.map(({ type, has_errors }) => [type, !!has_errors])")
    assert "HybridiffKSampler" in {kind for kind, _ in inside}


def test_run_draws_the_curve_step_by_step_and_a_reload_shows_it_again(tab, small):
    tab.load(small(id=str(int(tab.vue))))
    tab.look_at(SAMPLER)
    assert tab.picture(SAMPLER)["points"] == [] and tab.picture(SAMPLER)["visible"]
    tab.shot("before")
    tab.watch(SAMPLER)
    outputs = tab.run()["outputs"]
    (view,) = outputs[str(SAMPLER)]["hybridiff_view"]
    seen = tab.picture(SAMPLER)
    assert seen["points"] == list(range(12))
    assert [tuple(band) for band in seen["bands"]] == bands(view["steps"])
    assert seen["marks"] == {"tau1": 4, "tau2": 8}
    assert seen["devices"] == view["devices"] and seen["busy"] == [True, True]
    assert seen["status"] == f"predict: about {view['speed_up']:.2f}x one device"
    grown = tab.watched()
    assert len(grown) > 3 and grown == sorted(grown), "the curve came at once, not step by step"
    assert tab.overlapping(SAMPLER) == [] and tab.overlapping(PLANNER) == []
    tab.shot("after")
    tab.look_at(SAMPLER, 2.5)
    tab.shot("close")
    tab.open()
    tab.page.wait_for_timeout(1500)
    again = tab.picture(SAMPLER)
    assert {**again, "status": seen["status"]} == seen
    assert tab.picture(PLANNER)["caption"] == "the last run's difference"


def test_the_model_node_draws_too_and_a_reload_shows_it_again(tab, comfy):
    from .page import Workflow

    flow = Workflow(comfy)
    loader = flow.add("UNETLoader", (0, 0), ["sd3_depth4.safetensors", "default"])
    positive, negative = (flow.add("TestConditioning", (0, 170 * seed), [seed, "fixed", *TEXT]) for seed in (1, 2))
    latent = flow.add("TestLatent", (0, 520), [3, "fixed", 16, 16, 1])
    device = flow.add("HybridiffDevices", (330, 0), ["same"])
    planned = flow.add("HybridiffPlan", (330, 150), PLAN)
    model = flow.add("HybridiffModel", (660, 0), [], model=(loader, 0), plan=(planned, 0), devices=(device, 0))
    sampled = flow.add(
        "KSampler", (990, 0), [next(SEEDS), "fixed", 12, 5.0, "euler", "normal", 1.0], model=(model, 0),
        positive=(positive, 0), negative=(negative, 0), latent_image=(latent, 0),
    )  # fmt: skip
    flow.add("SaveLatent", (1320, 0), ["browser"], samples=(sampled, 0))
    tab.load(flow.to_dict(ID + ("5" if tab.vue else "6")))
    tab.run()
    seen = tab.picture(model)
    assert seen["points"] == list(range(12)) and seen["marks"] == {"tau1": 4, "tau2": 8}
    tab.open()
    tab.page.wait_for_timeout(1500)
    assert tab.picture(model) == seen


def test_an_exact_run_has_one_band(tab, small):
    tab.load(small(plan=["exact", *PLAN[1:]], steps=6, id="9"))
    tab.run()
    seen = tab.picture(SAMPLER)
    assert seen["bands"] == [["", 0, 5]] and seen["marks"] == {} and seen["points"] == list(range(6))


@pytest.mark.parametrize("saved", ["cuda:77", "cuda:77 (RTX 3090, 24 GB)"])
def test_a_device_of_another_machine_stays_as_it_was_saved_and_the_run_says_so(tab, small, saved):
    tab.load(small(plan=["exact", *PLAN[1:]], steps=4, id="7", device=saved))
    (view,) = tab.run()["outputs"][str(SAMPLER)]["hybridiff_view"]
    assert "the device cuda:77 is not on this machine" in "; ".join(view["lines"])
    assert [saved] in tab.saved_widgets().values()


def test_several_samplers_each_show_their_own_run(tab, small):
    tab.load(small(samplers=2, id=str(2 + tab.vue)))
    outputs = tab.run()["outputs"]
    for node in (SAMPLER, SAMPLER + 2):
        (view,) = outputs[str(node)]["hybridiff_view"]
        assert tab.picture(node)["status"] == f"predict: about {view['speed_up']:.2f}x one device"
        assert tab.picture(node)["points"] == list(range(12))


def test_a_sampler_within_a_subgraph(tab, small):
    tab.load(small(id=str(4 + tab.vue)))
    outer = tab.to_subgraph([PLANNER, SAMPLER, SAMPLER + 1])
    outputs = tab.run()["outputs"]
    (name,) = [name for name, output in outputs.items() if "hybridiff_view" in output]
    assert name.split(":")[0] == str(outer)
    inner = int(name.split(":")[1])
    tab.enter(outer)
    assert tab.picture(inner, (outer,))["points"] == list(range(12))
    tab.look_at(inner)
    tab.shot("subgraph")


def test_the_fields_of_the_plan_answer(tab, small):
    tab.load(small(plan=["auto", "slope", 10, 12, 0.0004, 15, 20, 0.0, 0, "auto"]))

    def disabled():
        return {name for name, (_, idle) in tab.values(PLANNER).items() if idle}

    assert len(disabled()) == 7 and "tolerance" not in disabled()
    tab.choose(PLANNER, "preset", "SD3 (paper)")
    assert disabled() == {"start_step"}
    values = {name: value for name, (value, _) in tab.values(PLANNER).items()}
    assert (values["slope_window"], values["warmup_cap"], values["parallel_steps"]) == (15, 40, 5)
    tab.choose(PLANNER, "warmup_cap", 30)
    assert tab.values(PLANNER)["preset"][0] == "auto" and tab.values(PLANNER)["mode"][0] == "predict"
    tab.choose(PLANNER, "warmup", "fixed")
    assert disabled() == {"slope_window", "slope_threshold", "warmup_cap"}
    tab.look_at(PLANNER)
    assert tab.picture(PLANNER)["status"] == "too long for 12 steps: lower parallel_steps"
    assert tab.overlapping(PLANNER) == []
    tab.shot("plan")
    tab.choose(PLANNER, "mode", "exact")
    assert len(disabled()) == 8
    tab.choose(PLANNER, "mode", "auto")
    tab.choose(PLANNER, "preset", "exact only")
    assert tab.values(PLANNER)["mode"][0] == "exact"


def test_boundaries_are_dragged(tab, small):
    tab.load(small(plan=["predict", "slope", 10, 12, 0.0004, 15, 20, 0.0, 0, "SDXL (paper)"], steps=20))
    tab.look_at(PLANNER, 1.5)
    before = tab.picture(PLANNER)["marks"]
    tab.drag(PLANNER, "tau2", 3)
    values = {name: value for name, (value, _) in tab.values(PLANNER).items()}
    assert (values["warmup"], values["preset"]) == ("fixed", "auto")
    assert values["start_step"] == before["tau1"] + 1
    assert values["parallel_steps"] == before["tau2"] - before["tau1"] + 3
    tab.drag(PLANNER, "tau1", -2)
    values = {name: value for name, (value, _) in tab.values(PLANNER).items()}
    assert values["start_step"] == before["tau1"] - 1
    assert tab.picture(PLANNER)["marks"] == {"tau1": before["tau1"] - 2, "tau2": before["tau2"] + 3}
    assert tab.overlapping(PLANNER) == []
    tab.shot("dragged")


def test_what_is_saved_has_no_place_for_our_drawings(tab, small):
    flow = small()
    tab.load(flow)
    saved = tab.page.evaluate("window.app.canvas.graph.serialize()")
    for node in saved["nodes"]:
        if node["id"] in (SAMPLER, PLANNER):
            (given,) = [before for before in flow["nodes"] if before["id"] == node["id"]]
            assert node["widgets_values"] == given["widgets_values"]
