"""Model families: exact mode beside KSampler in a graph, and the pipeline stage with frozen inputs."""

from __future__ import annotations

import pytest

from ...tiers import full
from ..conftest import FamilyBench, large
from ..test_frozen import assert_it_becomes_exact
from ..test_tokens import assert_it_is_exact

SMALL = {
    "sd15": "SD 1.5",
    "sd15_inpaint": "SD 1.5 inpainting",
    "sd21": "SD 2.1, v-prediction",
    "sd21_unclip": "SD 2.1 unCLIP",
    "sdxl": "SDXL",
    "sdxl_refiner": "SDXL refiner",
    "sd3": "SD3",
    "sd35": "SD3.5",
    "flux": "Flux, CFG above 1",
    "flux2": "Flux 2",
    "wan21": "Wan 2.1 text to video",
    "wan21_i2v": "Wan 2.1 image to video",
    "wan22_5b": "Wan 2.2 5B",
    "wan22_i2v": "Wan 2.2 image to video, one expert",
    "hunyuan_video": "HunyuanVideo",
    "ltxv": "LTX-Video",
    "stable_audio": "Stable Audio",
    "krea2": "Krea 2",
    "pixart": "PixArt Sigma",
}
LARGE = {  # gigabytes of weights: the host fixes their width
    "chroma": "Chroma",
    "qwen_image": "Qwen-Image",
    "lumina2": "Lumina 2",
    "z_image": "Z-Image",
    "auraflow": "AuraFlow",
}
# the scheduler of ComfyUI's template; in fewer steps from its sigma, 500, stock itself differs by 1e-5 with the batch
SETTINGS = {"stable_audio": {"scheduler": "exponential", "steps": 6}}
TOO_FEW_BLOCKS = ("z_image",)  # one, for its width
OFTEN = ("sd15", "sdxl", "sd3", "flux", "wan21")  # what most people run, one of each kind of network
EVERY = [name if name in OFTEN else full(name) for name in SMALL]
EVERY += [pytest.param(name, marks=[large, pytest.mark.full]) for name in LARGE]


@pytest.fixture
def family(comfy):
    """Makes a bench of a family: family("flux")."""
    return lambda name: FamilyBench(comfy, name)


@pytest.fixture
def stage(frozen):
    """The cell for the pipeline stage in a family's row: stage("flux")."""

    def cell(name: str) -> str:
        result = frozen(f"{name}:2")
        if name in TOO_FEW_BLOCKS:
            (line,) = [line for line in result["lines"] if "too few for" in line]
            assert result["finite"] and result["works"] == ["exact"] * 16 and result["difference"] < 1e-6
            return f"left out: {line}"
        assert_it_becomes_exact(result, 2)
        return f"on, {result['difference']:.0e}"

    return cell


@pytest.fixture
def tokens(token_split):
    """The cell for a forward divided by tokens: tokens("flux")."""

    def cell(name: str) -> str:
        result = token_split(f"{name}:2")
        if result["reason"] is not None:
            assert not result["forms"] and result["looked"] == 0
            return f"no: {result['reason']}"
        assert_it_is_exact(result)
        return f"yes, {result['difference']:.0e}"

    return cell


@pytest.mark.parametrize("name", EVERY)
def test_family(family, row, stage, tokens, name):
    row.of("Models", {**SMALL, **LARGE}[name])
    side = family(name)
    side.settings |= {"steps": 3, "cfg": 3.0, **SETTINGS.get(name, {})}
    difference, report = side.compare()
    assert report["shared_calls"] == side.settings["steps"], report["lines"]
    row.compared(difference, report)
    row.stage(stage(name))
    row.tokens(tokens(name))


@pytest.mark.full
@pytest.mark.parametrize("name", ["flux"])
def test_cfg_one(family, row, stage, name):
    row.of("Models", "Flux, CFG 1 with distilled guidance")
    side = family(name)
    side.settings |= {"steps": 3, "cfg": 1.0}
    row.compared(*side.compare())
    row.stage(stage(name))


@pytest.mark.full
@pytest.mark.parametrize(("high", "low"), [("wan21", "wan22_t2v_low"), ("wan22_i2v", "wan22_i2v_low")])
def test_two_experts(family, row, high, low):
    """Wan 2.2's graph: one model for the noisy steps, another for the rest, noise left over between them."""
    row.of("Models", f"Wan 2.2 {'image' if 'i2v' in high else 'text'} to video, two experts")
    side = family(high)
    models = [side.graph.add("ModelSamplingSD3", model=model, shift=8.0) for model in (side.model, side.expert(low))]

    def chain(kind: str, **more) -> list[list]:
        latent, samplers = side.latent, []
        for first, model in enumerate(models):
            latent = side.graph.add(
                kind, model=model, positive=side.positive, negative=side.negative, latent_image=latent,
                add_noise="disable" if first else "enable", noise_seed=side.settings["seed"], steps=4, cfg=3.5,
                sampler_name="euler", scheduler="simple", start_at_step=2 * first, end_at_step=2 + 2 * first,
                return_with_leftover_noise="disable" if first else "enable", **more,
            )  # fmt: skip
            samplers.append(latent)
        return samplers

    stock, ours = chain("KSamplerAdvanced"), chain("HybridiffKSamplerAdvanced", **side.device_chain())
    halves = [(side.save(theirs), side.save(own)) for theirs, own in zip(stock, ours)]
    outputs = side.comfy.run(side.graph.nodes)
    reports = [outputs[sampler[0]]["hybridiff"][0] for sampler in ours]
    assert [report["shared_calls"] for report in reports] == [2, 2]
    differences = [side.difference(outputs, *half) for half in halves]
    row.compared(max(differences), reports[1])
    row.stage("each expert as its own row")
