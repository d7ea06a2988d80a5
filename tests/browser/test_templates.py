"""ComfyUI's official templates, turned by the page's own code in a real page and checked by the server."""

from __future__ import annotations

import pytest

# the kinds of template: a sampler in a subgraph, two experts, a guider, one of two models, one with paid nodes
OFTEN = (
    "image_z_image_turbo", "video_wan2_2_14B_t2v", "flux_redux_model_example", "image_ideogram4_t2i",
    "templates_ohneis_i2v",
)  # fmt: skip
# as the package has them: an input that is left open; no output node; every sampler switched off
UNFINISHED = {"gsl_creator_2", "gsl_starter_1_2", "gsl_starter_1_3"}


@pytest.fixture(scope="module")
def flows(comfyui_root):
    from benchmarks.template_flows import flows

    return flows(comfyui_root)[0]


@pytest.fixture(scope="module")
def turned(comfyui_root, browser, flows):
    from benchmarks.templates import opened

    with opened(comfyui_root, flows, browser) as page:
        yield page


def wrong(name, made) -> list[str]:
    """What is not as it should be once a template is turned."""
    faults = list(made["faults"])
    if not (made["changed"] or name in UNFINISHED):
        faults.append("nothing is turned")
    if made["invalid"] and not made["missing"] and name not in UNFINISHED:  # else nodes of other packs
        faults.append(f"not valid before: {made['invalid']}")
    return faults


@pytest.mark.parametrize("name", OFTEN)
def test_a_template_is_turned_node_for_node_and_stays_valid(turned, flows, name):
    if name not in flows:
        pytest.skip(f"this ComfyUI has no template {name}")
    assert wrong(name, turned.turn(flows[name])) == []


@pytest.mark.full
def test_every_template_is(turned, flows):
    found = {name: wrong(name, turned.turn(flow)) for name, flow in flows.items()}
    assert len(found) > 150
    assert {name: faults for name, faults in found.items() if faults} == {}
