"""What other packs do to sampling (tests/host/pack/others.py), before and after ours, beside stock."""

from __future__ import annotations

import pytest

from ...tiers import full, full_but
from ..comfy_server import MODELS
from ..conftest import FamilyBench
from .conftest import assert_by_tokens, both, compared, each

INSIDE = "a node runs code of its own inside the network"
TURNS = "a node computes the image or the prompts part by part, so every step is exact"
FALL = "the sigmas do not fall from step to step, so every step is exact"
RESAMPLED = "a node changed the sampler or the sigmas after Hybridiff, so every step is exact"
NOT_ASKED = "a node computes the prompts in code of its own, so there is nothing to share"
AFTER = "a node after Hybridiff puts its code around the prompts' computation"
REPLACED = "replaced"
# what it is; in exact mode the line why calls are not shared, or None; in auto the line why no step is predicted
WAYS = {
    "calc_cond_batch": ("wrapper on CALC_COND_BATCH", None, None),
    "apply_model": ("wrapper on APPLY_MODEL", INSIDE, None),
    "predict_noise": ("wrapper on PREDICT_NOISE, another sigma", None, None),
    "outer_sample": ("wrapper on OUTER_SAMPLE", None, None),
    "sampler_sample": ("wrapper on SAMPLER_SAMPLE", None, None),
    "other_sigmas": ("wrapper that changes the sigmas", None, RESAMPLED),
    "another_sampler": ("wrapper that changes the sampler", None, None),
    "two_passes": ("wrapper that samples twice", None, RESAMPLED),
    "late_calc_cond_batch": ("wrapper on CALC_COND_BATCH put in during the run", AFTER, None),
    "late_apply_model": ("wrapper on APPLY_MODEL put in during the run", INSIDE, None),
    "replaced_apply_model": ("the model's apply_model replaced", REPLACED, None),
    "replaced_forward": ("the network's forward replaced", REPLACED, None),
    "replaced_class_apply_model": ("apply_model replaced for all models", REPLACED, None),
    "forward_hook": ("forward hook on the network", REPLACED, None),
    "replaced_by_a_wrapper": ("calc_cond_batch replaced by a function around it", None, None),
    "replaced_by_its_own": ("calc_cond_batch replaced by another", NOT_ASKED, NOT_ASKED),
    "replaced_inside": ("_calc_cond_batch replaced by another", REPLACED, None),
    "pre_cfg": ("sampler_pre_cfg_function", None, None),
    "cfg": ("sampler_cfg_function", None, None),
    "post_cfg": ("sampler_post_cfg_function", None, None),
    "function_wrapper": ("model_function_wrapper", "a node puts code of its own around the whole network", None),
    "calc_function": ("sampler_calc_cond_batch_function around the host's", None, None),
    "calc_function_of_its_own": ("sampler_calc_cond_batch_function of its own", NOT_ASKED, NOT_ASKED),
    "one_by_one": ("sampler_calc_cond_batch_function, a branch at a time", None, TURNS),
    "tiles": ("tiles of the latent, in CALC_COND_BATCH", None, TURNS),
    "tiles_of_a_question": ("tiles of the latent, in PREDICT_NOISE", None, TURNS),
    "tiles_of_the_sampler": ("tiles of the latent, around the guider", None, TURNS),
    "regions": ("regions with conds of their own", None, TURNS),
    "rolled": ("the latent rolled from step to step", None, None),
    "nearby": ("guidance by a second call on a blurred latent", None, TURNS),
    "conds_anew": ("conds changed inside a step", None, None),
    "conds_in_place": ("conds changed in place inside a step", None, None),
    "other_sigma": ("sigma changed inside a step", None, None),
    "nested": ("a second sampling inside a step", None, None),
    "object_patch": ("a part of the network replaced by an object patch", REPLACED, None),
    "looking_ahead": ("the guider asked for a later sigma inside a step", None, TURNS),
}
BY_GRAPH = ("apply_model", "function_wrapper", "object_patch")  # where they come first, a worker runs their nodes too
LATER = (
    "outer_sample",
    "two_passes",
    "sampler_sample",
    "other_sigmas",
    "another_sampler",
    "tiles_of_the_sampler",
    "rolled",
)
# in auto every change tests one for each line that can be said, and some of which steps are predicted
AUTO = (
    "other_sigmas",
    "two_passes",
    "calc_function_of_its_own",
    "tiles",
    "nearby",
    "rolled",
    "pre_cfg",
    "function_wrapper",
)


