"""A run's picture, as the live view shows it (web/view.js), drawn with Pillow, which ComfyUI always has."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from ..hybridiff_core.account import STAGES, bands, headline
from ..hybridiff_core.gain import name_of
from ..hybridiff_core.palette import FAINT, INK, KINDS, PANEL, REASON, STAGE_COLOURS
from ..hybridiff_core.phrases import say

WIDTH, CURVE = 1280, 300
GUTTER, RIGHT, BAND, MARKS, LANE, FOOT = 190, 24, 36, 36, 44, 56
LETTERS, LARGE, RESULT = (ImageFont.load_default(size) for size in (24, 30, 54))
LINE, LONGEST, MOST_LINES = 40, 82, 8  # of the headline: height, characters, how many


def figure(view: Mapping) -> Image.Image:
    """The picture of a view (account.timeline): what it came to, a lane a device, the difference's curve."""
    devices, steps = view["devices"], view["steps"]
    first, *more = headline(view)
    wrapped = [(text, place > 1) for place, line in enumerate(more, 1) for text in textwrap.wrap(line, LONGEST)]
    wrapped = wrapped[:MOST_LINES]
    lanes = 96 + LINE * len(wrapped)
    below = lanes + LANE * len(devices) + FOOT
    band = below + 40
    height = band + BAND + CURVE + MARKS + 8
    image = Image.new("RGB", (WIDTH, height), PANEL)
    pen = ImageDraw.Draw(image)
    count = max(view["total"], steps[-1]["step"] + 1 if steps else 0, 1)
    column = (WIDTH - GUTTER - RIGHT) / count
    top, bottom = band + BAND, band + BAND + CURVE

    def edge(step: float) -> float:
        return GUTTER + step * column

    pen.text((24, 14), first, fill=INK, font=RESULT)
    for place, (text, reason) in enumerate(wrapped):
        pen.text((24, 88 + LINE * place), text, fill=REASON if reason else FAINT, font=LARGE)
    _draw_lanes(image, pen, view, edge, lanes, column)
    _draw_legend(image, pen, lanes + LANE * len(devices))
    curve = curve_of(steps)
    _write(pen, (24, below), say("curve" if curve else "no_curve"), FAINT)
    found = bands(steps)
    for stage, begin, last in found:
        area = (edge(begin), band, edge(last + 1), band + BAND - 4)
        _fill(image, area, stage)
        pen.rectangle((area[0], top, area[2] - 1, bottom), fill=_mixed(STAGE_COLOURS[stage], 0.1))
        word = say(STAGES[stage])
        if LETTERS.getlength(word) + 16 <= area[2] - area[0]:
            middle, half = (area[0] + area[2]) / 2, LETTERS.getlength(word) / 2 + 8
            pen.rectangle((middle - half, band + 2, middle + half, band + BAND - 6), fill=PANEL)
            _write(pen, (middle, band + BAND / 2 - 3), word, anchor="mm")
    pen.line((GUTTER, bottom, WIDTH - RIGHT, bottom), fill=FAINT)
    if curve:
        _draw_curve(pen, curve, edge, top, bottom, column)
    _draw_marks(pen, found, edge, top, bottom)
    return image


def curve_of(steps: Sequence[Mapping]) -> list[tuple[int, float, bool]]:
    """A point a step: number, value, whether it was measured there; else it lies between its neighbours."""
    known = [(step["step"], step["rel_mae"]) for step in steps if step["rel_mae"] is not None]
    points = []
    for step in steps if known else ():
        number = step["step"]
        before = [point for point in known if point[0] <= number][-1:]
        after = [point for point in known if point[0] >= number][:1]
        (x0, y0), (x1, y1) = (before or after)[0], (after or before)[0]
        value = y0 if x0 == x1 else y0 + (y1 - y0) * (number - x0) / (x1 - x0)
        points.append((number, value, step["rel_mae"] is not None))
    return points


def _draw_curve(pen, curve, edge, top: float, bottom: float, column: float) -> None:
    highest = max(value for _, value, _ in curve) * 1.12 or 1.0
    points = [(edge(step + 0.5), bottom - value / highest * (bottom - top)) for step, value, _ in curve]
    _write(pen, (GUTTER - 10, top), f"{highest:.2g}", FAINT, "ra")
    _write(pen, (GUTTER - 10, bottom), "0", FAINT, "rs")
    pen.line(points, fill=INK, width=3, joint="curve")
    radius = min(6.0, max(column / 3, 2.0))
    for (x, y), (_, _, measured) in zip(points, curve):
        around = (x - radius, y - radius, x + radius, y + radius)
        pen.ellipse(around, fill=INK if measured else PANEL, outline=INK, width=2)


