"""The report and compare nodes, and what the page is told, through the HTTP API of a real ComfyUI."""

from __future__ import annotations

import re

import pytest

from hybridiff_core import lines
from hybridiff_core.account import bands

from .comfy_server import Events, Refused

FIXED = {"warmup": "fixed", "start_step": 5, "parallel_steps": 4}
BANDS = [("warm-up", 0, 4), ("parallelism", 5, 8), ("fully-connecting", 9, 11)]


def told(side, ours):
    """A graph's report as text and picture, the picture's size as the server says it."""
    add = side.graph.add
    report = add("HybridiffReport", report=[ours[0], 1])
    side.reported = report[0]
    text = add("PreviewAny", source=[report[0], 1])
    return text[0], add("SaveImage", images=report, filename_prefix="report")[0]


def predicting(bench, steps=12):
    side = bench("sd3")
    side.settings["steps"] = steps
    side.plan = {"mode": "predict", **FIXED}
    return side


def test_the_report_of_a_run_with_stages(bench):
    side = predicting(bench)
    ours = side.sampler("HybridiffKSampler", **side.device_chain())
    text, picture = told(side, ours)
    outputs = side.comfy.run(side.graph.nodes)
    (said,) = outputs[text]["text"]
    rows = {line.split()[0]: line.split() for line in said.splitlines() if line}
    assert [rows[name][1:4] for name in ("start", "middle", "end")] == [
        ["5", "0", "4"], ["4", "5", "8"], ["3", "9", "11"],
    ]  # fmt: skip
    result, devices, no_gain = said.splitlines()[:3]
    assert re.fullmatch(r"\d+(\.\d)? s", result) and no_gain == "both processes use one device, so no gain is shown"
    assert devices == "2 devices: 10 of 12 steps shared, close to KSampler's picture: 2 of 12 steps predicted"
    assert "model calls: 12, shared: 10" in said
    (file,) = outputs[picture]["images"]
    header = (side.comfy.base / "output" / file["subfolder"] / file["filename"]).read_bytes()[:24]
    assert int.from_bytes(header[16:20]) == 1280
    (view,) = outputs[ours[0]]["hybridiff_view"]
    assert outputs[side.reported]["hybridiff_view"] == [view]  # the node shows it itself
    assert [step["step"] for step in view["steps"]] == list(range(12)) and view["total"] == 12
    assert bands(view["steps"]) == BANDS
    busy = [step["times"][1]["compute"] > 0 for step in view["steps"]]
    assert busy == [step["work"] == "exact" for step in view["steps"]]


def test_the_report_says_why_nothing_was_shared(bench):
    side = bench("sd3")
    side.devices = ("cuda:7",)
    text, _ = told(side, side.sampler("HybridiffKSampler", **side.device_chain()))
    (said,) = side.comfy.run(side.graph.nodes)[text]["text"]
    assert said.splitlines()[1] == "1 device: no step shared, the same picture as KSampler's"
    assert said.splitlines()[2].startswith("ran on one device: the device cuda:7 is not on this machine")
    assert said.splitlines()[3] == f"What to do: {lines.DEVICE_NOT_HERE.way_out}"
    assert [line.split()[:4] for line in said.splitlines() if line.startswith("all steps")] == [
        ["all", "steps", "4", "0"]
    ]


def test_the_page_that_queued_a_run_hears_of_every_step(bench):
    side = predicting(bench)
    ours = side.sampler("HybridiffKSampler", **side.device_chain())
    side.save(ours)
    pages = [Events(side.comfy, name) for name in ("page", "another")]
    prompt = side.comfy.queue(side.graph.nodes, client="page")
    pages[0].end_of(prompt)
    heard = [[data for _, kind, data in page.seen if kind == "hybridiff.step"] for page in pages]
    for page in pages:
        page.close()
    seen = heard[0]
    assert heard[1] == []
    assert {data["node"] for data in seen} == {ours[0]} and len({data["run"] for data in seen}) == 1
    assert [data["done"] for data in seen] == [False] * (len(seen) - 1) + [True]
    steps = {step["step"]: step for data in seen for step in data["steps"]}
    assert bands([steps[number] for number in range(12)]) == BANDS
    assert seen[0]["state"] == "running" and seen[0]["steps"] == [] and seen[0]["starting"] == ["cpu (process 2)"]
    assert seen[-1]["state"] == "done" and seen[-1]["seconds"] > 0 and seen[-1]["starting"] == []
    assert [step["step"] for step in seen[-1]["steps"]] == list(range(12))  # all, for a page that was opened late


