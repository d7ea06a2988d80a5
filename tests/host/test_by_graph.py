"""Models with code in them, made again in a worker by the nodes that made them."""

from __future__ import annotations

import json
import time

import pytest

from ..tiers import full
from .comfy_server import PACK, Comfy, make_models
from .conftest import Bench, FamilyBench
from .test_exact import LIMIT
from .test_fallbacks import assert_alone

PROOF = 2  # calls of this process alone, which show that code keeps nothing from one to the next
PACKS = PACK / "tests" / "host" / "graph_packs"


@pytest.fixture(scope="module")
def comfy(comfyui_root, tmp_path_factory):
    """A server of this file's own: with packs that others do without."""
    make_models(comfyui_root)
    packs = [path for path in PACKS.glob("*.py") if path.stem != "__init__"]
    server = Comfy(comfyui_root, tmp_path_factory.mktemp("by_graph") / "base", packs=packs)
    yield server
    server.stop()


@pytest.fixture
def unet(bench):
    """A small U-Net, and nodes behind it: unet("FreeU", b1=1.1, ...)."""

    def make(kind: str | None = None, size: int = 8, **inputs):
        side = bench("sd15", size=size)
        return behind(side, kind, **inputs) if kind else side

    return make


def behind(side, kind: str, **inputs):
    """Put a node behind the model."""
    side.model = side.graph.add(kind, model=side.model, **inputs)
    return side


def compare(side, kind: str, **inputs) -> tuple[float, dict]:
    """Like Bench.compare, with a node behind the model that is not the same one for both samplers."""
    model = side.model
    side.model = side.graph.add(kind, model=model, **inputs)
    stock = side.save(side.sampler("KSampler"))
    side.model = side.graph.add(kind, model=model, **{**inputs, "scale": inputs["scale"] + 1e-12})
    ours = side.sampler("HybridiffKSampler", **side.device_chain())
    saved = side.save(ours)
    outputs = side.comfy.run(side.graph.nodes)
    (report,) = outputs[ours[0]]["hybridiff"]
    return side.difference(outputs, stock, saved), report


@pytest.fixture
def unhurried(comfyui_root, tmp_path):
    """A server whose runs wait for no worker."""
    packs = [path for path in PACKS.glob("*.py") if path.stem != "__init__"]
    server = Comfy(comfyui_root, tmp_path / "base", packs=packs, HYBRIDIFF_WAIT="0")
    yield server
    server.stop()


def assert_shared(report: dict, lines: list[str] | None = None) -> None:
    assert report["lines"] == (lines or [])
    assert report["shared_calls"] >= report["calls"] - PROOF > 0


def ran(report: dict) -> list[str]:
    """The classes of the nodes that the worker ran for this run."""
    (loading,) = report["loadings"]
    return sorted(name.split(" ", 1)[1] for name in loading["ran"])


# -- ComfyUI's own nodes

FREE_U = {"b1": 1.1, "b2": 1.2, "s1": 0.9, "s2": 0.2}
DOWNSCALE = {
    "block_number": 3, "downscale_factor": 2.0, "start_percent": 0.0, "end_percent": 0.6, "downscale_after_skip": True,
    "downscale_method": "bicubic", "upscale_method": "bicubic",
}  # fmt: skip
HYPER_TILE = {"tile_size": 32, "max_depth": 0, "scale_depth": False}


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        ("FreeU", FREE_U),
        ("FreeU_V2", FREE_U),
        ("PatchModelAddDownscale", DOWNSCALE),
        ("HyperTile", {**HYPER_TILE, "swap_size": 1}),
    ],
)
def test_patches_of_a_unet_are_shared(unet, kind, inputs):
    difference, report = unet(kind, size=16, **inputs).compare()
    assert difference <= LIMIT
    assert_shared(report)
    assert kind in ran(report)


def test_a_batch_at_cfg_1_is_divided_by_its_images(bench):
    side = bench("sd3", batch=3)
    side.model = side.graph.add("TestOwnLoader", file="sd3_depth4.safetensors", how="own operations")
    side.settings |= {"cfg": 1.0, "steps": 6}
    difference, report = side.compare()
    assert difference <= LIMIT
    assert_shared(report)
    assert "rows" in {step["way"] for step in report["steps"] if step["helpers"]}


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [("HyperTile", {**HYPER_TILE, "swap_size": 2}), ("TomePatchModel", {"ratio": 0.3})],
)
def test_patches_that_draw_random_numbers_are_not(unet, kind, inputs):
    difference, report = unet(kind, size=16, **inputs).compare()
    assert difference == 0.0
    assert_alone(report, "draws random numbers inside the network")


