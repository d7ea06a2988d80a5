"""The page of a real ComfyUI in both renderers: workflows load, Run draws, the plan's fields answer."""

from __future__ import annotations

import contextlib
import itertools
import json

import pytest

from hybridiff_core.account import bands
from hybridiff_core.phrases import clock

from ..host.comfy_server import PACK, Refused

FLOWS = sorted((PACK / "workflows").glob("*.json"))
SEEDS = itertools.count(500)
TEXT = [16, 4096, 2048]
NO_GAIN = "both processes use one device, so no gain is shown"
PLAN = ["predict", "fixed", 5, 12, 0.0004, 15, 4, 0.0, 0, "auto"]
SAMPLER, PLANNER = 7, 6
ID = "1f2e3d4c-0000-4000-8000-00000000000"


@pytest.fixture
def small(comfy):
    """A graph of a small model as the page saves it: small(plan=[...], steps=12, samplers=1, id="1")."""
    from .page import Workflow

    def make(plan=PLAN, steps=12, samplers=1, size=16, id="1", device="same", channels=16, kind="HybridiffKSampler"):
        flow = Workflow(comfy)
        model = flow.add("UNETLoader", (0, 0), ["sd3_depth4.safetensors", "default"])
        positive, negative = (flow.add("TestConditioning", (0, 170 * seed), [seed, "fixed", *TEXT]) for seed in (1, 2))
        latent = flow.add("TestLatent", (0, 520), [3, "fixed", channels, size, 1])
        device = flow.add("HybridiffDevices", (330, 0), [device])
        planned = flow.add("HybridiffPlan", (330, 150), plan)
        ours = kind.startswith("Hybridiff")
        given = {"plan": (planned, 0), "devices": (device, 0)} if ours else {}
        values = ["euler", "normal", 1.0, *(["same as KSampler"] if ours else [])]
        for place in range(samplers):
            sampled = flow.add(
                kind, (660 + 640 * place, 0), [next(SEEDS), "fixed", steps, 5.0, *values],
                model=(model, 0), positive=(positive, 0), negative=(negative, 0), latent_image=(latent, 0), **given,
            )  # fmt: skip
            flow.add("SaveLatent", (990 + 640 * place, 0), ["browser"], samples=(sampled, 0))
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
    saved = tab.saved_widgets()
    for node in json.loads(flow.read_text())["nodes"]:
        here, there = written[node["id"]], saved[node["id"]]
        # a value without a widget would be gone; a newer ComfyUI's own nodes may have more
        assert there == here if node["type"].startswith("Hybridiff") else there[: len(here)] == here
    tab.page.keyboard.press("Escape")
    tab.page.wait_for_timeout(300)
    ours = ("HybridiffKSampler", "HybridiffModel")
    (sampler,) = [node["id"] for node in json.loads(flow.read_text())["nodes"] if node["type"] in ours]
    tab.look_at(sampler, 0.8)
    tab.shot(f"workflow-{flow.stem}")