def lay(side, way):
    """Puts the pack on a model; in `nested` with a second model, on which is what is on the first."""

    def on(model):
        given = {}
        if way == "nested":
            file = side.graph.nodes[side.model[0]]["inputs"]["unet_name"]
            given["other"] = side.graph.add("TestModelAt", path=str(MODELS / "diffusion_models" / file))
            if model is not side.model:
                given["other"] = side.graph.add("HybridiffModel", model=given["other"], **side.device_chain())
        return side.graph.add("TestOtherPack", model=model, way=way, **given)

    return on


def sampler(side):
    def sample(model):
        side.model, before = model, side.model
        latent = side.sampler("KSampler")
        side.model = before
        return latent

    return sample


def assert_it_matters(side, pair):
    """Without the pack it is another picture, so a part of it that is left out would show."""
    plain = side.save(sampler(side)(side.model))
    difference = (side.latent_of(side.comfy.run(side.graph.nodes), plain) - pair.stock).abs().max().item()
    assert difference > 1e-3


@pytest.mark.parametrize(
    ("way", "first"),
    [*((way, way not in LATER) for way in WAYS), *(full(way, way in LATER) for way in WAYS)],
    ids=lambda value: {True: "before", False: "after"}.get(value, value),
)
def test_a_pack_in_exact_mode(bench, row, way, first):
    title, words, _ = WAYS[way]
    row.of("Other packs", f"{title}, {'before' if first else 'after'} Hybridiff")
    side = bench("sd3")
    side.settings["steps"] = 6
    pair = both(side, sampler(side), lay(side, way), first)
    row.compared(pair.difference, pair.report, "; ".join(pair.report["lines"]))
    assert_it_matters(side, pair)
    if first and way in BY_GRAPH:
        assert pair.report["lines"] == [] and pair.report["shared_calls"] > 0
    elif words is None:
        assert pair.report["lines"] in ([], ["the worker on cpu (process 2) is busy with another sampling"])
        if way == "one_by_one":
            assert_by_tokens(pair.report)
        else:
            assert pair.report["shared_calls"] == pair.report["calls"] > 0
    else:
        (line,) = pair.report["lines"]
        assert words in line and pair.report["shared_calls"] < max(pair.report["calls"], 1)


@pytest.mark.parametrize("cfg", full_but([1.0, 4.0], 1.0))
def test_a_network_changed_for_a_call_of_its_own(bench, row, cfg):
    row.of("Other packs", f"guidance by a second call with a block exchanged, CFG {cfg:g}")
    side = bench("sd3")
    side.settings |= {"steps": 6, "cfg": cfg}
    pair = both(side, sampler(side), lay(side, "swapped"))
    row.compared(pair.difference, pair.report)
    assert_it_matters(side, pair)
    assert pair.report["lines"] == [] and 5 <= pair.report["shared_calls"] <= 6 and pair.report["calls"] == 12


@pytest.mark.parametrize("way", full_but(WAYS, *AUTO))
def test_a_pack_in_auto(trained, row, way):
    title, _, words = WAYS[way]
    first = way not in LATER
    row.of("Other packs", f"{title}, {'before' if first else 'after'} Hybridiff, auto")
    side = trained(5)
    pairs = each(side, sampler(side), lay(side, way), first)
    row.auto(*pairs)
    if words:
        assert any(words in line for line in pairs[0].told)
        assert pairs[0].predicted == 0 or way == "two_passes"


