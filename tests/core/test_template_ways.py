"""How a prompt's samplers are shared, as benchmarks/template_ways.py reads it from the prompt."""

from __future__ import annotations

import pytest

from benchmarks.template_ways import costliest, samplings, way

MODEL, LATENT, GUIDER, SIGMAS = "MODEL", "LATENT", "GUIDER", "SIGMAS"


def info(*outputs, **inputs):
    return {"input": {"required": {name: [kind] for name, kind in inputs.items()}}, "output": list(outputs)}


CONDS = {"positive": "CONDITIONING", "negative": "CONDITIONING"}
INFOS = {
    "UNETLoader": info(MODEL, unet_name="COMBO"),
    "EmptyLatentImage": info(LATENT, batch_size="INT"),
    "CLIPTextEncode": info("CONDITIONING", text="STRING"),
    "ReferenceMethod": info("CONDITIONING", conditioning="CONDITIONING", reference_latents_method="COMBO"),
    "ControlNetApplyAdvanced": info("CONDITIONING", "CONDITIONING", **CONDS),
    "KSampler": info(LATENT, model=MODEL, **CONDS, latent_image=LATENT, cfg="FLOAT", steps="INT"),
    "CFGGuider": info(GUIDER, model=MODEL, **CONDS, cfg="FLOAT"),
    "BasicGuider": info(GUIDER, model=MODEL, conditioning="CONDITIONING"),
    "DualCFGGuider": info(GUIDER, model=MODEL, cfg_conds="FLOAT", cfg_cond2_negative="FLOAT"),
    "SamplerCustomAdvanced": info(LATENT, guider=GUIDER, sigmas=SIGMAS, sampler="SAMPLER", latent_image=LATENT),
    "BasicScheduler": info(SIGMAS, model=MODEL, steps="INT"),
    "ManualSigmas": info(SIGMAS, sigmas="STRING"),
    "SamplerARVideo": info("SAMPLER"),
    "ComfySwitchNode": info("*", switch="BOOLEAN", on_true="*", on_false="*"),
    **{name: info(MODEL, model=MODEL) for name in ("LoraLoaderModelOnly", "FreeU", "EasyCache", "ZImageFunControlnet")},
}


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


def prompt(*changes, file="flux1-dev.safetensors", cfg=1, batch=1, steps=20, **more):
    """KSampler behind the nodes `changes` on a model; `more` are further nodes, by their ids."""
    nodes = {
        "loader": node("UNETLoader", unet_name=f"folder/{file}"),
        "text": node("CLIPTextEncode", text=""),
        "latent": node("EmptyLatentImage", batch_size=batch),
    }
    last = "loader"
    for kind in changes:
        nodes[kind] = node(kind, model=[last, 0])
        last = kind
    given = {"positive": ["text", 0], "negative": ["text", 0], "latent_image": ["latent", 0]}
    nodes["sampler"] = node("KSampler", model=[last, 0], cfg=cfg, steps=steps, **given)
    return {**nodes, **more}


def ways(nodes):
    return [way(made) for made in samplings(nodes, INFOS)]


@pytest.mark.parametrize(
    "nodes, expected",
    [
        (prompt(cfg=5), "conds"),
        (prompt(cfg=5, file="a_model_of_nobody.safetensors"), "conds"),
        (prompt(batch=2), "rows"),
        (prompt("LoraLoaderModelOnly"), "tokens"),
        (prompt("FreeU", cfg=5), "graph"),
        (prompt("FreeU"), "not told"),
        (prompt("ZImageFunControlnet"), "graph"),
        (prompt("EasyCache", cfg=5), "not"),
        (prompt(file="sd_xl_turbo_1.0.safetensors"), "not"),
        (prompt(file="hunyuan_3d_v2.1.safetensors"), "not"),
        (prompt(file="a_model_of_nobody.safetensors"), "not told"),
        (prompt(cfg=["elsewhere", 0]), "not told"),
    ],
)
def test_the_way_of_one_sampler(nodes, expected):
    ((found, why),) = ways(nodes)
    assert found == expected
    assert bool(why) == (found not in ("conds", "rows", "tokens"))


@pytest.mark.parametrize("what", ["ControlNetApplyAdvanced", "ReferenceMethod"])
def test_what_is_in_the_conds_is_divided_too(what):
    more = {"conditioning": ["text", 0], "reference_latents_method": "index_timestep_zero"}
    nodes = prompt(control=node(what, **(more if what == "ReferenceMethod" else {"positive": ["text", 0]})))
    nodes["sampler"]["inputs"]["positive"] = ["control", 0]
    assert [found for found, _ in ways(nodes)] == ["tokens"]
    nodes["sampler"]["inputs"]["cfg"] = 4
    assert [found for found, _ in ways(nodes)] == ["conds"]


def custom(guider, sigmas, sampler=None):
    nodes = prompt(guider=guider, sigmas=sigmas)
    nodes["sampler"] = node("SamplerCustomAdvanced", guider=["guider", 0], sigmas=["sigmas", 0])
    if sampler:
        nodes["object"] = node(sampler)
        nodes["sampler"]["inputs"]["sampler"] = ["object", 0]
    return nodes


@pytest.mark.parametrize(
    "guider, branches, expected",
    [
        (node("BasicGuider", model=["loader", 0]), 1, "tokens"),
        (node("CFGGuider", model=["loader", 0], cfg=3), 2, "conds"),
        (node("DualCFGGuider", model=["loader", 0], cfg_conds=5, cfg_cond2_negative=2), 3, "conds"),
        (node("DualCFGGuider", model=["loader", 0], cfg_conds=5, cfg_cond2_negative=1), 2, "conds"),
    ],
)
def test_guiders(guider, branches, expected):
    (made,) = samplings(custom(guider, node("BasicScheduler", model=["loader", 0], steps=12)), INFOS)
    assert (made.branches, made.steps, way(made)[0]) == (branches, 12, expected)


def test_an_autoregressive_sampler_keeps_state():
    guider = node("CFGGuider", model=["loader", 0], cfg=3)
    (made,) = samplings(custom(guider, node("ManualSigmas", sigmas="1.0, 0.5, 0.25, 0"), "SamplerARVideo"), INFOS)
    assert (made.steps, way(made)[0]) == (3, "not")


def test_a_switch_is_gone_through():
    """A template's switch to few steps at CFG 1, on and off."""
    for on, expected in ((True, (4, 1, "tokens")), (False, (20, 4, "conds"))):
        nodes = prompt("LoraLoaderModelOnly")
        nodes["fast"] = node("PrimitiveBoolean", value=on)
        nodes["few"] = node("PrimitiveInt", value=4)
        lora = (["LoraLoaderModelOnly", 0], ["loader", 0])
        for name, (fast, slow) in {"steps": (["few", 0], 20), "cfg": (1, 4), "model": lora}.items():
            nodes[name] = node("ComfySwitchNode", switch=["fast", 0], on_true=fast, on_false=slow)
            nodes["sampler"]["inputs"][name] = [name, 0]
        (made,) = samplings(nodes, INFOS)
        assert (made.steps, made.cfg, way(made)[0]) == expected
        assert made.files == ["flux1-dev.safetensors"]
        assert made.chain == (["LoraLoaderModelOnly"] if on else [])


def test_the_costliest_of_several_counts():
    nodes = prompt(cfg=5, steps=4)
    nodes["second"] = node("KSampler", **{**nodes["sampler"]["inputs"], "cfg": 1, "steps": 20})
    made = samplings(nodes, INFOS)
    assert [way(one)[0] for one in made] == ["conds", "tokens"]
    assert costliest(made).node == "second"
