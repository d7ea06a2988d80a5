"""Model families: exact mode beside KSampler in a graph, and the pipeline stage with frozen inputs."""

from __future__ import annotations

import functools

import pytest

from ...tiers import full
from ..asked import Asked
from ..comfy_server import PACK, Refused
from ..conftest import FamilyBench, large
from ..families import FAMILIES
from ..test_exact import LIMIT
from ..test_frozen import assert_it_becomes_exact
from .conftest import CELLS, Pair, both

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
OTHERS = {  # more_families.py
    "kontext": "Flux Kontext, a reference latent",
    "longcat": "LongCat-Image",
    "ovis": "Ovis-Image",
    "chroma_radiance": "Chroma Radiance",
    "wan_vace": "Wan VACE",
    "wan_fun": "Wan Fun control",
    "wan_camera": "Wan 2.1 camera",
    "wan22_camera": "Wan 2.2 camera",
    "wan_s2v": "Wan 2.2 sound to video",
    "wan_humo": "Wan HuMo",
    "wan_animate": "Wan 2.2 Animate",
    "wan_animate2": "Wan Animate 2",
    "wan_scail": "Wan SCAIL",
    "wan_scail2": "Wan SCAIL 2",
    "wan_dancer": "Wan Dancer",
    "wan_bernini": "Wan Bernini",
    "hunyuan_video15": "HunyuanVideo 1.5",
    "hunyuan_image21": "HunyuanImage 2.1",
    "hunyuan_dit": "HunyuanDiT",
    "hunyuan3d": "Hunyuan3D 2",
    "hunyuan3d_21": "Hunyuan3D 2.1",
    "cosmos": "Cosmos 1",
    "cosmos_predict2": "Cosmos Predict 2",
    "anima": "Anima",
    "kandinsky5": "Kandinsky 5, video",
    "kandinsky5_image": "Kandinsky 5, image",
    "omnigen2": "OmniGen2, a reference latent",
    "boogu": "Boogu",
    "ideogram4": "Ideogram 4",
    "hidream": "HiDream",
    "hidream_o1": "HiDream O1",
    "ace": "ACE-Step",
    "ace15_narrow": "ACE-Step 1.5",
    "stable_audio3": "Stable Audio 3",
    "mochi": "Mochi",
    "cascade_c": "Stable Cascade, stage C",
    "cascade_b": "Stable Cascade, stage B",
    "svd": "Stable Video Diffusion",
    "seedvr2": "SeedVR2",
    "ernie": "Ernie-Image",
    "minimax_h3": "MiniMax-H3, video and sound",
    "minimax_music": "MiniMax Music 3",
    "ltx2": "LTX-2, video and sound",
    "ltx25": "LTX-2.5, video and sound",
    "lotus": "Lotus (SD 2.1)",
    "cogvideo": "CogVideoX",
    "void": "VOID (CogVideoX)",
    "lens": "Lens",
    "joyimage": "JoyImage",
    "mage_flow": "Mage Flow",
    "pixeldit": "PixelDiT",
    "pid": "PiD",
    "triposplat": "TripoSplat",
    "trellis2": "Trellis 2, structure",
    "newbie": "NewBie (Lumina 2)",
}
LARGE = {  # gigabytes of weights: the host fixes their width
    "chroma": "Chroma",
    "qwen_image": "Qwen-Image",
    "lumina2": "Lumina 2",
    "z_image": "Z-Image",
    "auraflow": "AuraFlow",
}
# as in ComfyUI's templates: in fewer steps from their sigmas, up to 4500, stock itself differs by 1e-4 with the batch
SETTINGS = {
    "stable_audio": {"scheduler": "exponential", "steps": 6},
    "svd": {"scheduler": "karras", "steps": 12, "cfg": 2.5},
    "cogvideo": {"scheduler": "simple", "steps": 30},
    "void": {"scheduler": "simple", "steps": 30},
    "hidream_o1": {"scheduler": "simple", "steps": 10, "cfg": 2.0},
}
# not cut by workers: their steps of Lotus are 1.1e-4 off in eps, by rounding of its large latent; of SVD they take long
IN_ONE = ("lotus", "svd")
OFTEN = ("sd15", "sdxl", "sd3", "flux", "wan21")  # what most people run, one of each kind of network
EVERY = [name if name in OFTEN else full(name) for name in SMALL]
EVERY += [full(name) for name in OTHERS]
EVERY += [pytest.param(name, marks=[large, pytest.mark.full]) for name in LARGE]


BATCH = 3
ONE_AT_A_TIME = {  # of a network that ComfyUI calls with one latent
    "minimax_h3": "no: the network takes one video",
    "svd": "no: the batch is the frames of one video",
}
# what ComfyUI computes for both prompts together is not what it computes for each
TOGETHER = {"ace15_narrow", "seedvr2"}


@pytest.fixture
def family(comfy):
    """Makes a bench of a family: family("flux"), family("flux", batch=3)."""

    def make(name: str, **more) -> FamilyBench:
        try:
            return FamilyBench(comfy, name, **more)
        except Refused as error:
            pytest.skip(f"this ComfyUI has no {FAMILIES[name].model} ({error})")

    return make


