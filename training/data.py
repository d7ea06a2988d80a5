"""The emoji of a colour font as captioned images, and the captions kept for evaluation."""

import html
import random
import re

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
NAMES = "/usr/share/unicode/cldr/common/annotations/en.xml"


def draw(font: ImageFont.FreeTypeFont, character: str, size: int) -> torch.Tensor:
    """One glyph centred on white, (3, size, size) in 0..1."""
    canvas = Image.new("RGB", (136, 136), "white")
    left, top, right, bottom = font.getbbox(character)
    where = ((136 - right - left) / 2, (136 - bottom - top) / 2)
    ImageDraw.Draw(canvas).text(where, character, font=font, embedded_color=True)
    pixels = np.asarray(canvas.resize((size, size), Image.Resampling.LANCZOS), dtype=np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)


def load_emoji(font_path: str = FONT, names_path: str = NAMES, size: int = 64) -> tuple[list[str], torch.Tensor]:
    """Captions (CLDR short names) and images (n, 3, size, size) of the font's single-codepoint emoji."""
    with open(names_path, encoding="utf-8") as file:
        named = re.findall(r'<annotation cp="([^"])" type="tts">([^<]+)<', file.read())
    font = ImageFont.truetype(font_path, 109, layout_engine=ImageFont.Layout.BASIC)
    missing = draw(font, "\ue000", size)
    images = {}
    for character, name in named:
        if ord(character) < 0xA9:
            continue
        image = draw(font, character, size)
        if not (torch.equal(image, missing) or image.min() > 0.99):
            images.setdefault(html.unescape(name), image)
    return list(images), torch.stack(list(images.values()))


def evaluation_set(captions: list[str], count: int = 64, seed: int = 2024) -> dict[str, list[dict]]:
    """`count` captions with a seed each, half for choosing settings and half for reporting."""
    chooser = random.Random(seed)  # noqa: S311
    chosen = [{"caption": caption, "seed": chooser.randrange(2**31)} for caption in chooser.sample(captions, count)]
    return {"choosing": chosen[: count // 2], "reporting": chosen[count // 2 :]}