def _draw_marks(pen, found, edge, top: float, bottom: float) -> None:
    firsts = {stage: first for stage, first, _ in reversed(found)}
    if "parallelism" not in firsts:
        return
    limit = float("inf")  # tau1's label ends before tau2's begins
    for name, stage, right in (("tau2", "fully-connecting", True), ("tau1", "parallelism", False)):
        if stage not in firsts:
            continue
        x, label = edge(firsts[stage]), f"{name} {firsts[stage] - 1}"
        for y in range(int(top), int(bottom), 12):
            pen.line((x, y, x, y + 7), fill=INK, width=2)
        if right:
            limit = min(x + 6, WIDTH - 4 - LETTERS.getlength(label))
            _write(pen, (limit, bottom + 4), label)
        else:
            _write(pen, (min(x - 6, limit - 12), bottom + 4), label, anchor="ra")


def _draw_lanes(image, pen, view, edge, top: float, column: float) -> None:
    longest = [max((sum(times.values()) for times in step["times"]), default=0.0) for step in view["steps"]]
    whole = max(longest[1:] or longest or [0.0]) or 1.0
    for place, device in enumerate(view["devices"]):
        y, name = top + place * LANE, _lane_name(device)
        pen.rectangle((GUTTER, y + 4, WIDTH - RIGHT, y + LANE - 6), fill=_mixed("#ffffff", 0.04))
        _write(
            pen,
            (GUTTER - 10, y + LANE / 2),
            _short(name, GUTTER - 20),
            anchor="rm",
        )
        for step in view["steps"]:
            x, end = edge(step["step"]), edge(step["step"]) + column * 0.94
            for kind, seconds in step["times"][place].items():
                width = min(seconds / whole * column * 0.94, end - x)
                if width >= 1:
                    _bar(image, pen, (x, y + 7, x + width, y + LANE - 9), kind)
                x += max(width, 0.0)


def _lane_name(device: str) -> str:
    """ "cuda:1 #2" for "cuda:1 (RTX 3090, 24 GB) (process 2)": a lane's name has little room."""
    *_, last = device.rstrip(")").split("(process ")
    return f"{name_of(device)} #{last}" if "(process " in device else name_of(device)


def _draw_legend(image, pen, y: float) -> None:
    x = GUTTER
    for kind in KINDS:
        _bar(image, pen, (x, y + 10, x + 22, y + 30), kind)
        _write(pen, (x + 30, y + 6), say(kind), FAINT)
        x += int(LETTERS.getlength(say(kind))) + 64


def _bar(image, pen, area, kind: str) -> None:
    if kind == "wait":
        pen.rectangle(area, outline=KINDS[kind])
    elif kind == "transfer":
        _pattern(image, area, KINDS[kind], hatched=True)
    else:
        pen.rectangle(area, fill=KINDS[kind])


def _fill(image, area, stage: str | None) -> None:
    if stage in ("parallelism", "fully-connecting"):
        _pattern(image, area, STAGE_COLOURS[stage], hatched=stage == "parallelism")
    else:
        ImageDraw.Draw(image).rectangle(
            (area[0], area[1], area[2] - 1, area[3]), fill=_mixed(STAGE_COLOURS[stage], 0.55)
        )


def _pattern(image, area, colour: str, hatched: bool) -> None:
    """Fill with slanted lines, or with dots: to be told apart without colours."""
    width, height = max(round(area[2] - area[0]), 1), max(round(area[3] - area[1]), 1)
    tile = Image.new("RGB", (width, height), _mixed(colour, 0.35 if hatched else 0.25))
    pen = ImageDraw.Draw(tile)
    if hatched:
        for x in range(-height, width, 12):
            pen.line((x, height, x + height, 0), fill=colour, width=4)
    else:
        for x in range(6, width, 12):
            for y in range(6, height, 12):
                pen.ellipse((x - 2, y - 2, x + 2, y + 2), fill=colour)
    image.paste(tile, (round(area[0]), round(area[1])))


def _mixed(colour: str, share: float) -> tuple[int, ...]:
    """`colour` on the panel, of this opacity."""
    both = zip(*(bytes.fromhex(text[1:]) for text in (colour, PANEL)))
    return tuple(round(share * over + (1 - share) * under) for over, under in both)


def _write(pen, at, text: str, colour: str = INK, anchor: str = "la") -> None:
    pen.text(at, text, fill=colour, font=LETTERS, anchor=anchor)


def _short(text: str, width: float) -> str:
    if LETTERS.getlength(text) <= width:
        return text
    while text and LETTERS.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
