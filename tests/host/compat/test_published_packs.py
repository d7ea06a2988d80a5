"""Other packs as their authors published them (published.py), in a real ComfyUI beside stock."""

from __future__ import annotations

import json

import pytest

from ..comfy_server import Refused
from ..conftest import Bench, FamilyBench
from ..test_by_graph import PROOF
from ..test_exact import LIMIT
from . import published
from .conftest import adder, without
from .test_controls import image, net
from .test_hosts import OLDER, version_of

pytestmark = pytest.mark.full
SECTION = "Published packs"
ONE_BRANCH = "at CFG 1 only one prompt is computed"
LORA = {"lora_name": "sd3_depth4.safetensors", "strength_model": 0.7}
BENCHES = {"sd3": 16, "sd15": 16}  # of conftest.Bench; any other is a family of its own


@pytest.fixture(scope="module")
def comfy(comfyui_root, tmp_path_factory):
    """A server of this file's own, with all the packs that are here."""
    if published.present():
        published.make_gguf(comfyui_root, "sd3_depth4.safetensors", "sd3")
    server = published.start(comfyui_root, tmp_path_factory.mktemp("published") / "base")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def infos(comfy):
    return comfy.get("/object_info")


def side_of(comfy, family: str, cfg: float = 5.0):
    side = Bench(comfy, family, size=BENCHES[family]) if family in BENCHES else FamilyBench(comfy, family)
    side.settings |= {"steps": 6, "cfg": cfg}
    return side


def check(row, side, plain: str | None, words: str | None, rounds: bool = False) -> None:
    """Beside stock: shared but for what proves that nothing is kept, or on one device for a reason with `words`.

    `plain` is the node that saves the picture without what the row is about: it is to be another one. What `rounds`
    to half precision gives another picture of a latent among others, in the host too: that is the limit then.
    """
    stock = side.save(side.sampler("KSampler"))
    if rounds:
        alone, side.latent = side.latent, side.graph.add("RepeatLatentBatch", samples=side.latent, amount=2)
        among, side.latent = side.save(side.sampler("KSampler")), alone
    try:
        outputs = side.comfy.run(side.graph.nodes)
    except Refused as refused:
        failed = dict(json.loads(str(refused)))["execution_error"]
        row.left_out(f"{failed['node_type']} fails in ComfyUI itself: {failed['exception_message'].strip()}")
        return
    ours = side.sampler("HybridiffKSampler", **side.device_chain())
    saved = side.save(ours)
    outputs |= side.comfy.run(side.graph.nodes)
    (report,) = outputs[ours[0]]["hybridiff"]
    if plain is not None:
        assert side.difference(outputs, plain, stock) > 10 * LIMIT
    reason, limit = "", LIMIT
    if rounds and report["shared_calls"]:
        expected = side.latent_of(outputs, stock)
        own = (side.latent_of(outputs, among)[:1] - expected).abs().max().item() / max(1.0, expected.std().item())
        reason = f"its kernel rounds to half precision: KSampler's own picture is {own:.0e} off in a batch of two"
        limit = max(LIMIT, 3 * own)
    row.compared(side.difference(outputs, stock, saved), report, reason, limit)
    if words is None:
        assert report["lines"] == []
        # guidance nodes' further calls stay here, and so does the forward that shows how tokens can be divided
        assert report["shared_calls"] >= side.settings["steps"] - PROOF - (side.settings["cfg"] == 1)
    else:
        assert words in " ".join(report["lines"]) and report["shared_calls"] < report["calls"]


def on_cfg(name: str, cfg: float) -> str:
    return name if cfg > 1 else f"{name}, CFG 1"


# -- loaders

