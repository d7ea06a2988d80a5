"""How a prompt's samplers are shared, read from the prompt: the model's files, the nodes on it, CFG, steps, batch.

The rules are the engine's (hybridiff_core/share.py, nodes/host/demand.py) and the tables' (docs/COMPATIBILITY.md,
tests/host/test_tokens.py). Nothing is sampled here: a template's model may have what its family's small one has not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

SAMPLERS = {"KSampler", "KSamplerAdvanced", "SamplerCustom", "SamplerCustomAdvanced"}
SAMPLED = {"LATENT", "GUIDER", "IMAGE"}  # what a sampler, a guider or a whole pipeline gives
FILE = re.compile(r"\.(safetensors|sft|ckpt|pt|pth|gguf)$")

# nodes on a model that change weights, sampling or what guiders do: they cross as data, or stay in ComfyUI's process
PLAIN = {
    "LoraLoader", "LoraLoaderModelOnly", "ModelSamplingSD3", "ModelSamplingAuraFlow", "ModelSamplingFlux", "CFGNorm",
    "ModelNoiseScale", "CFGZeroStar", "CFGOverride", "DifferentialDiffusion", "LatentApplyOperationCFG",
    "SkipLayerGuidanceDiT", "UNetTemporalAttentionMultiply", "VideoLinearCFGGuidance", "ScaleROPE", "RescaleCFG",
    "LTXVReferenceAudio", "TripoSplatSamplingPreview", "ContextWindowsManual", "WanContextWindowsManual",
    "ComfySwitchNode", "Reroute", "HybridiffModel",
}  # fmt: skip
# whose patches were tried where forwards are divided by tokens
DIVIDED = {
    "ZImageFunControlnet", "QwenImageDiffsynthControlnet", "AnimaLLLiteApply", "WanInfiniteTalkToVideo",
}  # fmt: skip
# that keep something in the network from step to step, which no other process has
STATEFUL = {
    "EasyCache": "EasyCache keeps what the network gave before",
    "FluxKVCache": "FluxKVCache keeps keys and values of the first step",
    "WanAnimate2Cache": "WanAnimate2Cache keeps keys and values of the first step",
    "ARVideoI2V": "an autoregressive sampler keeps its state in the network",
    "SamplerARVideo": "an autoregressive sampler keeps its state in the network",
}
# whose prompts give something else where each is computed by itself: in a batch all timbres go to the first one. A
# negative prompt that is zeroed out is in no batch with the other
TOGETHER = {"ACE-Step 1.5"}
CONTROLS = re.compile("ControlNet.*Apply|ControlNetInpainting")
HOOKS = re.compile("Hook")
ZERO = "index_timestep_zero"
CFGS = ("cfg", "video_cfg", "audio_cfg")

# why a family's forwards are not divided by tokens
U_NET, BLOCKS = "a U-Net has no tokens to divide", "its blocks cannot be reached"
ALONE = "a part of its tokens gives something else by itself"
UNSHARED = ("not", "not told")
# by its file's name: the family, and whether its forwards are divided by tokens: True, False with why, or not tried
FAMILIES: tuple[tuple[str, str, bool | str | None], ...] = (
    (r"^pid_", "PiD (PixelDiT)", True),
    (r"v1-5|dreamshaper_8", "SD 1.5", U_NET),
    (r"sd_xl_refiner", "SDXL refiner", U_NET),
    (r"sd_xl", "SDXL", U_NET),
    (r"lotus", "Lotus (SD 2.1)", U_NET),
    (r"v2-1|sd21|wd-illusion|unclip", "SD 2.1 unCLIP", U_NET),
    (r"svd", "SVD", U_NET),
    (r"stable_cascade", "Stable Cascade", U_NET),
    (r"sd3\.5|sd3_5", "SD3.5", True),
    (r"sd3", "SD3", True),
    (r"flux-2|flux2", "Flux 2", True),
    (r"flux", "Flux", True),
    (r"vace", "Wan VACE", True),
    (r"dancer", "Wan Dancer", True),
    (r"wan2[._]?1.*(i2v|flf2v|fun_inp|wanmove)|chrono_edit", "Wan 2.1 image to video", True),
    (r"wan2\.2_ti2v", "Wan 2.2 5B", True),
    (r"wan2\.2_(i2v|t2v)", "Wan 2.2, two experts", True),
    (r"wan2\.[12]_t2v", "Wan 2.1 text to video", True),
    (r"camera", "Wan camera", True),
    (r"fun_(control|inpaint)", "Wan Fun", True),
    (r"causvid|self_forcing|causal", "Wan, autoregressive", None),
    (r"humo", "Wan HuMo", True),
    (r"s2v", "Wan sound to video", True),
    (r"animate", "Wan Animate", ALONE),
    (r"bernini", "Wan Bernini", True),
    (r"scail", "Wan SCAIL 2", True),
    (r"wan", "Wan, another kind", None),
    (r"qwen_image|qwen-image|firered", "Qwen-Image", True),
    (r"z_image|z-image", "Z-Image", True),
    (r"newbie", "NewBie (Lumina 2)", True),
    (r"lumina|netayume", "Lumina 2", True),
    (r"krea2", "Krea 2", True),
    (r"radiance", "Chroma Radiance", True),
    (r"chroma", "Chroma", True),
    (r"anima", "Anima", True),
    (r"cosmos", "Cosmos", True),
    (r"boogu", "Boogu", True),
    (r"omnigen2", "OmniGen2", True),
    (r"ideogram4", "Ideogram 4", True),
    (r"void", "VOID (CogVideoX)", True),
    (r"hunyuan_3d_v2\.1", "Hunyuan3D 2.1", BLOCKS),
    (r"hunyuan3d", "Hunyuan3D 2", True),
    (r"hunyuanvideo1\.5|capybara", "HunyuanVideo 1.5", True),
    (r"hunyuan_?video", "HunyuanVideo", True),
    (r"joyai", "JoyImage", True),
    (r"lens", "Lens", True),
    (r"mage_flow", "Mage Flow", True),
    (r"ltx-2\.5", "LTX-2.5", True),
    (r"ltx-2|ltx2", "LTX-2", True),
    (r"ltx", "LTX-Video", True),
    (r"stable-audio-open", "Stable Audio", True),
    (r"stable_audio_3", "Stable Audio 3", True),
    (r"ace_?step_v?1\.5", "ACE-Step 1.5", True),
    (r"ace_?step", "ACE-Step", ALONE),
    (r"hidream_o1", "HiDream O1", True),
    (r"hidream", "HiDream", True),
    (r"kandinsky5", "Kandinsky 5", True),
    (r"ernie", "Ernie-Image", True),
    (r"longcat", "LongCat-Image", True),
    (r"ovis", "Ovis-Image", True),
    (r"pixeldit", "PixelDiT", True),
    (r"triposplat", "TripoSplat", True),
    (r"seedvr2", "SeedVR2", True),
    (r"auraflow|aura_flow", "AuraFlow", True),
    (r"pixart", "PixArt", True),
    (r"mochi", "Mochi", True),
    (r"minimax_music", "MiniMax Music", BLOCKS),
    (r"minimax", "MiniMax-H3", True),
)  # fmt: skip


@dataclass
class Sampling:
    """What one sampler of a prompt does. None: the prompt does not say it as a number."""

    node: str
    kind: str
    files: list[str]
    chain: list[str]
    cfg: float | None
    branches: int | None
    steps: int | None
    batch: int | None
    controls: bool
    hooks: bool
    zero: bool  # reference latents at timestep zero
    sampler: str  # the classes of SamplerCustom's sampler
    zeroed: bool = False  # the negative prompt, by ConditioningZeroOut

    @property
    def family(self) -> str:
        return family_of(self.files[0])[0]


def family_of(file: str) -> tuple[str, bool | str | None]:
    """A file's family, and whether its forwards are divided by tokens."""
    for form, name, tokens in FAMILIES:
        if re.search(form, file.lower()):
            return name, tokens
    return "not known", None


