"""A workflow's card in ComfyUI's template browser: its title, and two devices that share its steps."""

from __future__ import annotations

import colorsys

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT, EDGE = 720, 480, 48
STEPS, LANE = 9, 34
NAMES = ("GPU 0", "GPU 1")


def card(title: str, hue: float) -> Image.Image:
    """The card of a title of one or two lines; `hue`, 0 to 1, tells it from others."""
    ground, ink, strong = (_colour(hue, *tone) for tone in ((0.12, 0.97), (0.75, 0.22), (0.72, 0.62)))
    image = Image.new("RGB", (WIDTH, HEIGHT), ground)
    pen = ImageDraw.Draw(image)
    first, *second = title.split("\n")
    pen.text((EDGE, EDGE), first, fill=ink, font=ImageFont.load_default(64))
    for line in second:
        pen.text((EDGE, EDGE + 82), line, fill=strong, font=ImageFont.load_default(40))
    letters = ImageFont.load_default(28)
    left = EDGE + 110
    column = (WIDTH - EDGE - left) / STEPS
    for lane, name in enumerate(NAMES):
        top = HEIGHT - EDGE - (len(NAMES) - lane) * (LANE + 16)
        pen.text((EDGE, top + LANE / 2), name, fill=ink, font=letters, anchor="lm")
        for step in range(STEPS):
            x = left + step * column
            pen.rounded_rectangle((x, top, x + column - 7, top + LANE), 7, fill=strong)
    return image


def _colour(hue: float, saturation: float, value: float) -> tuple[int, ...]:
    return tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value))