GGUF, KJ = "ComfyUI-GGUF", "ComfyUI-KJNodes"
FILES = ("F16", "Q8_0", "Q4_0")
LOADERS = {
    **{f"UnetLoaderGGUF, {kind}": (GGUF, "UnetLoaderGGUF", {"unet_name": f"sd3_{kind}.gguf"}) for kind in FILES},
    "UnetLoaderGGUFAdvanced, Q4_0, patches in single precision on the device": (
        GGUF, "UnetLoaderGGUFAdvanced",
        {"unet_name": "sd3_Q4_0.gguf", "dequant_dtype": "float32", "patch_dtype": "float32", "patch_on_device": True},
    ),
    "GGUFLoaderKJ, Q8_0, sdpa": (KJ, "GGUFLoaderKJ", {"model_name": "sd3_Q8_0.gguf", "attention_override": "sdpa"}),
    "DiffusionModelLoaderKJ": (KJ, "DiffusionModelLoaderKJ", {"sage_attention": "disabled"}),
    "DiffusionModelLoaderKJ, fp8_e4m3fn, fp16 accumulation": (
        KJ, "DiffusionModelLoaderKJ",
        {"weight_dtype": "fp8_e4m3fn", "sage_attention": "disabled", "enable_fp16_accumulation": True},
    ),
    "DiffusionModelLoaderKJ, Sage": (KJ, "DiffusionModelLoaderKJ", {"sage_attention": "auto"}),
    "ClownModelLoader": ("RES4LYF", "ClownModelLoader", {}),
}  # fmt: skip


@pytest.mark.parametrize("cfg", [5.0, 1.0])
@pytest.mark.parametrize("lora", [False, True], ids=["plain", "lora"])
@pytest.mark.parametrize("name", [pytest.param(name, marks=published.needs(of[0])) for name, of in LOADERS.items()])
def test_a_loader(comfy, row, put, name, lora, cfg):
    pack, kind, given = LOADERS[name]
    row.of(SECTION, on_cfg(f"{pack}: {name}{', and LoRA' if lora else ''}", cfg))
    side = side_of(comfy, "sd3", cfg)
    if kind in ("DiffusionModelLoaderKJ", "ClownModelLoader"):
        given = {**given, "model_name": "sd3_depth4.safetensors"}
    side.model = put(side, kind, **given)
    plain = without(side) if lora else None
    if lora:
        side.model = side.graph.add("LoraLoaderModelOnly", model=side.model, **LORA)
    check(row, side, plain, None, "Sage" in name)


# -- patches


def node(kind: str, **given):
    """A node behind the model, with its own defaults."""

    def lay(side, put):
        side.model = put(side, kind, model=side.model, **given)

    return lay


def with_latent(kind: str, **given):
    return lambda side, put: node(kind, latent=side.latent, **given)(side, put)


def ipadapter(kind: str, **given):
    """An IPAdapter node with its file, a picture encoder and a picture."""

    def lay(side, put):
        adapter = side.graph.add("IPAdapterModelLoader", ipadapter_file="sd15_narrow.safetensors")
        encoder = side.graph.add("TestPictureEncoder", seed=1)
        node(kind, ipadapter=adapter, clip_vision=encoder, image=image(side, 2), **given)(side, put)

    return lay


def advanced_control(side, put):
    kept = side.graph.add("ControlNetLoaderAdvanced", control_net_name="sd15_narrow.safetensors")
    both = put(
        side, "ACN_AdvancedControlNetApply_v2", positive=side.positive, negative=side.negative, control_net=kept,
        image=image(side), strength=0.7,
    )  # fmt: skip
    side.positive, side.negative = both, [both[0], 1]


def advanced_apply(side, put):
    both = put(
        side, "ACN_AdvancedControlNetApply_v2", positive=side.positive, negative=side.negative, control_net=net(side),
        image=image(side), strength=0.7,
    )  # fmt: skip
    side.positive, side.negative = both, [both[0], 1]


def attention_guidance(kind: str, cond: str, **given):
    return lambda side, put: node(kind, **{cond: side.negative}, **given)(side, put)