# -- reading a prompt


def types(info: dict) -> dict[str, str]:
    """The types of the inputs of a node class that are no list of choices, from the server's /object_info."""
    groups = (group for group in info["input"].values() if isinstance(group, dict))
    return {name: spec[0] for group in groups for name, spec in group.items() if isinstance(spec[0], str)}


def is_link(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)


def places(prompt: dict, infos: dict) -> Iterator[tuple[str, str]]:
    """Where a model is sampled with, as the page's code sees it: (node, the first linked input for a model)."""
    for node, told in prompt.items():
        info = infos.get(told["class_type"])
        if info is None or "MODEL" in info["output"] or not SAMPLED & set(info["output"]):
            continue
        linked = (name for name, kind in types(info).items() if kind == "MODEL" and is_link(told["inputs"].get(name)))
        if (first := next(linked, None)) is not None:
            yield node, first


class Prompt:
    """A prompt, followed upstream."""

    def __init__(self, nodes: dict, infos: dict):
        self.nodes, self.infos = nodes, infos

    def inputs(self, node: str) -> dict:
        return self.nodes[node]["inputs"]

    def kind(self, node: str) -> str:
        return self.nodes[node]["class_type"] or "a missing node"

    def chosen(self, link: object) -> object:
        """A link or value, with switches and nodes that stand for a number gone through."""
        while is_link(link) and link[0] in self.nodes:
            given = self.inputs(link[0])
            if self.kind(link[0]) == "ComfySwitchNode":
                link = given.get("on_true" if self.chosen(given.get("switch")) else "on_false")
            elif "value" in given and self.kind(link[0]).startswith("Primitive"):
                link = given["value"]
            elif self.kind(link[0]) == "ComfyNumberConvert":
                link = given.get("value")
            else:
                break
        return link

    def number(self, value: object) -> float | None:
        value = self.chosen(value)
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None

    def upstream(self, link: object, kinds: set[str], seen: dict[str, None] | None = None) -> dict[str, None]:
        """The nodes upstream of a link, in order, over inputs of these types."""
        seen = {} if seen is None else seen
        link = self.chosen(link)
        if not is_link(link) or link[0] in seen or link[0] not in self.nodes:
            return seen
        seen[link[0]] = None
        told = types(self.infos[self.kind(link[0])]) if self.kind(link[0]) in self.infos else {}
        for name, value in self.inputs(link[0]).items():
            if told.get(name) in kinds:
                self.upstream(value, kinds, seen)
        return seen

    def files(self, nodes: dict[str, None]) -> Iterator[str]:
        for node in nodes:
            if "LORA" not in self.kind(node).upper():
                for value in map(self.chosen, self.inputs(node).values()):
                    if isinstance(value, str) and FILE.search(value):
                        yield re.split(r"[\\/]", value)[-1]
                        break