@pytest.fixture(scope="module")
def cut_split(comfyui_root):
    """What cut_split.py finds of a case: cut_split("hidream:2")."""
    asked = Asked(comfyui_root, PACK / "tests" / "host" / "cut_split.py")
    yield functools.cache(asked.ask)
    asked.close()


@pytest.fixture
def stage(frozen, cut_split):
    """The cell for the pipeline stage in a family's row: stage("flux")."""

    def by_workers(name: str) -> str:
        result = frozen(f"{name}:2")
        refused = [line for line in result["lines"] if "the pipeline was left out" in line]
        if refused:
            assert result["finite"] and result["works"] == ["exact"] * 16 and result["difference"] < 1e-6
            return f"left out: {refused[0]}"
        assert_it_becomes_exact(result, 2)
        return f"on, {result['difference']:.0e}"

    def in_one_process(name: str) -> str:
        result = cut_split(f"{name}:2")
        if result["reason"]:
            return f"left out: {result['reason']}"
        assert result["z"] <= 1e-6 and result["difference"] <= 1e-6, result
        return f"on, {result['difference']:.0e}"

    return lambda name: in_one_process(name) if FAMILIES[name].narrow or name in IN_ONE else by_workers(name)


@pytest.fixture
def tokens(token_split):
    """The cell for a forward divided by tokens: tokens("flux")."""

    def cell(name: str) -> str:
        result = token_split(f"{name}:2")
        if result["reason"] is not None:
            assert not result["forms"] and result["looked"] == 0
            return f"no: {result['reason']}"
        assert result["forms"] and result["finite"] and result["looked"] == 0
        assert result["difference"] <= LIMIT, result
        return f"yes, {result['difference']:.0e}"

    return cell


@pytest.fixture
def rows(family):
    """The cell for a batch at CFG 1: rows("flux")."""

    def cell(name: str) -> str:
        if name in ONE_AT_A_TIME:
            return ONE_AT_A_TIME[name]
        side = family(name, batch=BATCH)
        side.settings |= {"steps": 5, **SETTINGS.get(name, {}), "cfg": 1.0}
        difference, report = side.compare()
        ways = {step["way"] for step in report["steps"] if step["helpers"]}
        assert difference <= LIMIT, (difference, report["lines"])
        if "rows" in ways:
            return f"yes, {difference:.0e}"
        return "not tried" if "tokens" in ways else f"no: {'; '.join(report['lines'])}"

    return cell


@pytest.mark.parametrize("name", EVERY)
def test_family(family, row, stage, tokens, rows, name):
    side = family(name)
    row.of("Models", {**SMALL, **OTHERS, **LARGE}[name])
    by_graph = FAMILIES[name].narrow  # of a graph the first two calls are this process's alone
    side.settings |= {"steps": 5 if by_graph else 3, "cfg": 3.0, **SETTINGS.get(name, {})}
    difference, report = side.compare()
    if name in TOGETHER:
        assert any("where each prompt is computed by itself" in line for line in report["lines"]), report["lines"]
        row.compared(difference, report)
    else:
        alone = 2 if by_graph else 0
        assert report["shared_calls"] >= side.settings["steps"] - alone, report["lines"]
        row.compared(difference, report, "by its graph" if by_graph else "")
    row.cells(rows=lambda: rows(name), stage=lambda: stage(name), tokens=lambda: tokens(name))


@pytest.mark.full
@pytest.mark.parametrize("name", ["flux"])
def test_cfg_one(family, row, stage, tokens, rows, name):
    row.of("Models", "Flux, CFG 1 with distilled guidance")
    side = family(name)
    side.settings |= {"steps": 3, "cfg": 1.0}
    row.compared(*side.compare())
    row.cells(rows=lambda: rows(name), stage=lambda: stage(name), tokens=lambda: tokens(name))


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
    for name in CELLS:
        row.cell(name, "each expert as its own row")


@pytest.mark.full
def test_autoregressive(family, row):
    """Frame by frame: the network keeps keys and values of earlier frames, so every call has to be its own."""
    row.of("Models", "Wan, autoregressive")
    pairs = [frame_by_frame(family("wan_causal"), mode) for mode in ("predict", "pipeline", "auto", "exact")]
    row.compared(max(pair.difference for pair in pairs), pairs[-1].report)
    assert all(pair.report["calls"] == 21 and not pair.predicted for pair in pairs)  # 3 frames: 6 steps, one clean each
    assert all("part by part" in " ".join(pair.report["lines"]) for pair in pairs[:-1])
    row.cells(**dict.fromkeys(CELLS, lambda: f"no: {pairs[-1].report['lines'][-1]}"))


def frame_by_frame(side, mode: str) -> Pair:
    side.plan = {"mode": mode, **({"warmup": "fixed", "start_step": 1, "parallel_steps": 4} if mode != "exact" else {})}
    frames = side.graph.add("SamplerARVideo", num_frame_per_block=1)
    noise = side.graph.add("RandomNoise", noise_seed=5)
    sigmas = side.graph.add("BasicScheduler", model=side.model, scheduler="simple", steps=6, denoise=1.0)

    def sample(model: list) -> list:
        guider = side.graph.add("BasicGuider", model=model, conditioning=side.positive)
        return side.graph.add(
            "SamplerCustomAdvanced", noise=noise, guider=guider, sampler=frames, sigmas=sigmas,
            latent_image=side.latent,
        )  # fmt: skip

    return both(side, sample)