def test_guidance_that_reads_what_the_network_left_is_not(unet):
    difference, report = unet("SelfAttentionGuidance", size=16, scale=0.5, blur_sigma=2.0).compare()
    assert difference == 0.0
    assert_alone(report, "SelfAttentionGuidance keeps something from step to step")


@pytest.mark.parametrize("kind", ["ModelMergeSimple", "ModelMergeAdd", "ModelMergeSubtract"])
def test_merged_models_are_shared(bench, kind):
    side = bench("sd3")
    lora = {"lora_name": "sd3_depth4.safetensors", "strength_model": 1.0}
    other = side.graph.add("LoraLoaderModelOnly", model=side.model, **lora)
    # what the LoRA adds: with twice the weights a rounding grows, so that KSampler's own latent moves by 5e-2 where the
    # prompts are computed one after the other
    if kind == "ModelMergeAdd":
        other = side.graph.add("ModelMergeSubtract", model1=other, model2=side.model, multiplier=1.0)
    more = {"ModelMergeSimple": {"ratio": 0.3}, "ModelMergeAdd": {}, "ModelMergeSubtract": {"multiplier": 0.2}}[kind]
    side.model = side.graph.add(kind, model1=side.model, model2=other, **more)
    difference, report = side.compare()
    assert difference <= LIMIT
    assert_shared(report)
    assert kind in ran(report)


def test_attention_guidance_is_shared(bench):
    difference, report = behind(bench("sd3"), "NAGuidance", nag_scale=5.0, nag_alpha=0.5, nag_tau=1.5).compare()
    assert difference <= LIMIT
    assert_shared(report)


@pytest.mark.parametrize("kind", ["SkipLayerGuidanceDiT", "SkipLayerGuidanceDiTSimple"])
def test_skip_layer_guidance_is_right(bench, kind):
    inputs = {"double_layers": "1", "single_layers": "1", "start_percent": 0.0, "end_percent": 1.0}
    if kind == "SkipLayerGuidanceDiT":
        inputs |= {"scale": 3.0, "rescaling_scale": 0.0}
    difference, _ = behind(bench("sd3"), kind, **inputs).compare()
    assert difference <= LIMIT


def test_a_changed_strength_runs_only_what_hangs_on_it(bench):
    for lora, ratio, expected in (
        (0.5, 0.3, None), (0.5, 0.3, []), (0.5, 0.4, ["ModelMergeSimple"]),
        (0.7, 0.4, ["LoraLoaderModelOnly", "ModelMergeSimple"]), (0.7, 0.4, []),
    ):  # fmt: skip
        side = bench("sd3")
        given = {"lora_name": "sd3_depth4.safetensors", "strength_model": lora}
        other = side.graph.add("LoraLoaderModelOnly", model=side.model, **given)
        side.model = side.graph.add("ModelMergeSimple", model1=side.model, model2=other, ratio=ratio)
        difference, report = side.compare()
        assert difference <= LIMIT
        assert_shared(report)
        assert expected is None or ran(report) == expected


# -- the ways of packs

SHARED_WAYS = [
    "object_patch", "by_branch", "ready_once", "function_wrapper", "network_wrapper", "injection", "callback",
    "around_sampling",
]  # fmt: skip
LEFT_OUT = {
    "closure_state": "closure_state keeps something from step to step",
    "attribute_state": "Block keeps something from step to step",
    "global_state": "global_state keeps something from step to step",
    "network_state": "keeps something from step to step",
    "by_batch": "by_batch gives something else where each prompt is computed by itself",
    "random_patch": "random_patch draws random numbers inside the network",
    "at_run": "a node's code adds to the model while it samples",
    "only_here": "failed there: OSError: no such luck",
    "other_there": "made another picture",
}


@pytest.mark.parametrize("way", SHARED_WAYS)
def test_what_packs_do_is_shared(unet, comfy, way):
    for strength in (0.9, 0.8):
        difference, report = unet("PackPatch", way=way, scale=strength).compare()
        assert difference <= LIMIT
        assert_shared(report)
        if way == "injection":  # of a node's clone that is gone when another one is loaded, the host takes out nothing
            comfy.post("/free", {"unload_models": True})
            time.sleep(1.0)  # the server does it between two prompts
    assert report["loadings"][0]["packs"] == {}