def samplings(nodes: dict, infos: dict) -> list[Sampling]:
    """Every sampling of a prompt: KSampler's, and one for each guider and sampler that are linked."""
    prompt = Prompt(nodes, infos)
    return [made for node, name in places(nodes, infos) for made in _of(prompt, node, name)]


def _of(prompt: Prompt, node: str, model: str) -> Iterator[Sampling]:
    given = prompt.inputs(node)
    chain = prompt.upstream(given[model], {"MODEL"})
    *changes, loader = chain
    conds = [
        value for name, value in given.items() if name in ("positive", "conditioning", "cond1", "cond2", "negative")
    ]
    behind: dict[str, None] = {}  # the conds
    for cond in conds:
        prompt.upstream(cond, {"CONDITIONING", "CONTROL_NET"}, behind)
    kinds = [prompt.kind(other) for other in behind]
    zeroed = {prompt.kind(other) for other in prompt.upstream(given.get("negative"), {"CONDITIONING"})}
    zero = any(prompt.inputs(other).get("reference_latents_method") == ZERO for other in behind)
    cfg, branches = _branches(prompt, node)
    samplers = [node] if prompt.kind(node) in SAMPLERS else _users(prompt, node)
    for sampler in samplers:
        told = prompt.inputs(sampler)
        objects = prompt.upstream(told.get("sampler"), {"SAMPLER"})
        yield Sampling(
            node=sampler,
            kind=" + ".join(dict.fromkeys((prompt.kind(sampler), prompt.kind(node)))),
            files=list(prompt.files({loader: None})) or [prompt.kind(loader)],
            chain=sorted({prompt.kind(change) for change in changes}),
            cfg=cfg,
            branches=branches,
            steps=_steps(prompt, sampler),
            batch=_batch(prompt, told.get("latent_image")),
            controls=any(map(CONTROLS.search, kinds)),
            hooks=any(map(HOOKS.search, kinds)),
            zero=zero,
            sampler=", ".join(map(prompt.kind, objects)),
            zeroed="ConditioningZeroOut" in zeroed,
        )


