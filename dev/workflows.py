"""Write workflows/*.json against the nodes of a real ComfyUI, so that widgets are always in their order.

    python dev/workflows.py [--blueprint]

Made with ComfyUI 0.29 (COMFYUI_PATH), which newer ones can read; of 0.33 it does not know SaveVideo's nested widgets.
Each gets a card as its picture (dev/cards.py, Pillow). --blueprint also makes the subgraph in subgraphs/ of the first
one, in a browser (Playwright, Chromium).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import uuid
from pathlib import Path

PACK = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PACK))
from dev.cards import card  # noqa: E402
from dev.examples import CHANGING, drawn  # noqa: E402
from tests.host.comfy_server import Comfy, find_comfyui, make_models  # noqa: E402

FLOWS = PACK / "workflows"
COLUMN, GAP, TITLE = 400, 30, 34
# what nodes draw below their widgets, and how high it is
DRAWN = {
    "SaveImage": 330, "PreviewImage": 330, "SaveVideo": 330, "HybridiffKSampler": 250, "HybridiffModel": 250,
    "HybridiffPlan": 220, "HybridiffReport": 420, "HybridiffCompare": 110,
}  # fmt: skip
PLAIN = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
PROMPT, NOT = "a lighthouse on a cliff at dusk, oil painting", "blurry, low quality"
SDXL, SD35 = "sd_xl_base_1.0.safetensors", "sd3.5_large_fp8_scaled.safetensors"
CANNY, LORA = "sd3.5_large_controlnet_canny.safetensors", "sd_xl_offset_example-lora_1.0.safetensors"
WAN, WAN_VAE = "wan2.1_t2v_1.3B_fp16.safetensors", "wan_2.1_vae.safetensors"
UMT5 = "umt5_xxl_fp8_e4m3fn_scaled.safetensors"
Output = tuple[int, int]


def is_widget(kind: object) -> bool:
    return isinstance(kind, list) or kind in PLAIN


class Flow:
    """A workflow as the page saves it. Nodes are put into columns, one below the other."""

    def __init__(self, infos: dict, name: str, note: str):
        self.infos, self.name = infos, name
        self.nodes: list[dict] = []
        self.links: list[list] = []
        self.ends: dict[int, int] = {}
        self.note = note
        self._place("MarkdownNote", 0, 240, "Read me", [note], [], [])

    def add(self, column: int, kind: str, title: str = "", **given) -> Output:
        """Add a node with widgets' values and, as (node, output), links by their inputs' names; its first output."""
        info, number = self.infos[kind], len(self.nodes) + 1
        values, inputs, rows, drawn = [], [], 0, 0
        names = [(group, name) for group in ("required", "optional") for name in info["input_order"].get(group, [])]
        unknown = given.keys() - {name for _, name in names}
        assert not unknown, f"{kind} has no {unknown}"
        for group, name in names:
            of, *options = info["input"][group][name]
            options = options[0] if options else {}
            linked = isinstance(given.get(name), tuple)
            if linked or not is_widget(of):
                assert linked or group == "optional", f"{kind} needs {name}"
                link = None
                if linked:
                    source, slot = given[name]
                    link = len(self.links) + 1
                    self.links.append([link, source, slot, number, len(inputs), of])
                    output = self.nodes[source - 1]["outputs"][slot]
                    output["links"] = [*(output["links"] or []), link]
                inputs.append({"name": name, "type": of, "link": link})
                continue
            choices = of if isinstance(of, list) else options.get("options", [])
            values.append(given.get(name, options.get("default", choices[0] if choices else "")))
            if options.get("control_after_generate"):
                values.append("randomize" if self.name != "compare" else "fixed")
                rows += 1
            if options.get("image_upload"):
                values.append("image")
                drawn += 200
            rows += 4 if options.get("multiline") else 1
        outputs = [{"name": n, "type": t, "links": None} for n, t in zip(info["output_name"], info["output"])]
        drawn += DRAWN.get(kind, 0)
        height = TITLE + 22 * max(len(inputs), len(outputs)) + 27 * rows + drawn
        self._place(kind, column, height, title, values, inputs, outputs)
        return number, 0

    def _place(self, kind: str, column: int, height: int, title: str, values: list, inputs: list, outputs: list):
        top = self.ends.get(column, 0)
        self.ends[column] = top + height + TITLE + GAP
        node = {
            "id": len(self.nodes) + 1, "type": kind, "pos": [column * COLUMN, top], "size": [COLUMN - 50, height],
            "flags": {}, "order": len(self.nodes), "mode": 0, "inputs": inputs, "outputs": outputs,
            "properties": {"Node name for S&R": kind}, "widgets_values": values,
        }  # fmt: skip
        if models := [model for model in MODELS if model["name"] in values]:
            node["properties"]["models"] = models  # the page offers to fetch those that are missing
        self.nodes.append({**node, "title": title} if title else node)

    def to_dict(self) -> dict:
        chosen = [model["name"] for node in self.nodes for model in node["properties"].get("models", ())]
        self.nodes[0]["widgets_values"] = [f"{self.note}\n\nModels: {', '.join(chosen)}, or yours."]
        return {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"hybridiff/{self.name}")), "revision": 0,
            "last_node_id": len(self.nodes), "last_link_id": len(self.links), "nodes": self.nodes,
            "links": self.links, "groups": [], "config": {}, "extra": {"ds": {"scale": 0.7, "offset": [40, 60]}},
            "version": 0.4,
        }  # fmt: skip


def out(node: Output, slot: int) -> Output:
    return node[0], slot


def words(flow: Flow, clip: Output, prompt: str = PROMPT) -> dict:
    return {
        "positive": flow.add(1, "CLIPTextEncode", "Prompt", clip=clip, text=prompt),
        "negative": flow.add(1, "CLIPTextEncode", "Negative prompt", clip=clip, text=NOT),
    }


def finish(flow: Flow, latent: Output, vae: Output, column: int = 3) -> Output:
    picture = flow.add(column, "VAEDecode", samples=latent, vae=vae)
    flow.add(column, "SaveImage", images=picture, filename_prefix="hybridiff")
    return picture


def text_to_image_sdxl(flow: Flow) -> None:
    loader = flow.add(0, "CheckpointLoaderSimple", ckpt_name=SDXL)
    given = words(flow, out(loader, 1))
    empty = flow.add(1, "EmptyLatentImage", width=1024, height=1024)
    latent = flow.add(
        2, "HybridiffKSampler", model=loader, latent_image=empty, steps=30, cfg=6.0, sampler_name="euler",
        scheduler="normal", **given,
    )  # fmt: skip
    finish(flow, latent, out(loader, 2))
    flow.add(3, "HybridiffReport", report=out(latent, 1))


def text_to_image_sd35(flow: Flow) -> None:
    loader = flow.add(0, "CheckpointLoaderSimple", ckpt_name=SD35)
    given = words(flow, out(loader, 1))
    empty = flow.add(1, "EmptySD3LatentImage", width=1024, height=1024)
    latent = flow.add(
        2, "HybridiffKSampler", model=loader, latent_image=empty, steps=28, cfg=4.5, sampler_name="euler",
        scheduler="simple", **given,
    )  # fmt: skip
    finish(flow, latent, out(loader, 2))


def image_to_image(flow: Flow) -> None:
    loader = flow.add(0, "CheckpointLoaderSimple", ckpt_name=SDXL)
    given = words(flow, out(loader, 1))
    picture = flow.add(1, "LoadImage", image="example.png")
    latent = flow.add(
        2, "HybridiffKSampler", model=loader, steps=30, cfg=6.0, sampler_name="euler", scheduler="normal", denoise=0.6,
        latent_image=flow.add(1, "VAEEncode", pixels=picture, vae=out(loader, 2)), **given,
    )  # fmt: skip
    finish(flow, latent, out(loader, 2))


def inpaint(flow: Flow) -> None:
    loader = flow.add(0, "CheckpointLoaderSimple", ckpt_name=SDXL)
    given = words(flow, out(loader, 1))
    picture = flow.add(1, "LoadImage", "Picture with a mask", image="example.png")
    encoded = flow.add(1, "VAEEncode", pixels=picture, vae=out(loader, 2))
    masked = flow.add(1, "SetLatentNoiseMask", samples=encoded, mask=out(picture, 1))
    latent = flow.add(
        2, "HybridiffKSampler", model=loader, latent_image=masked, steps=30, cfg=6.0, sampler_name="euler",
        scheduler="normal", denoise=0.9, **given,
    )  # fmt: skip
    finish(flow, latent, out(loader, 2))


def controlnet(flow: Flow) -> None:
    loader = flow.add(0, "CheckpointLoaderSimple", ckpt_name=SD35)
    text = words(flow, out(loader, 1))
    control = flow.add(0, "ControlNetLoader", control_net_name=CANNY)
    picture = flow.add(1, "LoadImage", image="example.png")
    edges = flow.add(1, "Canny", image=picture)
    given = flow.add(
        1, "ControlNetApplyAdvanced", control_net=control, image=edges, vae=out(loader, 2), strength=0.7,
        end_percent=0.8, **text,
    )  # fmt: skip
    latent = flow.add(
        2, "HybridiffKSampler", model=loader, steps=28, cfg=4.5, sampler_name="euler", scheduler="simple",
        positive=given, negative=out(given, 1),
        latent_image=flow.add(1, "EmptySD3LatentImage", width=1024, height=1024),
    )  # fmt: skip
    finish(flow, latent, out(loader, 2))


def lora(flow: Flow) -> None:
    loader = flow.add(0, "CheckpointLoaderSimple", ckpt_name=SDXL)
    changed = flow.add(
        0, "LoraLoader", model=loader, clip=out(loader, 1), lora_name=LORA,
        strength_model=0.5,
    )  # fmt: skip
    given = words(flow, out(changed, 1))
    empty = flow.add(1, "EmptyLatentImage", width=1024, height=1024)
    latent = flow.add(
        2, "HybridiffKSampler", model=changed, latent_image=empty, steps=30, cfg=6.0, sampler_name="euler",
        scheduler="normal", **given,
    )  # fmt: skip
    finish(flow, latent, out(loader, 2))


def sampler_custom_advanced(flow: Flow) -> None:
    loader = flow.add(0, "CheckpointLoaderSimple", ckpt_name=SDXL)
    text = words(flow, out(loader, 1))
    model = flow.add(2, "HybridiffModel", model=loader)
    latent = flow.add(
        3, "SamplerCustomAdvanced",
        noise=flow.add(1, "RandomNoise"),
        guider=flow.add(2, "CFGGuider", model=model, cfg=6.0, **text),
        sampler=flow.add(1, "KSamplerSelect", sampler_name="euler"),
        sigmas=flow.add(2, "BasicScheduler", model=model, scheduler="karras", steps=30),
        latent_image=flow.add(1, "EmptyLatentImage", width=1024, height=1024),
    )  # fmt: skip
    finish(flow, latent, out(loader, 2))


def compare(flow: Flow) -> None:
    loader = flow.add(0, "CheckpointLoaderSimple", ckpt_name=SDXL)
    text = words(flow, out(loader, 1))
    same = {
        "model": loader, "latent_image": flow.add(1, "EmptyLatentImage", width=1024, height=1024), "seed": 1,
        "steps": 30, "cfg": 6.0, "sampler_name": "euler", "scheduler": "normal", **text,
    }  # fmt: skip
    ours = flow.add(2, "HybridiffKSampler", picture="close to it, faster", **same)
    stock = flow.add(2, "KSampler", **same)
    pictures = [flow.add(3, "VAEDecode", samples=latent, vae=out(loader, 2)) for latent in (stock, ours)]
    compared = flow.add(3, "HybridiffCompare", a=pictures[0], b=pictures[1])
    for title, picture in zip(("KSampler", "Hybridiff", "Difference"), (*pictures, out(compared, 3))):
        flow.add(4, "PreviewImage", title, images=picture)


def text_to_video_wan(flow: Flow) -> None:
    model = flow.add(0, "UNETLoader", unet_name=WAN)
    clip = flow.add(0, "CLIPLoader", clip_name=UMT5, type="wan")
    vae = flow.add(0, "VAELoader", vae_name=WAN_VAE)
    given = words(flow, clip, "a fox running through fresh snow, slow motion")
    empty = flow.add(1, "EmptyHunyuanLatentVideo", width=832, height=480, length=33)
    shifted = flow.add(1, "ModelSamplingSD3", model=model, shift=8.0)
    latent = flow.add(
        2, "HybridiffKSampler", model=shifted, latent_image=empty, steps=30, cfg=6.0, sampler_name="euler",
        scheduler="simple", **given,
    )  # fmt: skip
    frames = flow.add(3, "VAEDecode", samples=latent, vae=vae)
    flow.add(3, "SaveVideo", video=flow.add(3, "CreateVideo", images=frames, fps=16.0))


def paper_modes(flow: Flow) -> None:
    loader = flow.add(0, "CheckpointLoaderSimple", ckpt_name=SDXL)
    empty = flow.add(1, "EmptyLatentImage", width=1024, height=1024)
    latent = flow.add(
        2, "HybridiffKSampler", model=loader, latent_image=empty, steps=50, cfg=5.0, sampler_name="ddim",
        scheduler="ddim_uniform", **words(flow, out(loader, 1)), devices=flow.add(0, "HybridiffDevices"),
        plan=flow.add(0, "HybridiffPlan", mode="paper", preset="SDXL (paper)", slope_window=12, warmup_cap=15,
                      parallel_steps=5),
    )  # fmt: skip
    finish(flow, latent, out(loader, 2))
    flow.add(2, "HybridiffReport", report=out(latent, 1))


# each with its name in the template browser, where no other pack's template may have it, its card's title, and its note
MAKERS = {
    text_to_image_sdxl: (
        "Hybridiff text to image SDXL",
        "Text to image\nSDXL",
        "SDXL on two GPUs. The Report says what each of them did.",
    ),
    text_to_image_sd35: (
        "Hybridiff text to image SD3",
        "Text to image\nStable Diffusion 3.5",
        "Stable Diffusion 3.5 on two GPUs.",
    ),
    image_to_image: (
        "Hybridiff image to image",
        "Image to image",
        "A picture drawn anew from another one. Lower *denoise* keeps more of it.",
    ),
    inpaint: (
        "Hybridiff inpainting",
        "Inpainting",
        "Right-click the picture, *Open in MaskEditor*, and paint over what is to be drawn anew.",
    ),
    controlnet: ("Hybridiff ControlNet", "ControlNet", "The ControlNet runs on both GPUs too."),
    lora: ("Hybridiff LoRA", "LoRA", "Each GPU loads the model with the LoRA."),
    sampler_custom_advanced: (
        "Hybridiff any other sampler",
        "Any other sampler",
        "**Hybridiff Model** goes last on the model, before the sampler.",
    ),
    compare: (
        "Hybridiff compared with KSampler",
        "Compare",
        "The same seed by KSampler, and by Hybridiff with some steps predicted: how close are they?",
    ),
    text_to_video_wan: ("Hybridiff text to video Wan", "Text to video\nWan 2.1", "A video by Wan 2.1 on two GPUs."),
    paper_modes: (
        "Hybridiff modes of the paper",
        "The paper's modes",
        "For experts: the plan sets the paper's own method. Try its other modes.",
    ),
}

HUB = "https://huggingface.co"
WAN_FILES = f"{HUB}/Comfy-Org/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files"
MODELS = [
    {"name": url.rsplit("/", 1)[1], "url": url, "directory": folder}
    for folder, url in (
        ("checkpoints", f"{HUB}/stabilityai/stable-diffusion-xl-base-1.0/resolve/main/{SDXL}"),
        ("checkpoints", f"{HUB}/Comfy-Org/stable-diffusion-3.5-fp8/resolve/main/{SD35}"),
        ("loras", f"{HUB}/stabilityai/stable-diffusion-xl-base-1.0/resolve/main/{LORA}"),
        ("controlnet", f"{HUB}/Comfy-Org/stable-diffusion-3.5-controlnets_ComfyUI_repackaged/resolve/main/"
                       f"split_files/controlnet/{CANNY}"),
        ("diffusion_models", f"{WAN_FILES}/diffusion_models/{WAN}"),
        ("text_encoders", f"{WAN_FILES}/text_encoders/{UMT5}"),
        ("vae", f"{WAN_FILES}/vae/{WAN_VAE}"),
    )
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blueprint", action="store_true")
    options = parser.parse_args()
    root = find_comfyui()
    if root is None:
        sys.exit("no ComfyUI is to be found; set COMFYUI_PATH")
    make_models(root)
    with tempfile.TemporaryDirectory() as folder:
        comfy = Comfy(root, Path(folder) / "base")
        try:
            infos = comfy.get("/object_info")
            pictures = {maker.__name__: drawn(comfy, maker.__name__) for maker in MAKERS}
        finally:
            comfy.stop()
    for place, (maker, (name, title, note)) in enumerate(MAKERS.items()):
        flow = Flow(infos, maker.__name__, note)
        maker(flow)
        (FLOWS / f"{name}.json").write_text(json.dumps(flow.to_dict(), indent=1) + "\n")
        made = card(title, place / len(MAKERS), pictures[maker.__name__], maker.__name__ in CHANGING)
        made.save(FLOWS / f"{name}.jpg", quality=88)
    if options.blueprint:
        from dev import blueprint

        with tempfile.TemporaryDirectory() as folder:
            sdxl = FLOWS / f"{MAKERS[text_to_image_sdxl][0]}.json"
            blueprint.make(root, Path(folder), json.loads(sdxl.read_text()))
    print(f"{len(MAKERS)} workflows")


if __name__ == "__main__":
    main()