def test_a_network_with_code_in_it_is_divided_by_tokens(comfy):
    side = behind(FamilyBench(comfy, "wan21"), "PackPatch", way="between_blocks", scale=0.9)
    side.settings |= {"cfg": 1.0, "steps": 6}
    difference, report = side.compare()
    assert difference <= LIMIT
    assert report["lines"] == [] and {step["way"] for step in report["steps"][-2:]} == {"tokens"}


def test_what_is_put_into_the_network_for_a_run_is_taken_out_after_it(unet, comfy):
    side = unet("PackPatch", way="injection", scale=0.7)
    side.save(side.sampler("HybridiffKSampler", **side.device_chain()))
    comfy.run(side.graph.nodes)
    difference, report = unet("FreeU", b1=1.1, b2=1.2, s1=0.9, s2=0.2).compare()
    assert difference <= LIMIT
    assert_shared(report)


def test_a_class_that_is_exchanged_after_a_method_was(unet):
    """Where the host takes a method's patch off, it leaves a method behind, which would hide the class."""
    found = []
    for way in ("method_patch", "class_patch"):
        side = unet("PackPatch", way=way, scale=0.7)
        side.settings["seed"] = 5
        ours = side.sampler("HybridiffKSampler", **side.device_chain())
        saved = side.save(ours)
        outputs = side.comfy.run(side.graph.nodes)
        (report,) = outputs[ours[0]]["hybridiff"]
        assert_shared(report)
        found.append(side.latent_of(outputs, saved))
    assert (found[1] - found[0]).abs().max() <= LIMIT * found[0].std().clamp(1)


@pytest.mark.parametrize("way", LEFT_OUT)
def test_what_would_be_another_picture_is_left_out(unet, way):
    for _ in range(2):
        difference, report = compare(unet(), "PackPatch", way=way, scale=0.9)
        assert difference <= LIMIT
        assert LEFT_OUT[way] in " ".join(report["lines"])
        assert report["shared_calls"] == 0


def test_what_comfyuis_network_notes_for_itself_is_no_state(comfy):
    side = FamilyBench(comfy, "cosmos_predict2")
    difference, report = side.compare()
    assert difference <= LIMIT and report["shared_calls"] == report["calls"] - PROOF, report["lines"]


@pytest.mark.parametrize("way", ["late_state", "late_for_one"])
def test_what_is_kept_from_later_on_is_left_out(unet, way):
    for _ in range(2):
        side = unet()
        side.settings["steps"] = 8
        difference, report = compare(side, "PackPatch", way=way, scale=0.9)
        assert difference <= LIMIT
        assert "keeps something from step to step" in " ".join(report["lines"])


def test_what_is_never_the_same_is_told_apart_from_a_fault(unet):
    _, report = unet("PackPatch", way="other_each_time", scale=0.9).compare()
    assert_alone(report, "other_each_time gives something else each time")


# -- the graph itself


def runs(side, sampler: list, saved: str, stock: str) -> tuple[float, dict]:
    outputs = side.comfy.run(side.graph.nodes)
    (report,) = next(out["hybridiff"] for out in outputs.values() if "hybridiff" in out)
    return side.difference(outputs, stock, saved), report


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("PackNeverTheSame", "PackNeverTheSame (node 5) is among them, and it gives another result each time"),
        ("PackSaves", "PackSaves (node 5) is among them, and it saves or shows something"),
    ],
)
def test_nodes_that_are_not_run_again(unet, kind, words):
    difference, report = unet(kind, way="object_patch", scale=0.9).compare()
    assert difference == 0.0
    assert_alone(report, "a node changes the network from inside (attn1_output_patch); and a worker cannot run")
    assert_alone(report, words)


def test_nodes_of_other_packs_are_not_run_where_that_is_off(unet):
    side = unet("PackPatch", way="object_patch", scale=0.9)
    side.other_packs = "off"
    difference, report = side.compare()
    assert difference == 0.0
    assert_alone(report, "has other_packs off, and nodes of by_graph_kinds, hybridiff_tests are in it")
    side = unet("FreeU", size=16, **FREE_U)
    side.other_packs = "off"
    assert_alone(side.compare()[1], "hybridiff_tests are in it")  # the test model's loader


