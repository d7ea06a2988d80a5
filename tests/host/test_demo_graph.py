"""A whole graph on the trained models, from words to a saved picture, beside KSampler's."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from .comfy_server import Graph, Refused
from .conftest import plan_values

STEPS = 20


def picture_of(comfy, outputs, node):
    (file,) = outputs[node]["images"]
    picture = Image.open(comfy.base / "output" / file["subfolder"] / file["filename"])
    return np.asarray(picture.convert("RGB"), dtype=np.float64) / 255


def words_to_pictures(comfy, text, plan, seed):
    """KSampler's picture, ours and our report."""
    graph = Graph()
    model = graph.add("UNETLoader", unet_name="emoji_dit.safetensors", weight_dtype="default")
    vae = graph.add("VAELoader", vae_name="emoji_dit_vae.safetensors")
    given = {
        "model": model,
        "positive": graph.add("HybridiffDemoWords", text=text),
        "negative": graph.add("HybridiffDemoWords", text=""),
        "latent_image": graph.add("EmptySD3LatentImage", width=128, height=128, batch_size=1),
        "seed": seed, "steps": STEPS, "cfg": 3.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0,
    }  # fmt: skip
    devices = graph.add("HybridiffDevices", device="same")
    ours = graph.add(
        "HybridiffKSampler", **given, devices=devices, plan=graph.add("HybridiffPlan", **plan_values(**plan))
    )
    saved = []
    for latent in (graph.add("KSampler", **given), ours):
        picture = graph.add("VAEDecode", samples=latent, vae=vae)
        saved.append(graph.add("SaveImage", images=picture, filename_prefix="demo")[0])
    outputs = comfy.run(graph.nodes)
    (report,) = outputs[ours[0]]["hybridiff"]
    return *(picture_of(comfy, outputs, node) for node in saved), report


def test_words_become_a_picture_that_is_ksamplers(comfy):
    stock, ours, report = words_to_pictures(comfy, "red heart", {"mode": "exact"}, seed=1)
    assert report["shared_calls"] == report["calls"] == STEPS
    assert np.abs(stock - ours).max() < 1.5 / 255
    middle, corner = ours[40:80, 44:84].mean((0, 1)), ours[:10, :10].mean((0, 1))
    assert middle[0] > 0.5 > middle[1] and corner.min() > 0.8, "not a red thing on white"


def test_auto_is_faster_than_exact_and_near(comfy):
    stock, ours, report = words_to_pictures(comfy, "birthday cake", {}, seed=2)
    predicted = [step["work"] for step in report["steps"]].count("predicted")
    assert predicted >= 3
    assert 0 < ((stock - ours) ** 2).mean() < 1e-4  # 40 dB


@pytest.mark.parametrize("text", ["赤いハート", "!!!"])
def test_words_that_the_models_do_not_have_are_refused(comfy, text):
    with pytest.raises(Refused, match="no English words"):
        words_to_pictures(comfy, text, {"mode": "exact"}, seed=3)