@pytest.mark.full
def test_a_wrapper_on_the_network(comfy, row):
    row.of("Other packs", "wrapper on DIFFUSION_MODEL, on Flux")
    side = FamilyBench(comfy, "flux")
    side.settings |= {"steps": 5, "cfg": 3.0}
    pair = both(side, sampler(side), lay(side, "diffusion_model"))
    row.compared(pair.difference, pair.report)
    assert_it_matters(side, pair)
    assert pair.report["lines"] == [] and pair.report["shared_calls"] == 3  # a worker runs its node too


def test_a_patch_that_was_taken_off_again(bench, row):
    row.of("Other packs", "a part of the network replaced, for another sampler of the graph alone")
    side = bench("sd3")
    own = side.model
    for stock in (False, True):  # ours at once after the patched one; then beside KSampler's
        side.model = side.graph.add("TestOtherPack", model=own, way="object_patch")
        side.latent, side.model = side.sampler("KSampler"), own
        if stock:
            row.compared(*(found := compared(side)))
            report = found[1]
        else:
            ours = side.sampler("HybridiffKSampler", **side.device_chain())
            side.save(ours)
            (report,) = side.comfy.run(side.graph.nodes)[ours[0]]["hybridiff"]
        assert report["lines"] == [] and report["shared_calls"] == report["calls"] == 4


def windows(side, put, dim):
    return lambda model: put(
        side, "ContextWindowsManual", model=model, context_length=2, context_overlap=1, dim=dim, context_stride=1
    )


def by_what(comfy, bench, name):
    """A bench whose latent has several frames, or a batch in their place; and in which dimension."""
    if name != "sd3":
        return FamilyBench(comfy, name), 2
    return bench("sd3", batch=4), 0


@pytest.mark.parametrize("first", [True, pytest.param(False, marks=pytest.mark.full)], ids=["before", "after"])
@pytest.mark.parametrize("name", full_but(["sd3", "wan21"], "sd3"))
def test_context_windows(comfy, bench, row, put, name, first):
    row.of("Other packs", f"context windows, {name}, {'before' if first else 'after'} Hybridiff")
    side, dim = by_what(comfy, bench, name)
    side.settings |= {"steps": 4, "cfg": 3.0}
    pair = both(side, sampler(side), windows(side, put, dim), first)
    row.compared(pair.difference, pair.report)
    if name == "wan21":  # a picture of a batch does not know of the others
        assert_it_matters(side, pair)
    assert pair.report["lines"] == [] and pair.report["shared_calls"] == pair.report["calls"] > 4


def test_context_windows_in_auto(trained, row, put):
    row.of("Other packs", "context windows, auto")
    side = trained(5, batch=4)
    two, one = each(side, sampler(side), windows(side, put, 0))
    row.auto(two, one)
    assert two.predicted == 0 and any("each call sees another part" in line for line in two.told)


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("gpus", [1, 2])
def test_the_hosts_own_split(bench, row, gpus, first):
    place = "before" if first else "after"
    row.of("Other packs", f"MultiGPU CFG Split, {gpus} {'GPU' if gpus == 1 else 'devices'}, {place} Hybridiff")
    side = bench("sd3")

    def split(model):
        if gpus == 1:  # it then does nothing
            return side.graph.add("MultiGPU_WorkUnits", model=model, max_gpus=2)
        return side.graph.add("TestOtherPack", model=model, way="split_by_the_host")

    pair = both(side, sampler(side), split, first)
    row.compared(pair.difference, pair.report)
    if gpus == 1:
        assert pair.report["lines"] == [] and pair.report["shared_calls"] == pair.report["calls"] == 4
    else:
        (line,) = pair.report["lines"]
        assert "ComfyUI's own MultiGPU CFG Split is on this model" in line and pair.report["shared_calls"] == 0