def test_what_is_put_on_the_model_behind_hybridiff_model(unet):
    side = unet("PackPatch", way="object_patch", scale=0.9)
    accelerated = side.graph.add("HybridiffModel", model=side.model, **side.device_chain())
    side.model = side.graph.add("PackPatch", model=side.model, way="by_branch", scale=0.8)
    stock = side.save(side.sampler("KSampler"))
    side.model = side.graph.add("PackPatch", model=accelerated, way="by_branch", scale=0.8)
    saved = side.save(side.sampler("KSampler"))
    outputs = side.comfy.run(side.graph.nodes)
    assert side.difference(outputs, stock, saved) == 0.0
    assert "the model was changed after its node ran (patches attn1_output_patch)" in side.comfy.tail(6000)


def test_nodes_before_and_behind_hybridiff_model_where_ours_is_last(unet):
    side = unet("PackPatch", way="object_patch", scale=0.9)
    between = side.graph.add("HybridiffModel", model=side.model, **side.device_chain())
    side.model = side.graph.add("PackPatch", model=between, way="by_branch", scale=0.8)
    ours = side.sampler("HybridiffKSampler", **side.device_chain())
    saved = side.save(ours)
    before = side.graph.nodes[between[0]]["inputs"]["model"]
    side.model = side.graph.add("PackPatch", model=before, way="by_branch", scale=0.8)
    stock = side.save(side.sampler("KSampler"))
    difference, report = runs(side, ours, saved, stock)
    assert difference <= LIMIT
    assert_shared(report)


def test_a_list_of_models(unet):
    side = unet("PackList")
    ours = side.sampler("HybridiffKSampler", **side.device_chain())
    side.save(ours)
    reports = side.comfy.run(side.graph.nodes)[ours[0]]["hybridiff"]
    assert [report["shared_calls"] for report in reports] == [0, 0]
    assert all("the nodes give 2 models" in " ".join(report["lines"]) for report in reports)


def test_a_node_that_comes_to_be_made_of_others(unet):
    difference, report = unet("PackExpands", scale=0.9).compare()
    assert difference <= LIMIT
    assert_shared(report)


@pytest.mark.parametrize("link", [True, False])
def test_our_sampler_in_a_node_that_comes_to_be_made_of_others(unet, link):
    side = unet("PackPatch", way="object_patch", scale=0.9)
    stock = side.save(side.sampler("KSampler"))
    ours = side.graph.add(
        "PackSamples" if link else "PackSamplesObjects", model=side.model, positive=side.positive,
        negative=side.negative, latent=side.latent, settings=json.dumps(side.settings), **side.device_chain(),
    )  # fmt: skip
    difference, report = runs(side, ours, side.save(ours), stock)
    assert difference <= LIMIT
    if link:
        assert_shared(report)
    else:  # it was handed the model itself
        assert_alone(report, "PackPass (node ")
        assert_alone(report, "was given something other than numbers and text")


def test_a_node_that_reads_the_workflow(unet):
    side = unet("PackFromWorkflow")
    stock = side.save(side.sampler("KSampler"))
    ours = side.sampler("HybridiffKSampler", **side.device_chain())
    saved = side.save(ours)
    queued = {"prompt": side.graph.nodes, "extra_data": {"extra_pnginfo": {"workflow": {"scale": 0.7}}}}
    outputs = side.comfy.wait(side.comfy.post("/prompt", queued)["prompt_id"])["outputs"]
    (report,) = outputs[ours[0]]["hybridiff"]
    assert side.difference(outputs, stock, saved) <= LIMIT
    assert_shared(report)


# -- what packs do in a worker


def test_a_pack_that_prints_starts_threads_and_opens_a_port(unet):
    difference, report = unet("PackThatIsNoisy").compare()
    assert difference <= LIMIT
    assert_shared(report)
    assert "by_graph_noisy" in report["loadings"][0]["packs"]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("PackThatAsks", "the pack by_graph_asks could not be loaded: EOFError"),
        ("PackThatExits", "the pack by_graph_exits could not be loaded: SystemExit: not without a screen"),
        ("PackThatRaises", "the pack by_graph_raises could not be loaded: ImportError: no module named luck"),
        ("PackThatLacks", "the pack by_graph_lacks has no node PackThatLacks there"),
    ],
)
def test_packs_that_fail_in_a_worker(unet, kind, words):
    for _ in range(2):
        difference, report = unet(kind).compare()
        assert difference <= LIMIT
        assert report["shared_calls"] == 0
        assert words in " ".join(report["lines"])
    _, report = unet("PackPatch", way="object_patch", scale=0.9).compare()  # others go on
    assert_shared(report)


