"""The workflows that come with the pack, against the nodes of a real ComfyUI."""

from __future__ import annotations

import json

import pytest

from .comfy_server import PACK, Refused

FLOWS = sorted((PACK / "workflows").glob("*.json"))
FRONTEND_ONLY = {"MarkdownNote"}
SHOWN = {
    f"Hybridiff {name}" for name in (
        "text to image SDXL", "text to image SD3", "image to image", "inpainting", "ControlNet", "LoRA",
        "any other sampler", "compared with KSampler", "text to video Wan", "modes of the paper",
    )
}  # fmt: skip


@pytest.fixture(scope="module")
def infos(comfy):
    return comfy.get("/object_info")


def choices_of(spec: list) -> list | None:
    if isinstance(spec[0], list):
        return spec[0]
    return spec[1].get("options") if spec[0] == "COMBO" else None


def to_api(flow: dict, infos: dict) -> dict:
    """A saved workflow as a prompt, as the page converts it: widgets by their places, links by their inputs' names."""
    links = {link: (str(source), slot, kind) for link, source, slot, _, _, kind in flow["links"]}
    prompt = {}
    for node in flow["nodes"]:
        if node["type"] in FRONTEND_ONLY:
            continue
        info, given = infos[node["type"]], {}
        linked = {entry["name"]: entry for entry in node["inputs"]}
        values = list(node["widgets_values"])
        for group in ("required", "optional"):
            for name in info["input_order"].get(group, []):
                spec = [*info["input"][group][name], {}][:2]
                if name in linked:
                    if linked[name]["link"] is None:
                        assert group == "optional", f"{node['type']}'s {name} is not linked"
                        continue
                    source, slot, kind = links[linked[name]["link"]]
                    made = next(other for other in flow["nodes"] if str(other["id"]) == source)
                    assert kind in spec[0].split(",") or spec[0] == "*" or kind == spec[0], (node["type"], name, kind)
                    assert made["outputs"][slot]["type"] in (kind, *kind.split(",")) or kind == "*"
                    given[name] = [source, slot]
                    continue
                value = given[name] = values.pop(0)
                options = spec[1]
                if options.get("control_after_generate"):
                    assert values.pop(0) in ("fixed", "randomize", "increment", "decrement")
                if options.get("image_upload"):
                    assert values.pop(0) == "image"
                if spec[0] in ("INT", "FLOAT"):
                    assert options.get("min", value) <= value <= options.get("max", value), (node["type"], name)
                    assert isinstance(value, (int, float)) and not (spec[0] == "INT" and isinstance(value, float))
        assert values == [] or not node["type"].startswith("Hybridiff"), f"{node['type']} has values too many: {values}"
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": given}
    return prompt


def test_each_kind_of_graph_is_there_with_its_picture():
    assert {flow.stem for flow in FLOWS} == SHOWN
    assert all(flow.with_suffix(".jpg").stat().st_size > 5000 for flow in FLOWS)


def test_none_has_the_name_of_one_of_comfyuis(comfy):
    # the page indexes all templates by their names: two alike break its search for every one
    theirs = {template["name"] for module in comfy.get("/templates/index.json") for template in module["templates"]}
    assert len(theirs) > 50 and not SHOWN & theirs


@pytest.mark.parametrize("flow", FLOWS, ids=lambda path: path.stem)
def test_its_models_can_be_fetched_and_only_one_has_a_plan(flow):
    nodes = json.loads(flow.read_text())["nodes"]
    files = {
        value for node in nodes for value in node["widgets_values"]
        if isinstance(value, str) and value.endswith(".safetensors")
    }  # fmt: skip
    models = [model for node in nodes for model in node["properties"].get("models", ())]
    assert files == {model["name"] for model in models}
    assert all(model["url"].startswith("https://") and model["url"].endswith(model["name"]) for model in models)
    assert ("HybridiffPlan" in {node["type"] for node in nodes}) == (flow.stem == "Hybridiff modes of the paper")
    (note,) = [node["widgets_values"][0] for node in nodes if node["type"] == "MarkdownNote"]
    assert len(note) < 300


@pytest.mark.parametrize("flow", FLOWS, ids=lambda path: path.stem)
def test_the_server_takes_it_but_for_the_files_that_are_not_here(comfy, infos, flow):
    prompt = to_api(json.loads(flow.read_text()), infos)
    with pytest.raises(Refused) as refused:
        comfy.queue(prompt)
    said = json.loads(str(refused.value))
    faults = [
        (infos[prompt[node]["class_type"]], fault) for node, found in said["node_errors"].items()
        for fault in found["errors"]
    ]  # fmt: skip
    assert faults
    for _, fault in faults:
        name = fault["extra_info"].get("input_name", "")
        missing = fault["type"] == "value_not_in_list" and name.endswith("_name")
        assert missing or (name == "image" and "example.png" in fault["details"]), fault


@pytest.mark.parametrize("flow", FLOWS, ids=lambda path: path.stem)
def test_nodes_do_not_lie_on_each_other(flow):
    boxes = [
        (node["pos"][0], node["pos"][1] - 30, node["pos"][0] + node["size"][0], node["pos"][1] + node["size"][1])
        for node in json.loads(flow.read_text())["nodes"]
    ]
    for i, a in enumerate(boxes):
        for b in boxes[i + 1 :]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], (a, b)
