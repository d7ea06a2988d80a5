"""Models from every loader that ComfyUI has, and from loaders of other packs, beside stock."""

from __future__ import annotations

import pytest

from ...tiers import full
from ..comfy_server import MODELS, Refused, make_loaders
from ..conftest import FamilyBench
from ..test_exact import LIMIT
from .conftest import compared, without

LORA = "sd3_depth4.safetensors"


@pytest.fixture
def loaders(comfyui_root):
    make_loaders(comfyui_root)


def encoded(side, clip, text):
    return side.graph.add("CLIPTextEncode", clip=clip, text=text)


@pytest.mark.full
def test_a_checkpoint_with_every_part(bench, row, loaders):
    row.of("Loaders", "CheckpointLoaderSimple, its own text encoder")
    side = bench("sd15", size=16)
    side.settings["steps"] = 3
    side.model = side.graph.add("CheckpointLoaderSimple", ckpt_name="loaders_sd15.safetensors")
    clip = [side.model[0], 1]
    side.positive, side.negative = encoded(side, clip, "a red heart"), encoded(side, clip, "blurry")
    difference, report = compared(side)
    row.compared(difference, report)
    assert report["shared_calls"] == 3


@pytest.mark.full
def test_an_unclip_checkpoint(comfy, row, loaders):
    row.of("Loaders", "unCLIPCheckpointLoader")
    side = FamilyBench(comfy, "sd21_unclip")
    side.settings["steps"] = 3
    side.model = side.graph.add("unCLIPCheckpointLoader", ckpt_name="loaders_unclip.safetensors")
    row.compared(*(found := compared(side)))
    assert found[1]["shared_calls"] == 3


@pytest.mark.full
def test_a_diffusers_folder(bench, row, loaders):
    row.of("Loaders", "DiffusersLoader")
    side = bench("sd15", size=16)
    side.settings["steps"] = 3
    side.model = side.graph.add("DiffusersLoader", model_path="loaders_sdxs")
    row.compared(*(found := compared(side)))
    assert found[1]["shared_calls"] == 3


@pytest.mark.parametrize(
    ("file", "dtype"),
    [
        ("sd3_depth4", "fp8_e4m3fn"),
        *(full("sd3_depth4", dtype) for dtype in ("default", "fp8_e4m3fn_fast", "fp8_e5m2")),
        full("loaders_sd3_scaled", "default"),
    ],
)
def test_a_diffusion_model(bench, row, request, file, dtype):
    if file.startswith("loaders_"):
        request.getfixturevalue("loaders")
    what = "a file in scaled fp8" if "scaled" in file else dtype
    row.of("Loaders", f"UNETLoader, {what}")
    side = bench("sd3")
    side.settings["steps"] = 3
    plain = without(side) if what != "default" else None
    side.model = side.graph.add("UNETLoader", unet_name=f"{file}.safetensors", weight_dtype=dtype)
    try:
        difference, report = compared(side, plain)
    except Refused as refused:
        row.left_out(f"ComfyUI refuses it on the CPU: {str(refused)[-100:]}")
        return
    row.compared(difference, report)
    assert report["shared_calls"] == 3


@pytest.mark.parametrize(
    ("how", "lora"),
    [("plain", False), ("changed weights", True), full("plain", True), full("changed weights", False)],
)
def test_a_loader_that_does_not_say_how(bench, row, how, lora):
    """The weights cross, once; and as they were loaded, though the host patches them in place for a LoRA."""
    what = {"plain": "plain weights", "changed weights": "weights that it changed in place"}[how]
    row.of("Loaders", f"a loader that records nothing, {what}{', and LoRA' if lora else ''}")
    worst, sent = 0.0, []
    for strength in (0.8, -0.4, 0.0) if lora else (0.0, 0.0):
        side = bench("sd3")
        side.settings["steps"] = 3
        plain = without(side) if strength or how != "plain" else None
        side.model = side.graph.add("TestOwnLoader", file="sd3_depth4.safetensors", how=how)
        if strength:
            side.model = side.graph.add(
                "LoraLoaderModelOnly", model=side.model, lora_name=LORA, strength_model=strength
            )
        difference, report = compared(side, plain)
        worst = max(worst, difference)
        assert report["shared_calls"] == 3, report["lines"]
        sent.append(report["loadings"][0]["sent_bytes"])
    row.compared(worst, report)
    # The worker may know them from an earlier test. Where the host takes a LoRA off again it makes the parameters
    # anew, so those that had one may cross twice.
    whole = (MODELS / "diffusion_models" / "sd3_depth4.safetensors").stat().st_size
    assert sent[0] < 1.1 * whole and max(sent[1:]) < (whole / 4 if lora else 100_000), (sent, whole)


