"""A workflow's card in ComfyUI's template browser: its title, and what it makes, or two GPUs that share its steps."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT, EDGE = 720, 480, 40
STEPS, LANE = 9, 34
NAMES = ("GPU 0", "GPU 1")
SIDE, BETWEEN = 250, 46  # of a picture that was drawn, and what is between two of them
Drawn = Sequence[tuple[str, Image.Image]]  # captions and pictures, in their order


def card(title: str, hue: float, drawn: Drawn = (), arrows: bool = False) -> Image.Image:
    """The card of a title of one or two lines; `hue`, 0 to 1, tells it from others. Up to three pictures.

    `arrows` lead from a picture to the next.
    """
    ground, ink, strong = (_colour(hue, *tone) for tone in ((0.12, 0.97), (0.75, 0.22), (0.72, 0.62)))
    image = Image.new("RGB", (WIDTH, HEIGHT), ground)
    pen = ImageDraw.Draw(image)
    first, *second = title.split("\n")
    pen.text((EDGE, EDGE - 12), first, fill=ink, font=ImageFont.load_default(60))
    for line in second:
        pen.text((EDGE, EDGE + 62), line, fill=strong, font=ImageFont.load_default(36))
    if drawn:
        _pictures(image, drawn, arrows, ink, strong)
    else:
        _lanes(pen, ink, strong, WIDTH - EDGE)
    return image


def _pictures(image: Image.Image, drawn: Drawn, arrows: bool, ink: tuple, strong: tuple) -> None:
    pen, letters = ImageDraw.Draw(image), ImageFont.load_default(24)
    side = min(SIDE, (WIDTH - 2 * EDGE - BETWEEN * (len(drawn) - 1)) // len(drawn))
    top = HEIGHT - EDGE - 30 - side
    left = WIDTH - EDGE - len(drawn) * side - (len(drawn) - 1) * BETWEEN
    if len(drawn) < 2:
        _lanes(pen, ink, strong, left - 30, steps=5)
    elif len(drawn) == 2:
        left = (WIDTH - 2 * side - BETWEEN) // 2
    for place, (caption, picture) in enumerate(drawn):
        x = left + place * (side + BETWEEN)
        shown = picture.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
        corners = Image.new("L", (side, side), 0)
        ImageDraw.Draw(corners).rounded_rectangle((0, 0, side - 1, side - 1), 16, fill=255)
        image.paste(shown, (x, top), corners)
        pen.text((x + side / 2, top + side + 18), caption, fill=ink, font=letters, anchor="mm")
        if place and arrows:
            y, end = top + side / 2, x - 10
            pen.line((end - BETWEEN + 20, y, end - 4, y), fill=strong, width=6)
            pen.polygon(((end, y), (end - 14, y - 12), (end - 14, y + 12)), fill=strong)


def _lanes(pen: ImageDraw.ImageDraw, ink: tuple, strong: tuple, right: float, steps: int = STEPS) -> None:
    letters = ImageFont.load_default(28)
    left = EDGE + 110
    column = (right - left) / steps
    for lane, name in enumerate(NAMES):
        top = HEIGHT - EDGE - (len(NAMES) - lane) * (LANE + 16)
        pen.text((EDGE, top + LANE / 2), name, fill=ink, font=letters, anchor="lm")
        for step in range(steps):
            x = left + step * column
            pen.rounded_rectangle((x, top, x + column - 7, top + LANE), 7, fill=strong)


def _colour(hue: float, saturation: float, value: float) -> tuple[int, ...]:
    return tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value))
