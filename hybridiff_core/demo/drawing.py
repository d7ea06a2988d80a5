"""The demo's result as a picture: both images, and what each process did when. Needs Pillow, as ComfyUI does."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from ..report import RunReport
from ..schedule import Work
from .comparison import DemoResult

WIDTH, EDGE, SIDE, LANE, BAR, GUTTER = 1040, 24, 256, 40, 24, 170
INK, FAINT, PAPER = "#1c1c20", "#5c5c66", "#ffffff"
COLOURS, PREDICTED = ("#3a92c8", "#56b4e9"), "#e69f00"  # every second step's bar is lighter
TITLE, TEXT, SMALL = (ImageFont.load_default(size) for size in (26, 18, 16))


def draw(result: DemoResult, prompt: str, path: Path) -> None:
    """Write the figure to `path` (PNG). Raises OSError."""
    pair = result.median
    lanes = [("one process", pair.one, 0), ("process 1 of two", pair.two, 0), ("process 2 of two", pair.two, 1)]
    top = EDGE + SIDE + 62
    image = Image.new("RGB", (WIDTH, top + LANE * len(lanes) + 66), PAPER)
    pen = ImageDraw.Draw(image)
    for place, pictures in enumerate(result.pictures):
        image.paste(picture_of(pictures), (EDGE + place * (SIDE + EDGE), EDGE))
        words = ("one process", "two processes")[place]
        taken = (pair.one_s, pair.two_s)[place]
        pen.text((EDGE + place * (SIDE + EDGE) + SIDE / 2, EDGE + SIDE + 8), f"{words}: {taken:.2f} s", INK, TEXT, "ma")
    _write_summary(pen, result, prompt, EDGE + 2 * (SIDE + EDGE) + 10)
    longest = max(pair.one_s, pair.two_s)
    for row, (name, report, lane) in enumerate(lanes):
        y = top + row * LANE
        pen.text((EDGE, y + LANE / 2), name, INK, TEXT, "lm")
        _draw_lane(pen, report, lane, y + (LANE - BAR) / 2, (WIDTH - EDGE - GUTTER - EDGE) / longest)
    predicted = any(step.work == Work.PREDICTED.value for step in pair.two.steps)
    _draw_scale(pen, longest, top + LANE * len(lanes) + 4, predicted)
    image.save(path, optimize=True)


def picture_of(pictures: torch.Tensor) -> Image.Image:
    """[count, 3, height, width] in 0 to 1 as an image of SIDE pixels; of more than one, four."""
    across = 2 if len(pictures) > 1 else 1
    side = SIDE // across
    sheet = Image.new("RGB", (SIDE, SIDE), PAPER)
    for place, values in enumerate(pictures[: across**2]):
        _, height, width = values.shape
        data = bytes((values.permute(1, 2, 0) * 255).round().to(torch.uint8).flatten().tolist())
        picture = Image.frombytes("RGB", (width, height), data)
        sheet.paste(picture.resize((side, side), Image.Resampling.BICUBIC), (place % 2 * side, place // 2 * side))
    return sheet


def _write_summary(pen: ImageDraw.ImageDraw, result: DemoResult, prompt: str, x: float) -> None:
    psnr, steps = result.psnr, result.report.steps
    predicted = sum(step.work == Work.PREDICTED.value for step in steps)
    shared = sum(step.helpers > 0 for step in steps)
    lines = [
        f"{shared} of {len(steps)} steps shared" + (f", {predicted} predicted" if predicted else ""),
        "the same pictures, to rounding" if psnr >= 100 else f"the pictures' PSNR: {psnr:.1f} dB",
        f"largest difference of the latents: {result.max_difference:.0e}".replace("0e+00", "0"),
        "",
        "Two processes on one computer's CPU,",
        "a core each: not a GPU's times.",
    ]
    shown = prompt if len(prompt) < 28 else f"{prompt[:26]}..."
    pen.text((x, EDGE + 6), f"\u201c{shown}\u201d", INK, TITLE)
    pen.text((x, EDGE + 50), f"{result.median.speed_up:.2f} times as fast", INK, TITLE)
    for row, line in enumerate(lines):
        pen.text((x, EDGE + 100 + 26 * row), line, FAINT if row > 2 else INK, SMALL)


def _draw_lane(pen: ImageDraw.ImageDraw, report: RunReport, lane: int, y: float, scale: float) -> None:
    """A bar for each step in which the device of `lane` computed; a mark where a step was predicted."""
    begin, marks = 0.0, []
    for number, step in enumerate(report.steps):
        x = EDGE + GUTTER + begin * scale
        seconds = min(dict(zip(step.lanes, step.compute_s)).get(lane, 0.0), step.seconds)
        if step.work == Work.PREDICTED.value:
            marks.append(x)
        elif seconds:
            pen.rectangle((x, y, x + max(seconds * scale - 1, 1), y + BAR), COLOURS[number % 2])
        begin += step.seconds
    for x in marks:
        pen.rectangle((x - 1, y, x + 1, y + BAR), PREDICTED)


def _draw_scale(pen: ImageDraw.ImageDraw, longest: float, y: float, predicted: bool) -> None:
    x, width = EDGE + GUTTER, WIDTH - EDGE - GUTTER - EDGE
    pen.line((x, y, x + width, y), FAINT)
    pen.text((x, y + 6), "0", FAINT, SMALL, "ma")
    pen.text((x + width, y + 6), f"{longest:.2f} s", FAINT, SMALL, "ra")
    pen.rectangle((x + 40, y + 12, x + 56, y + 24), COLOURS[0])
    pen.rectangle((x + 56, y + 12, x + 72, y + 24), COLOURS[1])
    pen.text((x + 82, y + 6), "computing, one bar per step", FAINT, SMALL)
    if predicted:
        pen.rectangle((x + 310, y + 10, x + 313, y + 26), PREDICTED)
        pen.text((x + 324, y + 6), "a predicted step", FAINT, SMALL)
