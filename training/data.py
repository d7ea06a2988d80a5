"""The emoji of a colour font as captioned pictures: their own colours, and some objects in other colours."""

import colorsys
import random
import re

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
NAMES = "/usr/share/unicode/emoji/emoji-test.txt"
SIZE = 128
SUBGROUPS = {
    "face-smiling", "face-hat", "face-glasses", "face-costume", "heart", "animal-mammal", "animal-bird",
    "animal-amphibian", "animal-reptile", "animal-marine", "animal-bug", "plant-flower", "plant-other", "food-fruit",
    "food-vegetable", "food-prepared", "food-marine", "food-sweet", "drink", "transport-water", "transport-air",
    "sky & weather", "musical-instrument", "geometric",
}  # fmt: skip
LEFT_OUT = re.compile(  # what looks too much like another, or is too fine for small pictures
    "medium|small |large square|button|diamond with|(waxing|waning|quarter|gibbous|new) |moon face|behind|cloud with"
    "|umbrella |departure|arrival|two-hump|water buffalo|mammoth|boar|ewe|guide|poodle|squinting|laughing|tears"
    "|big eyes|beaming|clinking|milky|shooting|suspension|cableway|tramway|motor|ferry|ship$|stuffed|pan of|pot of"
    "|falafel|tamale|fondue|flatbread|burrito|canned|mosquito|cockroach|cricket|worm|spider web|revolving|beating"
    "|heart decoration|exclamation|nest|without|front-facing|hatching|flat shoe|pouring|tumbler|dodo|oyster|seat"
)
HUES = {"red": 0, "orange": 28, "yellow": 50, "green": 125, "blue": 212, "purple": 275, "pink": 325}
RECOLOURED = (
    "cat", "fox", "frog", "butterfly", "crab", "fish", "rose", "maple leaf", "mushroom", "strawberry", "pear", "guitar",
    "umbrella", "crescent moon",
)  # fmt: skip


def read_names(path: str = NAMES) -> dict[str, str]:
    """Caption to character: the single-character emoji of SUBGROUPS, from Unicode's emoji-test.txt."""
    found, subgroup = {}, ""
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.startswith("# subgroup: "):
                subgroup = line.split(": ")[1].strip()
            row = re.match(r"([0-9A-F]+)( FE0F)? +; fully-qualified +# \S+ E[\d.]+ (.+)", line)
            if row and subgroup in SUBGROUPS and not LEFT_OUT.search(row[3]):
                found[row[3].lower()] = chr(int(row[1], 16))
    return found


def draw(font: ImageFont.FreeTypeFont, character: str) -> Image.Image:
    """One glyph centred on white."""
    canvas = Image.new("RGB", (136, 136), "white")
    left, top, right, bottom = font.getbbox(character)
    where = ((136 - right - left) / 2, (136 - bottom - top) / 2)
    ImageDraw.Draw(canvas).text(where, character, font=font, embedded_color=True)
    return canvas


def recolour(image: Image.Image, hue: float) -> Image.Image:
    """Every pixel with the hue (degrees); grey stays grey, and brightness is kept."""
    pixels = np.asarray(image, dtype=np.float32) / 255
    grey = pixels @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    strength = pixels.max(2) - pixels.min(2)
    pure = np.array(colorsys.hsv_to_rgb(hue / 360, 1, 1), dtype=np.float32)
    tint = grey[..., None] + strength[..., None] * (pure - 0.5 * pure @ np.array([0.299, 0.587, 0.114]) - 0.25)
    return Image.fromarray((tint.clip(0, 1) * 255).round().astype(np.uint8))


def place(image: Image.Image, scale: float, dx: int, dy: int) -> torch.Tensor:
    """The picture scaled about the centre and shifted, (3, SIZE, SIZE) in 0..1."""
    side = round(SIZE * scale)
    canvas = Image.new("RGB", (SIZE, SIZE), "white")
    corner = (SIZE - side) // 2
    canvas.paste(image.resize((side, side), Image.Resampling.LANCZOS), (corner + dx, corner + dy))
    return torch.from_numpy(np.asarray(canvas, dtype=np.float32) / 255).permute(2, 0, 1)


def load(font_path: str = FONT, names_path: str = NAMES) -> tuple[dict[str, Image.Image], dict[str, Image.Image]]:
    """Caption to picture: those to train on, and the combinations of colour and object held out."""
    font = ImageFont.truetype(font_path, 109, layout_engine=ImageFont.Layout.BASIC)
    missing = np.asarray(draw(font, "\ue000"))
    drawn = {caption: draw(font, character) for caption, character in read_names(names_path).items()}
    pictures = {
        caption: picture
        for caption, picture in drawn.items()
        if not np.array_equal(np.asarray(picture), missing) and np.asarray(picture).min() < 250
    }
    combined = {
        f"{colour} {name}": recolour(pictures[name], hue) for name in RECOLOURED for colour, hue in HUES.items()
    }
    held_out = sorted(random.Random(7).sample(sorted(combined), 16))  # noqa: S311
    kept = {caption: picture for caption, picture in combined.items() if caption not in held_out}
    return pictures | kept, {caption: combined[caption] for caption in held_out}


def variants(picture: Image.Image, count: int, chooser: random.Random) -> torch.Tensor:
    """The picture in `count` sizes and places, (count, 3, SIZE, SIZE) in 0..1."""
    return torch.stack(
        [
            place(picture, chooser.uniform(0.92, 1.0), chooser.randint(-4, 4), chooser.randint(-4, 4))
            for _ in range(count)
        ]
    )


def sheet(pictures: torch.Tensor, columns: int) -> Image.Image:
    """Pictures (n, 3, h, w) in 0..1 in rows, n a multiple of `columns`."""
    rows = pictures.unflatten(0, (-1, columns)).permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
    return Image.fromarray((rows * 255).round().byte().numpy())