TOGETHER = "something else where each prompt is computed by itself"
IPA, SPA, R4 = "ComfyUI_IPAdapter_plus", "sd-perturbed-attention", "RES4LYF"
# pack, what it is, family, what it puts there, why it is on one device (None: it is on two)
PATCHES = [
    (KJ, "PathchSageAttentionKJ", "sd3", node("PathchSageAttentionKJ", sage_attention="auto"), None),
    (KJ, "PathchSageAttentionKJ", "sd15", node("PathchSageAttentionKJ", sage_attention="auto"), None),
    (KJ, "ModelPatchTorchSettings", "sd3", node("ModelPatchTorchSettings", enable_fp16_accumulation=True), None),
    (KJ, "CFGZeroStarAndInit", "sd3", node("CFGZeroStarAndInit"), None),
    (KJ, "WanVideoEnhanceAVideoKJ", "wan21", with_latent("WanVideoEnhanceAVideoKJ"), (TOGETHER, ONE_BRANCH)),
    (KJ, "WanVideoNAG", "wan21", attention_guidance("WanVideoNAG", "conditioning"), (TOGETHER, None)),
    (KJ, "SkipLayerGuidanceWanVideo", "wan21", node("SkipLayerGuidanceWanVideo", blocks="1"), None),
    (KJ, "WanChunkFeedForward", "wan21", node("WanChunkFeedForward"), None),
    (KJ, "ApplyRifleXRoPE_WanVideo", "wan21", with_latent("ApplyRifleXRoPE_WanVideo"), None),
    (KJ, "LTXVEnhanceAVideoKJ", "ltxv", with_latent("LTXVEnhanceAVideoKJ"), (TOGETHER, ONE_BRANCH)),
    (KJ, "LTXVChunkFeedForward", "ltxv", node("LTXVChunkFeedForward", dim_threshold=256), None),
    (KJ, "ModelMemoryUsageFactorOverride", "sd3", node("ModelMemoryUsageFactorOverride"), None),
    (KJ, "CheckpointPerturbWeights", "sd3", node("CheckpointPerturbWeights"), None),
    (IPA, "IPAdapterAdvanced", "sd15", ipadapter("IPAdapterAdvanced"), None),
    (IPA, "IPAdapterAdvanced, style transfer, from 20 to 70%", "sd15",
     ipadapter("IPAdapterAdvanced", weight_type="style transfer", start_at=0.2, end_at=0.7), None),
    (IPA, "IPAdapterTiled", "sd15", ipadapter("IPAdapterTiled"), None),
    ("ComfyUI-Advanced-ControlNet", "its loader and its apply node", "sd15", advanced_control, "ControlNet"),
    ("ComfyUI-Advanced-ControlNet", "its apply node", "sd15", advanced_apply, "ControlNet"),
    ("ComfyUI-TeaCache", "TeaCache", "flux", node("TeaCache"), "keeps something"),
    ("Comfy-WaveSpeed", "ApplyFBCacheOnModel", "flux",
     node("ApplyFBCacheOnModel", residual_diff_threshold=0.1), "keeps something"),
    (SPA, "PerturbedAttention", "sd15", node("PerturbedAttention"), None),
    (SPA, "SmoothedEnergyGuidanceAdvanced", "sd15", node("SmoothedEnergyGuidanceAdvanced"), None),
    (SPA, "SlidingWindowGuidanceAdvanced", "sd15",
     node("SlidingWindowGuidanceAdvanced", tile_width=64, tile_height=64, tile_overlap=32, sigma_end=-1.0), None),
    (SPA, "NormalizedAttentionGuidance", "sd15", attention_guidance("NormalizedAttentionGuidance", "negative"), None),
    (SPA, "PLADIS", "sd15", node("PLADIS"), None),
    (SPA, "TokenPerturbationGuidance", "sd15", node("TokenPerturbationGuidance", unet_block_list="d1,m0"),
     "draws random numbers"),
    (SPA, "SlidingModeControlCFG", "sd15", node("SlidingModeControlCFG"), None),
    (SPA, "FrequencyDecoupledGuidance", "sd15", node("FrequencyDecoupledGuidance"), None),
    (SPA, "MomentumGuidance", "sd15", node("MomentumGuidance"), None),
    (R4, "ReSDPatcher", "sd15", node("ReSDPatcher"), None),
    (R4, "ReFluxPatcher", "flux", node("ReFluxPatcher"), None),
    (R4, "ReWanPatcher", "wan21", node("ReWanPatcher"), (None, "could not be divided by its tokens")),
    (R4, "ModelSamplingAdvanced", "sd3", node("ModelSamplingAdvanced", shift=6.0), None),
    (R4, "ModelTimestepPatcher", "sd3", node("ModelTimestepPatcher", shift=6.0), None),
    (R4, "FluxOrthoCFGPatcher", "flux", node("FluxOrthoCFGPatcher"), None),
]  # fmt: skip
TRANSFORMERS = ("sd3", "wan21", "flux", "ltxv")
SAME_PICTURE = (
    "ModelPatchTorchSettings", "WanChunkFeedForward", "LTXVChunkFeedForward", "ModelMemoryUsageFactorOverride",
    "ReWanPatcher", "ReFluxPatcher", "ReSDPatcher", "PathchSageAttentionKJ", "WanVideoNAG",
    "ModelTimestepPatcher", "ModelSamplingAdvanced",
)  # fmt: skip