def test_the_page_hears_of_a_run_that_was_stopped(bench):
    side = predicting(bench, steps=400)
    ours = side.sampler("HybridiffKSampler", **side.device_chain())
    side.save(ours)
    page = Events(side.comfy, "stopping")
    prompt = side.comfy.queue(side.graph.nodes, client="stopping")
    page.wait_for_step(prompt, 3)
    side.comfy.post("/interrupt", {})
    page.end_of(prompt)
    last = [data for _, kind, data in page.seen if kind == "hybridiff.step"][-1]
    page.close()
    assert last["done"] and last["state"] == "stopped" and last["gain"] is None


def test_the_page_hears_of_a_run_that_failed(bench):
    side = bench("sd3")
    side.latent = side.graph.add("TestLatent", seed=4, channels=4, size=16, batch=1)
    side.save(side.sampler("HybridiffKSampler", **side.device_chain()))
    page = Events(side.comfy, "failing")
    page_prompt = side.comfy.queue(side.graph.nodes, client="failing")
    page.end_of(page_prompt)
    last = [data for _, kind, data in page.seen if kind == "hybridiff.step"][-1]
    page.close()
    assert last["done"] and last["state"] == "failed"


@pytest.mark.parametrize("picture, exact", [(None, True), ("same as KSampler", True), ("close to it, faster", False)])
def test_without_a_plan_the_picture_widget_decides(bench, picture, exact):
    side = bench("sd3")
    side.plan, side.settings["steps"] = None, 20
    ours = side.sampler("HybridiffKSampler", **side.device_chain(), **({"picture": picture} if picture else {}))
    stock, saved = side.save(side.sampler("KSampler")), side.save(ours)
    outputs = side.comfy.run(side.graph.nodes)
    (report,) = outputs[ours[0]]["hybridiff"]
    assert report["mode"] == ("exact" if exact else "predict")
    off = side.difference(outputs, stock, saved)
    assert off <= 1e-5 if exact else 0 < off < 1


def test_a_plan_rules_over_the_picture_widget(bench):
    side = bench("sd3")
    ours = side.sampler("HybridiffKSampler", picture="close to it, faster", **side.device_chain())
    side.save(ours)
    (report,) = side.comfy.run(side.graph.nodes)[ours[0]]["hybridiff"]
    assert report["mode"] == "exact"


def test_compare(bench):
    side = bench("sd3")
    add = side.graph.add
    other = add("TestLatent", seed=4, channels=16, size=16, batch=1)
    shown = [
        add("PreviewAny", source=[add("HybridiffCompare", a=side.latent, b=b)[0], 4])[0] for b in (side.latent, other)
    ]
    picture = add("SaveImage", images=[add("HybridiffCompare", a=side.latent, b=other)[0], 3], filename_prefix="where")
    outputs = side.comfy.run(side.graph.nodes)
    same, far = (outputs[node]["text"][0] for node in shown)
    assert same == "the same, value for value\nPSNR 100.00 dB, SSIM 1.00000, largest difference 0"
    # two of seeded noise: a span of 8, differing by a deviation of sqrt(2): about 15 dB
    verdict, figures = far.splitlines()
    assert verdict.startswith("two different pictures: 1") and verdict.endswith(" dB")
    assert 12 < float(figures.split()[1]) < 18 and float(figures.split()[4].rstrip(",")) < 0.5
    assert outputs[picture[0]]["images"]


def test_compare_refuses_what_does_not_fit(bench):
    side = bench("sd3")
    other = side.graph.add("TestLatent", seed=4, channels=16, size=8, batch=1)
    compared = side.graph.add("HybridiffCompare", a=side.latent, b=other)
    side.graph.add("PreviewAny", source=[compared[0], 4])
    with pytest.raises(Refused, match="a is 1 x 16 x 16 with 16 channels and b is 1 x 8 x 8"):
        side.comfy.run(side.graph.nodes)
