"""Golden schemas. Widgets are stored by position in workflow files: inputs are only ever appended."""

from __future__ import annotations

import pytest

from hybridiff_core.rules import AUTO_TOLERANCE, PUBLISHED

GOLDEN = {
    "HybridiffKSampler": [
        ("model", "MODEL", None),
        ("seed", "INT", 0),
        ("steps", "INT", 20),
        ("cfg", "FLOAT", 8.0),
        ("sampler_name", "COMBO", None),
        ("scheduler", "COMBO", None),
        ("positive", "CONDITIONING", None),
        ("negative", "CONDITIONING", None),
        ("latent_image", "LATENT", None),
        ("denoise", "FLOAT", 1.0),
        ("plan", "HYBRIDIFF_PLAN", None),
        ("devices", "HYBRIDIFF_DEVICES", None),
        ("picture", "COMBO", "same as KSampler"),
    ],
    "HybridiffKSamplerAdvanced": [
        ("model", "MODEL", None),
        ("add_noise", "COMBO", None),
        ("noise_seed", "INT", 0),
        ("steps", "INT", 20),
        ("cfg", "FLOAT", 8.0),
        ("sampler_name", "COMBO", None),
        ("scheduler", "COMBO", None),
        ("positive", "CONDITIONING", None),
        ("negative", "CONDITIONING", None),
        ("latent_image", "LATENT", None),
        ("start_at_step", "INT", 0),
        ("end_at_step", "INT", 10000),
        ("return_with_leftover_noise", "COMBO", None),
        ("plan", "HYBRIDIFF_PLAN", None),
        ("devices", "HYBRIDIFF_DEVICES", None),
        ("picture", "COMBO", "same as KSampler"),
    ],
    "HybridiffModel": [
        ("model", "MODEL", None),
        ("plan", "HYBRIDIFF_PLAN", None),
        ("devices", "HYBRIDIFF_DEVICES", None),
        ("picture", "COMBO", "same as KSampler"),
    ],
    "HybridiffPlan": [
        ("mode", "COMBO", "auto"),
        ("warmup", "COMBO", "slope"),
        ("start_step", "INT", 10),
        ("slope_window", "INT", 12),
        ("slope_threshold", "FLOAT", 0.0004),
        ("warmup_cap", "INT", 15),
        ("parallel_steps", "INT", 20),
        ("tolerance", "FLOAT", 0.0),
        ("predict_stride", "INT", 0),
        ("preset", "COMBO", "auto"),
    ],
    "HybridiffDevices": [
        ("device", "COMBO", "auto"),
        ("where", "COMBO", "this machine"),
        ("devices", "HYBRIDIFF_DEVICES", None),
        ("other_packs", "COMBO", "run their nodes in the worker too"),
        ("send_files", "BOOLEAN", False),
    ],
    "HybridiffReport": [("report", "HYBRIDIFF_REPORT", None)],
    "HybridiffCompare": [("a", "IMAGE,LATENT", None), ("b", "IMAGE,LATENT", None)],
    "HybridiffDemoWords": [("text", "STRING", "red heart")],
}
OUTPUTS = {
    "HybridiffKSampler": ["LATENT", "HYBRIDIFF_REPORT"],
    "HybridiffKSamplerAdvanced": ["LATENT", "HYBRIDIFF_REPORT"],
    "HybridiffModel": ["MODEL"],
    "HybridiffPlan": ["HYBRIDIFF_PLAN"],
    "HybridiffDevices": ["HYBRIDIFF_DEVICES"],
    "HybridiffReport": ["IMAGE", "STRING"],
    "HybridiffCompare": ["FLOAT", "FLOAT", "FLOAT", "IMAGE", "STRING"],
    "HybridiffDemoWords": ["CONDITIONING"],
}
WISHES = {"two gpus", "second gpu", "faster", "speed up", "accelerate", "distributed"}  # what people search for
ALIASES = {
    "HybridiffKSampler": {"ksampler", "multigpu", "parallel", "cfg"} | WISHES,
    "HybridiffKSamplerAdvanced": {"ksampler", "multigpu", "parallel", "cfg"} | WISHES,
    "HybridiffModel": {"multigpu", "parallel", "cfg"} | WISHES,
    "HybridiffPlan": {"multigpu", "parallel", "cfg"},
    "HybridiffDevices": {"multigpu", "parallel"},
    "HybridiffReport": {"multigpu", "parallel"},
    "HybridiffCompare": {"psnr", "ssim", "difference"},
}


@pytest.fixture(scope="module")
def infos(comfy):
    return comfy.get("/object_info")


def inputs_of(info: dict) -> list[tuple]:
    found = []
    for group in ("required", "optional"):
        for name in info["input_order"].get(group, []):
            kind, *options = info["input"][group][name]
            options = options[0] if options else {}
            found.append((name, "COMBO" if isinstance(kind, list) else kind, options.get("default")))
    return found


def test_the_pack_has_these_nodes_and_no_others(infos):
    assert {name for name in infos if name.startswith("Hybridiff")} == set(GOLDEN)


@pytest.mark.parametrize("node", GOLDEN)
def test_inputs_and_outputs(infos, node):
    assert inputs_of(infos[node]) == GOLDEN[node]
    assert infos[node]["output"] == OUTPUTS[node]


@pytest.mark.parametrize("node", GOLDEN)
def test_every_input_has_a_tooltip(infos, node):
    for group in ("required", "optional"):
        for name, (_, options) in infos[node]["input"].get(group, {}).items():
            assert len(options["tooltip"]) > 20, name


@pytest.mark.parametrize("node", ALIASES)
def test_the_search_finds_it(infos, node):
    assert set(infos[node]["search_aliases"]) >= ALIASES[node]


def test_the_page_is_given_the_presets(infos):
    _, options = infos["HybridiffPlan"]["input"]["required"]["preset"]
    assert options["hybridiff_presets"] == PUBLISHED and options["hybridiff_tolerance"] == AUTO_TOLERANCE


def test_our_nodes_stand_beside_the_hosts_samplers(infos):
    ours = {info["category"] for name, info in infos.items() if name.startswith("Hybridiff")}
    assert ours == {f"{infos['KSampler']['category']}/hybridiff"}


@pytest.mark.parametrize("node", ["HybridiffReport", "HybridiffCompare"])
def test_what_shows_a_result_runs_without_anything_behind_it(infos, node):
    assert infos[node]["output_node"]


def test_the_plan_shows_three_fields_at_first(infos):
    fields = infos["HybridiffPlan"]["input"]["required"]
    assert [name for name, (_, options) in fields.items() if not options.get("advanced")] == [
        "mode", "tolerance", "preset",
    ]  # fmt: skip


@pytest.mark.parametrize("stock", ["KSampler", "KSamplerAdvanced"])
def test_the_samplers_begin_with_the_stock_ones_inputs(infos, stock):
    expected, ours = inputs_of(infos[stock]), inputs_of(infos[f"Hybridiff{stock}"])
    assert ours[: len(expected)] == expected
    for name, kind, _ in expected:
        theirs, mine = (infos[node]["input"]["required"][name] for node in (stock, f"Hybridiff{stock}"))
        if kind == "COMBO":
            choices = [spec[0] if isinstance(spec[0], list) else spec[1]["options"] for spec in (theirs, mine)]
            assert choices[0] == choices[1]
        else:
            keys = ("min", "max", "step", "round", "control_after_generate")
            there, here = (spec[1] if len(spec) > 1 else {} for spec in (theirs, mine))
            assert {key: there.get(key) for key in keys} == {key: here.get(key) for key in keys}