RECORDED = {
    "recorded": ("plain options", True),
    "recorded, fp16": ("another type of weights", True),
    "recorded, changed weights": ("weights that it changed in place", False),
    "recorded, more than a file": ("more than a file", False),
}


@pytest.mark.parametrize("how", RECORDED)
def test_a_loader_of_a_pack_that_records_itself(bench, row, how):
    """As KJNodes' does: the file is read where it holds the model's weights, else these are sent."""
    what, by_file = RECORDED[how]
    row.of("Loaders", f"a loader of a pack that records itself, {what}")
    side = bench("sd3")
    side.settings["steps"] = 3
    plain = without(side) if not by_file else None
    side.model = side.graph.add("TestOwnLoader", file="sd3_depth4.safetensors", how=how)
    row.compared(*(found := compared(side, plain)))
    (loading,) = found[1]["loadings"]
    assert found[1]["shared_calls"] == 3 and loading["read_anew"]
    assert (loading["sent_bytes"] < 100_000) == by_file, loading


@pytest.mark.parametrize("strength", [0.0, full(0.7)])
@pytest.mark.parametrize("how", ["plain", "recorded"])
def test_scaled_fp8_from_another_loader(bench, row, loaders, how, strength):
    says = "records itself" if how == "recorded" else "records nothing"
    row.of("Loaders", f"a loader that {says}, scaled fp8{', and LoRA' if strength else ''}")
    sent = []
    for _ in range(3):
        side = bench("sd3")
        side.settings["steps"] = 3
        plain = without(side)
        side.model = side.graph.add("TestOwnLoader", file="loaders_sd3_scaled.safetensors", how=how)
        if strength:
            given = {"lora_name": LORA, "strength_model": strength}
            side.model = side.graph.add("LoraLoaderModelOnly", model=side.model, **given)
        difference, report = compared(side, plain)
        assert report["shared_calls"] == 3, report["lines"]
        assert difference <= LIMIT
        sent.append(report["loadings"][0]["sent_bytes"])
    row.compared(difference, report)
    whole = (MODELS / "diffusion_models" / "loaders_sd3_scaled.safetensors").stat().st_size
    if how == "recorded":
        assert max(sent) < whole / 4, sent  # a LoRA's tensors at most
    else:
        assert (strength or whole / 2 < sent[0]) and sum(sent) < 1.2 * whole and sent[2] == 0, (sent, whole)


BY_GRAPH = {
    "packed": "GGUF style: tensors of its own kind",
    "packed, patcher of its own": "GGUF style: a model patcher of its own",
    "own operations": "a loader with operations of its own",
    "replaced method": "a loader that replaces a method of the network",
}


@pytest.mark.parametrize("how", BY_GRAPH)
def test_a_loader_with_code_of_its_own(bench, row, how):
    """The worker runs the loader's node too; the graph's first two calls show that its code keeps nothing."""
    row.of("Loaders", BY_GRAPH[how])
    side = bench("sd3")
    side.settings["steps"] = 3
    plain = without(side) if how != "own operations" else None
    side.model = side.graph.add("TestOwnLoader", file="sd3_depth4.safetensors", how=how)
    difference, report = compared(side, plain)
    row.compared(difference, report)
    assert difference <= LIMIT
    assert report["lines"] == [] and report["shared_calls"] > 0
