"""What nodes lay on a model, beside stock."""

from __future__ import annotations

import pytest

from ...tiers import full

# node, family, inputs beside the model; the rest are the server's defaults
ON_A_MODEL = [
    ("ModelSamplingSD3", "sd3", {"shift": 5.0}),
    ("ModelSamplingAuraFlow", "sd3", {}),
    ("ModelSamplingDiscrete", "sd15", {"sampling": "v_prediction"}),
    ("ModelSamplingContinuousEDM", "sd15", {"sampling": "eps", "sigma_max": 14.6, "sigma_min": 0.03}),
    # of a class in the file of the node, which ComfyUI imports by its path
    ("ModelSamplingDiscrete", "sd15", {"sampling": "lcm"}),
    # with a latent_format of its own
    ("ModelSamplingContinuousEDM", "sd15", {"sampling": "edm_playground_v2.5", "sigma_max": 14.6, "sigma_min": 0.03}),
    ("ModelComputeDtype", "sd3", {"dtype": "fp32"}),
    ("RescaleCFG", "sd3", {}),
    ("RescaleCFG", "sd15", {}),
    ("RenormCFG", "sd3", {}),
    ("CFGZeroStar", "sd3", {}),
    ("CFGNorm", "sd3", {}),
    ("APG", "sd3", {}),
    ("TCFG", "sd3", {}),
    ("Mahiro", "sd3", {}),
    ("Epsilon Scaling", "sd3", {}),
    ("TemporalScoreRescaling", "sd3", {}),
    ("FreeU", "sd15", {}),
    ("FreeU_V2", "sd15", {}),
    ("PerturbedAttentionGuidance", "sd15", {}),
    ("PerturbedAttentionGuidance", "sd3", {}),
    ("SelfAttentionGuidance", "sd15", {}),
    ("SkipLayerGuidanceSD3", "sd3", {"layers": "1", "start_percent": 0.0, "end_percent": 1.0}),
    ("SkipLayerGuidanceDiT", "sd3", {"double_layers": "1", "start_percent": 0.0, "end_percent": 1.0}),
    ("SkipLayerGuidanceDiTSimple", "sd3", {"double_layers": "1", "start_percent": 0.0, "end_percent": 1.0}),
    ("NAGuidance", "sd3", {}),
    ("TomePatchModel", "sd15", {}),
    ("HyperTile", "sd15", {}),
    ("HypernetworkLoader", None, {}),
    ("PatchModelAddDownscale", "sd15", {}),
    ("DifferentialDiffusion", "sd3", {}),
    ("EasyCache", "sd3", {}),
    ("LazyCache", "sd3", {}),
    ("OptimalStepsScheduler", None, {}),
    ("ScaleROPE", None, {}),
    ("TorchCompileModel", None, {}),
    ("TestAttentionPatch", "sd3", {}),
    ("TestHooks", "sd3", {}),
]
LARGER = ("FreeU_V2", "SelfAttentionGuidance")
WHY_NOT = {
    "HypernetworkLoader": "its files are pickles, of which the tests make none; its code is an attention patch",
    "OptimalStepsScheduler": "gives sigmas and changes no model",
    "ScaleROPE": "for Lumina and Wan models: an option that is sent like any other",
    "TorchCompileModel": "needs a compiler as well as ComfyUI; it wraps the network, so the run stays on one device",
}


# on a U-Net; and of others what test_graphs.py and test_fallbacks.py show
SELDOM = ("ModelSamplingSD3", "EasyCache", "TestAttentionPatch", "TestHooks", "SkipLayerGuidanceSD3")
SELDOM += ("SkipLayerGuidanceDiTSimple", "ModelSamplingAuraFlow", "CFGNorm", "TCFG")
UNETS = ("ModelSamplingContinuousEDM", "FreeU_V2", "PerturbedAttentionGuidance", "PatchModelAddDownscale")


def tier(row):
    node, family, _ = row
    return row if (family == "sd3" and node not in SELDOM) or (family == "sd15" and node in UNETS) else full(*row)


@pytest.mark.parametrize(
    ("node", "family", "given"),
    # a family after the other: the worker need not load one for each row
    [tier(row) for row in sorted(ON_A_MODEL, key=lambda row: row[1] or "")],
    ids=lambda value: str(value)[:30],
)
def test_a_node_on_the_model(bench, row, put, infos, node, family, given):
    kind = f" {given['sampling']}" if "sampling" in given else ""
    row.of("Weight changes", f"{node}{kind}{f' on {family}' if family else ''}")
    if node in WHY_NOT or node not in infos:
        row.left_out(WHY_NOT.get(node, "this ComfyUI has no such node"))
        return
    side = bench(family, size=16 if family == "sd3" or node in LARGER else 8)
    side.settings["steps"] = 3
    side.model = put(side, node, model=side.model, **given)
    row.compared(*side.compare())


def lora(side, strength):
    return side.graph.add(
        "LoraLoaderModelOnly", model=side.model, lora_name="sd3_depth4.safetensors", strength_model=strength
    )


@pytest.mark.parametrize("strengths", [(0.7, -0.3), full((0.7,)), full((1.0, 1.0, 0.5))], ids=str)
def test_loras(bench, row, strengths):
    row.of("Weight changes", f"{len(strengths)} LoRA, strengths {', '.join(map(str, strengths))}")
    side = bench("sd3")
    side.settings["steps"] = 3
    for strength in strengths:
        side.model = lora(side, strength)
    row.compared(*side.compare())


@pytest.mark.full  # test_conditioning.py has hooks of every kind
@pytest.mark.parametrize("keyframes", [False, True])
def test_a_lora_by_hooks(bench, row, put, keyframes):
    row.of("Weight changes", f"LoRA by hooks{', with keyframes' if keyframes else ''}")
    side = bench("sd3")
    side.settings["steps"] = 4
    hooks = put(side, "CreateHookLoraModelOnly", lora_name="sd3_depth4.safetensors", strength_model=0.8)
    if keyframes:
        frames = put(side, "CreateHookKeyframe", strength_mult=0.5, start_percent=0.5)
        hooks = put(side, "SetHookKeyframes", hooks=hooks, hook_kf=frames)
    side.positive = put(side, "ConditioningSetProperties", cond_NEW=side.positive, hooks=hooks)
    row.compared(*side.compare())


@pytest.mark.parametrize("node", ["ModelMergeSimple", full("ModelMergeAdd"), full("ModelMergeSubtract")])
def test_merges(bench, row, put, node):
    row.of("Weight changes", node)
    side = bench("sd3")
    side.settings["steps"] = 3
    other = lora(side, 0.5)
    if node == "ModelMergeAdd":  # a difference, as people add it; weights twice as large make too much of rounding
        other = put(side, "ModelMergeSubtract", model1=other, model2=side.model)
    side.model = put(side, node, model1=side.model, model2=other)
    row.compared(*side.compare())