@pytest.mark.parametrize(
    ("of", "cfg"),
    [
        pytest.param(of, cfg, id=f"{of[1]} {of[2]} {cfg:g}", marks=published.needs(of[0]))
        for of in PATCHES
        for cfg in ((1.0, 5.0) if of[2] in TRANSFORMERS else (5.0,))  # a U-Net's forward is not divided
    ],
)
def test_a_patch(comfy, row, put, infos, of, cfg):
    pack, name, family, lay, words = of
    row.of(SECTION, on_cfg(f"{pack}: {name} on {family}", cfg))
    if not any(info.get("python_module") == f"custom_nodes.{pack}" for info in infos.values()):
        row.left_out(f"ComfyUI cannot import it: {published.why_not_loaded(comfy, pack)}")
        return
    side = side_of(comfy, family, cfg)
    plain = None if name in SAME_PICTURE else without(side)
    lay(side, put)
    if isinstance(words, tuple):
        words = words[cfg == 1]
    check(row, side, plain, words, "Sage" in name)


# -- a pack that this ComfyUI cannot import, in an older one (HYBRIDIFF_OLDER_COMFYUI) that can

LTX = "ComfyUI-LTXVideo"
OF_LTX = {
    "ModifyLTXModel": (("ModifyLTXModel", {}),),
    "LTXFetaEnhance": (("ModifyLTXModel", {}), ("LTXFetaEnhance", {})),
    "LTXPerturbedAttention": (("ModifyLTXModel", {}), ("LTXPerturbedAttention", {})),
    "LTXVApplySTG": (("LTXVApplySTG", {"block_indices": "0"}),),
    "LTXForwardModelSamplingPred": (("LTXForwardModelSamplingPred", {}),),
}


@pytest.fixture(scope="module")
def with_ltx(comfyui_root, tmp_path_factory):
    """A server that can import LTXVideo, with its version."""
    for root in (comfyui_root, *OLDER):
        server = published.start(root, tmp_path_factory.mktemp("ltx") / "base")
        if "ModifyLTXModel" in server.get("/object_info"):
            yield server, version_of(root)
            server.stop()
            return
        server.stop()
    pytest.skip(f"no ComfyUI that can import {LTX} (HYBRIDIFF_OLDER_COMFYUI)")


@published.needs(LTX)
@pytest.mark.parametrize(("name", "cfg"), [(name, cfg) for name in OF_LTX for cfg in (5.0, 1.0)][:-1])
def test_ltx_video(with_ltx, row, name, cfg):
    server, version = with_ltx
    row.of(SECTION, on_cfg(f"{LTX}: {name}, ComfyUI {version}", cfg))
    side = side_of(server, "ltxv", cfg)
    for kind, given in OF_LTX[name]:
        node(kind, **given)(side, adder(server.get("/object_info")))
    check(row, side, None, ONE_BRANCH if cfg == 1 else None)
