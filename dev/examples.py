"""Pictures for the workflows' cards: what such a workflow makes, with the small trained model in the place of its own.

Each is a real run in a real ComfyUI, by Hybridiff on two processes of this machine.
"""

from __future__ import annotations

from PIL import Image

from tests.host.comfy_server import Comfy, Graph
from tests.host.conftest import plan_values

SIZE, STEPS = 128, 24


class Example:
    """A graph on the small model, node by node; `draw` runs it."""

    def __init__(self, comfy: Comfy):
        self.comfy, self.graph, self.saved = comfy, Graph(), {}
        self.model = self.graph.add("UNETLoader", unet_name="emoji_dit.safetensors", weight_dtype="default")
        self.vae = self.graph.add("VAELoader", vae_name="emoji_dit_vae.safetensors")
        self.devices = self.graph.add("HybridiffDevices", device="same")
        self.empty = self.graph.add("EmptySD3LatentImage", width=SIZE, height=SIZE, batch_size=1)

    def words(self, text: str) -> list:
        return self.graph.add("HybridiffDemoWords", text=text)

    def sample(self, text: str, kind: str = "HybridiffKSampler", **given) -> list:
        """A latent of `text`."""
        ours = {"devices": self.devices} if kind.startswith("Hybridiff") else {}
        settings = {
            "model": self.model, "latent_image": self.empty, "seed": 2, "steps": STEPS, "cfg": 3.0,
            "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0, "positive": self.words(text),
            "negative": self.words(""), **ours, **given,
        }  # fmt: skip
        return self.graph.add(kind, **settings)

    def plan(self, **values) -> list:
        return self.graph.add("HybridiffPlan", **plan_values(**values))

    def decode(self, latent: list) -> list:
        return self.graph.add("VAEDecode", samples=latent, vae=self.vae)

    def show(self, caption: str, image: list) -> None:
        self.saved[caption] = self.graph.add("SaveImage", images=image, filename_prefix="card")[0]

    def draw(self) -> list[tuple[str, Image.Image]]:
        outputs = self.comfy.run(self.graph.nodes)
        folder = self.comfy.base / "output"
        found = []
        for caption, node in self.saved.items():
            (file,) = outputs[node]["images"]
            with Image.open(folder / file["subfolder"] / file["filename"]) as picture:
                found.append((caption, picture.convert("RGB")))
        return found


def _one(text: str, **given):
    def make(example: Example) -> None:
        example.show(text, example.decode(example.sample(text, **given)))

    return make


def _image_to_image(example: Example) -> None:
    before = example.decode(example.sample("red apple"))
    encoded = example.graph.add("VAEEncode", pixels=before, vae=example.vae)
    after = example.decode(example.sample("lemon", latent_image=encoded, denoise=0.75))
    example.show("red apple", before)
    example.show("lemon", after)


def _inpaint(example: Example) -> None:
    before = example.decode(example.sample("red heart"))
    encoded = example.graph.add("VAEEncode", pixels=before, vae=example.vae)
    whole = example.graph.add("SolidMask", value=0.0, width=SIZE, height=SIZE)
    half = example.graph.add("SolidMask", value=1.0, width=SIZE // 2, height=SIZE)
    mask = example.graph.add("MaskComposite", destination=whole, source=half, x=SIZE // 2, y=0, operation="add")
    masked = example.graph.add("SetLatentNoiseMask", samples=encoded, mask=mask)
    after = example.decode(example.sample("blue heart", latent_image=masked))
    example.show("red heart", before)
    example.show("right half: blue heart", after)


def _any_sampler(example: Example) -> None:
    graph = example.graph
    model = graph.add("HybridiffModel", model=example.model, devices=example.devices)
    guider = graph.add(
        "CFGGuider", model=model, positive=example.words("sunflower"), negative=example.words(""), cfg=3.0
    )
    latent = graph.add(
        "SamplerCustomAdvanced",
        noise=graph.add("RandomNoise", noise_seed=2),
        guider=guider,
        sampler=graph.add("KSamplerSelect", sampler_name="dpmpp_2m"),
        sigmas=graph.add("BasicScheduler", model=model, scheduler="simple", steps=STEPS, denoise=1.0),
        latent_image=example.empty,
    )
    example.show("sunflower", example.decode(latent))


def _compare(example: Example) -> None:
    stock = example.decode(example.sample("birthday cake", "KSampler"))
    ours = example.decode(example.sample("birthday cake", picture="close to it, faster"))
    compared = example.graph.add("HybridiffCompare", a=stock, b=ours)
    example.show("KSampler", stock)
    example.show("Hybridiff", ours)
    example.show("difference", [compared[0], 3])


def _paper(example: Example) -> None:
    exact = example.decode(example.sample("rocket"))
    paper = example.decode(example.sample("rocket", plan=example.plan(mode="paper", warmup="fixed", start_step=8,
                                                                      parallel_steps=4)))  # fmt: skip
    example.show("every step exact", exact)
    example.show("the paper's steps", paper)


# by the workflow's maker in dev/workflows.py; the others' kinds of model are not among ours
EXAMPLES = {
    "text_to_image_sdxl": _one("strawberry"),
    "text_to_image_sd35": _one("fox"),
    "image_to_image": _image_to_image,
    "inpaint": _inpaint,
    "sampler_custom_advanced": _any_sampler,
    "compare": _compare,
    "paper_modes": _paper,
}

CHANGING = {"image_to_image", "inpaint"}  # the first picture becomes the second


def drawn(comfy: Comfy, name: str) -> list[tuple[str, Image.Image]]:
    """Captions and pictures of what the workflow `name` makes; none where the small model cannot."""
    if name not in EXAMPLES:
        return []
    example = Example(comfy)
    EXAMPLES[name](example)
    return example.draw()