@pytest.mark.parametrize("where", ["its node", "the network"])
def test_a_pack_that_crashes_a_worker(unet, where):
    """It is not started for that graph again, and the device goes on with others."""
    for _ in range(3):
        difference, report = unet("PackThatCrashes", where=where).compare()
        assert difference <= LIMIT
        words = "it was killed by signal 11: Fatal Python error: Segmentation fault in string_at (__init__.py:"
        assert words in report["lines"][0] and "(by_graph_crashes.py:" in report["lines"][0]
    assert report["shared_calls"] == 0 and len(report["lines"]) == 1
    _, report = unet("PackPatch", way="object_patch", scale=0.9).compare()
    assert_shared(report)


def test_a_node_that_exits_is_one_that_failed(unet):
    for _ in range(2):
        difference, report = unet("PackThatCrashes", where="exit").compare()
        assert difference <= LIMIT
        assert report["shared_calls"] == 0 and "SystemExit: no more" in report["lines"][0], report["lines"]
    _, report = unet("PackPatch", way="object_patch", scale=0.9).compare()
    assert_shared(report)


def test_want_of_memory_is_not_the_graphs_fault(unet, comfy):
    def sampled(reserved: int) -> dict:
        comfy.run({"1": {"class_type": "TestReserved", "inputs": {"bytes": reserved}}})
        side = behind(unet("FreeU", **FREE_U), "PackPatch", way="object_patch", scale=0.7)  # no other test has both
        difference, report = side.compare()
        assert difference <= LIMIT
        return report

    _, report = unet("FreeU", **FREE_U).compare()
    assert_shared(report)  # a worker is there
    without, again = sampled(1 << 50), sampled(0)
    assert without["shared_calls"] == 0 and "GB of RAM are free" in without["lines"][0]
    assert_shared(again)


def test_a_pack_that_was_changed_meanwhile(unet, comfy):
    file = comfy.base / "custom_nodes" / "by_graph_changed.py"
    file.write_text(file.read_text().replace("0.9", "0.5"))
    difference, report = unet("PackThatChanged").compare()
    assert difference <= LIMIT
    assert report["shared_calls"] == 0
    assert "the pack by_graph_changed was changed after ComfyUI was started" in " ".join(report["lines"])


def test_a_pack_whose_import_never_ends(unhurried):
    for _ in range(2):
        side = Bench(unhurried, "sd15", size=8)
        behind(side, "PackThatHangs")
        started = time.monotonic()
        difference, report = side.compare()
        assert difference == 0.0 and time.monotonic() - started < 30
        assert_alone(report, "was not ready before the run's end")


def test_a_run_that_waits_for_nobody(unhurried):
    """The worker joins on the way, and from the next run on it has a part from the first step on."""
    for steps in (60, 20, 20):
        side = Bench(unhurried, "sd15", size=16)
        side.settings["steps"] = steps
        behind(side, "PackPatch", way="object_patch", scale=0.9)
        difference, report = side.compare()
        assert difference <= LIMIT
        assert report["first_step_s"] < 5
    assert report["shared_calls"] or "left out" in " ".join(report["lines"])  # by the pace, on a busy machine


# -- compiled


@pytest.mark.parametrize("backend", ["eager", full("aot_eager")])
def test_a_compiled_network_is_shared(bench, backend):
    difference, report = behind(bench("sd3"), "PackCompiles", backend=backend).compare()
    assert difference <= LIMIT
    assert_shared(report)


@pytest.mark.full
def test_torch_compile_never_stops_a_run(bench):
    difference, _ = behind(bench("sd3"), "TorchCompileModel", backend="inductor").compare()
    assert difference <= LIMIT


def test_classes_that_are_exchanged_for_good_are_shared(unet):
    """The last: the model that the loader gave stays as the node left it, for every graph of this server."""
    test_what_packs_do_is_shared(unet, None, "swapped")