def test_the_template_browser_has_no_fault_with_ours(tab):
    tab.page.evaluate("window.app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    dialog = tab.page.get_by_role("dialog")
    dialog.get_by_text("hybridiff", exact=True).first.click()
    dialog.get_by_text("Hybridiff compared with KSampler").first.wait_for(timeout=15_000)
    tab.shot("templates")
    tab.page.keyboard.press("Escape")
    assert not [text for text in tab.heard if "duplicate" in text.lower()]


def test_a_missing_node_and_a_missing_widget_show(tab):
    flow = json.loads((PACK / "workflows" / "Hybridiff LoRA.json").read_text())
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


def test_a_run_shows_step_by_step_and_a_reload_shows_it_again(tab, small):
    tab.load(small(id=str(int(tab.vue))))
    tab.look_at(SAMPLER)
    before = tab.picture(SAMPLER)
    assert before["state"] == "empty" and before["visible"] and before["badge"] == ""
    tab.shot("before")
    tab.watch(SAMPLER)
    outputs = tab.run()["outputs"]
    (view,) = outputs[str(SAMPLER)]["hybridiff_view"]
    seen = tab.picture(SAMPLER)
    assert (seen["state"], seen["badge"]) == ("done", "2 devices")
    assert seen["large"].endswith(" s") and seen["reasons"] == [NO_GAIN] and seen["gain"] == ""
    count = sum(step["work"] != "exact" for step in view["steps"])
    assert seen["what"] == (
        f"2 devices: {view['shared']} of 12 steps shared, close to KSampler's picture: {count} of 12 steps predicted"
    )
    assert seen["devices"] == view["devices"] and seen["busy"] == [True, True]
    assert seen["points"] == []  # only on request
    drawn, said = zip(*tab.watched())
    assert len(drawn) > 3 and list(drawn) == sorted(drawn), "the lanes came at once, not step by step"
    assert any(words.startswith("step ") for words in said)
    tab.open_details(SAMPLER)
    opened = tab.picture(SAMPLER)
    assert opened["points"] == list(range(12)) and opened["marks"] == {"tau1": 4, "tau2": 8}
    assert [tuple(band) for band in opened["bands"]] == bands(view["steps"])
    assert tab.overlapping(SAMPLER) == [] and tab.overlapping(PLANNER) == []
    tab.shot("after")
    tab.look_at(SAMPLER, 2.5)
    tab.shot("close")
    tab.open()
    tab.page.wait_for_timeout(1500)
    assert tab.picture(SAMPLER) == seen
    assert tab.picture(PLANNER)["caption"] == "the last run's difference"


def test_a_run_that_fails_says_so_and_after_a_reload_too(tab, small):
    tab.load(small(plan=["exact", *PLAN[1:]], steps=4, id="71", channels=4))
    with contextlib.suppress(Refused):
        tab.run()
    seen = tab.picture(SAMPLER)
    assert (seen["state"], seen["badge"], seen["large"]) == ("failed", *["failed at step 1 of 4"] * 2)
    tab.page.keyboard.press("Escape")
    tab.open()
    tab.page.wait_for_timeout(1500)
    assert tab.picture(SAMPLER)["badge"] == "failed at step 1 of 4"


def test_a_run_that_is_stopped_says_at_which_step(tab, small, comfy):
    tab.load(small(plan=["exact", *PLAN[1:]], steps=600, id="72"))
    tab.page.get_by_test_id("queue-button").first.click()
    wait_for(tab, lambda: tab.badge(SAMPLER).startswith("2 devices: step "))
    comfy.post("/interrupt", {})
    wait_for(tab, lambda: tab.badge(SAMPLER).startswith("stopped at step "))
    seen = tab.picture(SAMPLER)
    assert seen["state"] == "stopped" and seen["large"] == seen["badge"] and seen["badge"].endswith(" of 600")


def test_a_page_that_is_loaded_within_a_run_has_all_of_it_in_the_end(tab, small):
    tab.load(small(plan=["exact", *PLAN[1:]], steps=300, id="73"))
    tab.page.get_by_test_id("queue-button").first.click()
    wait_for(tab, lambda: tab.badge(SAMPLER).startswith("2 devices: step "))
    tab.open()
    wait_for(tab, lambda: tab.badge(SAMPLER) == "2 devices", 60)
    tab.open_details(SAMPLER)
    assert len(tab.picture(SAMPLER)["busy"]) == 2
    bands_of_all = tab.picture(SAMPLER)["bands"]
    assert bands_of_all == [["", 0, 299]]


def test_a_node_that_is_bypassed_shows_no_run(tab, small):
    tab.load(small(plan=["exact", *PLAN[1:]], steps=4, id="74", samplers=2))
    tab.run()
    assert tab.badge(SAMPLER) == "2 devices"
    tab.page.evaluate("(id) => { window.app.canvas.graph.getNodeById(id).mode = 4 }", SAMPLER)
    tab.choose(SAMPLER + 2, "seed", next(SEEDS))
    tab.run()
    assert tab.badge(SAMPLER) == "" and tab.picture(SAMPLER)["state"] == "empty"
    assert tab.badge(SAMPLER + 2) == "2 devices"


def test_the_properties_panel_has_no_drawing_of_ours(tab, small):
    tab.load(small(id="75"))
    for node in (SAMPLER, PLANNER):
        options = tab.page.evaluate(
            """(id) => window.app.canvas.graph.getNodeById(id).widgets
                .filter(({ name }) => /^hybridiff_/.test(name)).map(({ options }) => options.hideInPanel)""",
            node,
        )
        assert options == [True]


def wait_for(tab, found, limit_s=30):
    for _ in range(limit_s * 10):
        if found():
            return
        tab.page.wait_for_timeout(100)
    raise TimeoutError(f"not within {limit_s} s")


def test_the_model_node_draws_too_and_a_reload_shows_it_again(tab, comfy):
    from .page import Workflow

    flow = Workflow(comfy)
    loader = flow.add("UNETLoader", (0, 0), ["sd3_depth4.safetensors", "default"])
    positive, negative = (flow.add("TestConditioning", (0, 170 * seed), [seed, "fixed", *TEXT]) for seed in (1, 2))
    latent = flow.add("TestLatent", (0, 520), [3, "fixed", 16, 16, 1])
    device = flow.add("HybridiffDevices", (330, 0), ["same"])
    planned = flow.add("HybridiffPlan", (330, 150), PLAN)
    model = flow.add(
        "HybridiffModel", (660, 0), ["same as KSampler"], model=(loader, 0), plan=(planned, 0), devices=(device, 0)
    )
    sampled = flow.add(
        "KSampler", (990, 0), [next(SEEDS), "fixed", 12, 5.0, "euler", "normal", 1.0], model=(model, 0),
        positive=(positive, 0), negative=(negative, 0), latent_image=(latent, 0),
    )  # fmt: skip
    flow.add("SaveLatent", (1320, 0), ["browser"], samples=(sampled, 0))
    tab.load(flow.to_dict(ID + ("5" if tab.vue else "6")))
    tab.run()
    seen = tab.picture(model)
    assert seen["badge"] == "2 devices" and len(seen["devices"]) == 2
    tab.open()
    tab.page.wait_for_timeout(1500)
    assert tab.picture(model) == seen
    tab.open_details(model)
    assert tab.picture(model)["marks"] == {"tau1": 4, "tau2": 8}


def test_an_exact_run_has_one_band(tab, small):
    tab.load(small(plan=["exact", *PLAN[1:]], steps=6, id="9"))
    tab.run()
    tab.open_details(SAMPLER)
    seen = tab.picture(SAMPLER)
    assert seen["what"] == "2 devices: every step shared, the same picture as KSampler's"
    assert seen["bands"] == [["", 0, 5]] and seen["marks"] == {} and seen["points"] == list(range(6))


@pytest.mark.parametrize("saved", ["cuda:77", "cuda:77 (RTX 3090, 24 GB)"])
def test_a_device_of_another_machine_stays_as_it_was_saved_and_the_run_says_so(tab, small, saved):
    tab.load(small(plan=["exact", *PLAN[1:]], steps=4, id="7", device=saved))
    tab.run()
    seen = tab.picture(SAMPLER)
    assert seen["state"] == "alone" and seen["badge"].startswith("1 device: the device cuda:77 is not on this machine")
    assert seen["reasons"][0].startswith("the device cuda:77 is not on this machine")
    assert saved in [values[0] for values in tab.saved_widgets().values() if values]


def test_several_samplers_each_show_their_own_run(tab, small):
    tab.load(small(samplers=2, id=str(2 + tab.vue)))
    outputs = tab.run()["outputs"]
    for node in (SAMPLER, SAMPLER + 2):
        (view,) = outputs[str(node)]["hybridiff_view"]
        assert tab.picture(node)["large"] == clock(view["seconds"]) and tab.badge(node) == "2 devices"


def test_a_sampler_within_a_subgraph(tab, small):
    tab.load(small(id=str(4 + tab.vue)))
    outer = tab.to_subgraph([PLANNER, SAMPLER, SAMPLER + 1])
    outputs = tab.run()["outputs"]
    (name,) = [name for name, output in outputs.items() if "hybridiff_view" in output]
    assert name.split(":")[0] == str(outer)
    inner = int(name.split(":")[1])
    assert tab.badge(outer) == "2 devices"  # the node that stands for it says what happened within
    tab.enter(outer)
    assert tab.picture(inner, (outer,))["badge"] == "2 devices"
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


def test_a_dragged_auto_keeps_its_tolerance_and_one_step_back_undoes_it(tab, small):
    tab.load(small(plan=["auto", "slope", 10, 12, 0.0004, 15, 20, 0.0, 0, "auto"], steps=20, id="76"))
    tab.look_at(PLANNER, 1.5)
    tab.drag(PLANNER, "tau2", -3)
    values = {name: value for name, (value, _) in tab.values(PLANNER).items()}
    assert (values["mode"], values["tolerance"], values["warmup"]) == ("predict", 0.01, "fixed")
    tab.page.keyboard.press("Control+z")
    tab.page.wait_for_timeout(1000)
    assert tab.values(PLANNER)["mode"][0] == "auto"


def test_the_plan_shows_few_fields_at_first(tab, small):
    tab.load(small(id="77"))
    tab.look_at(PLANNER)
    shown = tab.page.evaluate(
        """(id) => { const node = window.app.canvas.graph.getNodeById(id)
            const isShown = ({ hidden, options }) => !hidden && !(window.LiteGraph.vueNodesMode && options.advanced)
            return node.widgets.filter(isShown).map(({ name }) => name) }""",
        PLANNER,
    )
    assert shown == ["mode", "tolerance", "preset", "hybridiff_preview"]


def test_a_connected_plan_rules_over_the_picture(tab, small):
    tab.load(small(id="78"))
    assert tab.values(SAMPLER)["picture"][1]
    tab.page.evaluate(
        """(id) => { const node = window.app.canvas.graph.getNodeById(id)
            node.disconnectInput(node.inputs.findIndex(({ name }) => name === 'plan')) }""",
        SAMPLER,
    )
    tab.page.wait_for_timeout(300)
    assert not tab.values(SAMPLER)["picture"][1]


def test_a_ksampler_is_taken_to_two_gpus_and_back(tab, small):
    tab.load(small(kind="KSampler", id="79"))
    tab.look_at(SAMPLER)
    before = tab.saved_widgets()[SAMPLER]
    tab.menu(SAMPLER, "Use two GPUs (Hybridiff)")
    assert "HybridiffKSampler" in tab.kinds() and "KSampler" not in tab.kinds()
    assert tab.height(SAMPLER) == pytest.approx(tab.height(SAMPLER, needed=True), abs=20)  # what room.js reckons with
    assert tab.saved_widgets()[SAMPLER] == [*before, "same as KSampler"]
    tab.run()
    assert tab.picture(SAMPLER)["state"] == "alone"  # this machine has no second GPU
    tab.shot("converted")
    tab.page.keyboard.press("Escape")
    tab.menu(SAMPLER, "Back to one GPU (no Hybridiff)")
    assert "KSampler" in tab.kinds() and tab.saved_widgets()[SAMPLER] == before
    assert tab.missing_nodes() == []


def test_the_node_of_a_subgraph_is_taken_to_two_gpus_and_back(tab, small):
    """In most of ComfyUI's templates the sampler is in a subgraph."""
    tab.load(small(kind="KSampler", id="83"))
    outer = tab.to_subgraph([SAMPLER, SAMPLER + 1])
    tab.look_at(outer)
    for entry, kind, said in (
        ("Use two GPUs (Hybridiff)", "HybridiffKSampler", "The samplers in this subgraph use two GPUs now."),
        ("Back to one GPU (no Hybridiff)", "KSampler", "The samplers in this subgraph use one GPU again."),
    ):
        tab.menu(outer, entry)
        tab.page.get_by_text(said).wait_for()
        tab.enter(outer)
        assert kind in tab.kinds() and len(tab.kinds()) == 2
        tab.leave()
    assert tab.missing_nodes() == []


def test_one_step_back_undoes_it(tab, small):
    tab.load(small(kind="KSampler", id="80"))
    tab.look_at(SAMPLER)
    tab.menu(SAMPLER, "Use two GPUs (Hybridiff)")
    assert "HybridiffKSampler" in tab.kinds()
    tab.page.keyboard.press("Control+z")
    tab.page.wait_for_timeout(1000)
    assert "HybridiffKSampler" not in tab.kinds()


@pytest.mark.parametrize("language, badge", [("zh", "2 个设备"), ("ja", "デバイス 2 台"), ("ko", "장치 2개")])
def test_the_view_speaks_the_users_language(tab, small, comfy, language, badge):
    comfy.post("/settings", {"Comfy.Locale": language})
    try:
        tab.open()
        tab.load(small(plan=["exact", *PLAN[1:]], steps=4, id=f"8{('zh', 'ja', 'ko').index(language) + 1}"))
        tab.run()
        tab.look_at(SAMPLER)
        seen = tab.picture(SAMPLER)
        assert seen["badge"] == badge
        assert not any(word in " ".join([seen["what"], *seen["reasons"]]) for word in ("step", "device", "shown"))
        tab.shot(f"language-{language}")
    finally:
        comfy.post("/settings", {"Comfy.Locale": "en"})
        tab.open()
