"""The report and compare nodes, and what the page is told, through the HTTP API of a real ComfyUI."""

from __future__ import annotations

import pytest

from hybridiff_core.account import bands

from .comfy_server import Events, Refused

FIXED = {"warmup": "fixed", "start_step": 5, "parallel_steps": 4}
BANDS = [("warm-up", 0, 4), ("parallelism", 5, 8), ("fully-connecting", 9, 11)]


def told(side, ours):
    """A graph's report as text and picture, the picture's size as the server says it."""
    add = side.graph.add
    report = add("HybridiffReport", report=[ours[0], 1])
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
    assert [rows[name][1:4] for name in ("warm-up", "middle", "finish")] == [
        ["5", "0", "4"], ["4", "5", "8"], ["3", "9", "11"],
    ]  # fmt: skip
    assert "model calls: 12, shared: 10" in said and "speed-up against one device, estimated: " in said
    (file,) = outputs[picture]["images"]
    header = (side.comfy.base / "output" / file["subfolder"] / file["filename"]).read_bytes()[:24]
    assert [int.from_bytes(header[at : at + 4]) for at in (16, 20)] == [1280, 624]
    (view,) = outputs[ours[0]]["hybridiff_view"]
    assert [step["step"] for step in view["steps"]] == list(range(12)) and view["total"] == 12
    assert bands(view["steps"]) == BANDS
    busy = [step["times"][1]["compute"] > 0 for step in view["steps"]]
    assert busy == [step["work"] == "exact" for step in view["steps"]]


def test_the_report_says_why_nothing_was_shared(bench):
    side = bench("sd3")
    side.devices = ("cuda:7",)
    text, _ = told(side, side.sampler("HybridiffKSampler", **side.device_chain()))
    (said,) = side.comfy.run(side.graph.nodes)[text]["text"]
    assert "- ran on one device: the device cuda:7 is not on this machine" in said
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
    assert seen[-1]["speed_up"] > 0


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
    assert same == "PSNR 100.00 dB, SSIM 1.00000, largest difference 0"
    # two of seeded noise: a span of 8, differing by a deviation of sqrt(2): about 15 dB
    assert 12 < float(far.split()[1]) < 18 and float(far.split()[4].rstrip(",")) < 0.5
    assert outputs[picture[0]]["images"]


def test_compare_refuses_what_does_not_fit(bench):
    side = bench("sd3")
    other = side.graph.add("TestLatent", seed=4, channels=16, size=8, batch=1)
    compared = side.graph.add("HybridiffCompare", a=side.latent, b=other)
    side.graph.add("PreviewAny", source=[compared[0], 4])
    with pytest.raises(Refused, match="a is 1 x 16 x 16 with 16 channels and b is 1 x 8 x 8"):
        side.comfy.run(side.graph.nodes)