def _users(prompt: Prompt, guider: str) -> list[str]:
    found = [
        node
        for node, told in prompt.nodes.items()
        if guider in prompt.upstream(told["inputs"].get("guider"), {"GUIDER"})
    ]
    return [node for node in found if prompt.kind(node) in SAMPLERS]


def _branches(prompt: Prompt, node: str) -> tuple[float | None, int | None]:
    """The CFG of a sampler or guider, and how many branches it asks for in a call."""
    kind, given = prompt.kind(node), prompt.inputs(node)
    if kind == "BasicGuider":
        return 1.0, 1
    if kind == "DualCFGGuider":
        scales = [prompt.number(given.get(name)) for name in ("cfg_conds", "cfg_cond2_negative")]
        return (None, None) if None in scales else (max(scales), 1 + sum(scale != 1 for scale in scales))
    scales = [prompt.number(given.get(name)) for name in CFGS if name in given]
    cfg = None if None in scales or not scales else max(scales)
    if kind == "DualModelGuider":
        return cfg, 1  # one by one
    return cfg, None if cfg is None else 1 + (cfg != 1)


def _steps(prompt: Prompt, sampler: str) -> int | None:
    told = prompt.inputs(sampler)
    if prompt.kind(sampler) in ("KSampler", "KSamplerAdvanced"):
        steps = prompt.number(told.get("steps"))
        first, end = (prompt.number(told.get(name)) for name in ("start_at_step", "end_at_step"))
        return None if steps is None else int(min(end or steps, steps) - (first or 0))
    for node in prompt.upstream(told.get("sigmas"), {"SIGMAS"}):
        given = prompt.inputs(node)
        if (steps := prompt.number(given.get("steps"))) is not None:
            return int(steps)
        if isinstance(given.get("sigmas"), str):
            return len(re.findall(r"[\d.]+", given["sigmas"])) - 1
    return None


def _batch(prompt: Prompt, latent: object) -> int | None:
    """The latent's batch: what the nodes that make it say, 1 where they say nothing."""
    most = 1
    for node in prompt.upstream(latent, {"LATENT"}):
        for name in ("batch_size", "amount"):
            if name in prompt.inputs(node):
                count = prompt.number(prompt.inputs(node)[name])
                if count is None:
                    return None
                most = max(most, int(count))
    return most


# -- how it is shared


def way(made: Sampling) -> tuple[str, str]:
    """("conds", "rows", "tokens", "graph", "not" or "not told", why)."""
    kept = next((STATEFUL[kind] for kind in (*made.chain, *made.sampler.split(", ")) if kind in STATEFUL), None)
    if kept:
        return "not", kept
    if "SkipLayerGuidanceDiTSimple" in made.chain:
        return "not", "SkipLayerGuidanceDiTSimple asks for one branch at a time, with other layers"
    if made.branches is None or made.batch is None:
        return "not told", "CFG or batch are computed by nodes"
    code = sorted(set(made.chain) - PLAIN)
    if code:
        if made.branches > 1 or made.batch > 1:
            return "graph", f"code of {', '.join(code)} in the network"
        tried = set(code) <= DIVIDED and family_of(made.files[0])[1] is True
        if tried and not made.hooks:
            return "graph", f"code of {', '.join(code)} in the network, by tokens"
        return "not told", f"one branch, and tokens with code of {', '.join(code)} not tried"
    if made.hooks:
        return "not", "a LoRA on the prompt"
    if "DualModelGuider" in made.kind and made.cfg != 1:
        return "conds", "each of the two models on a device of its own"
    if made.branches > 1 and made.family in TOGETHER and not made.zeroed:
        return "not", f"{made.family} gives something else where each prompt is computed by itself"
    if made.branches > 1:
        return "conds", ""
    if made.batch > 1:
        return "rows", ""
    name, tokens = family_of(made.files[0])
    if any("ContextWindows" in kind for kind in made.chain):
        return "not", "one branch, in context windows: the network is run more than once for a prompt"
    if tokens is True:
        return "tokens", ""
    if tokens:
        return "not", f"one branch of {name}: {tokens}"
    return "not told", f"one branch, and tokens of {name} not tried"


def costliest(made: Sequence[Sampling]) -> Sampling:
    """The one with most steps; of several the one that is shared least."""
    return max(made, key=lambda one: (one.steps or 0, way(one)[0] in UNSHARED))
