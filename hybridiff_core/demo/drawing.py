"""The demo's result as a picture: both images, the discrepancy with the stages, the times. Needs matplotlib."""

from __future__ import annotations

import statistics
from pathlib import Path

from ..schedule import Stage
from .comparison import DemoResult

# a stage's colour, hatch and name for users
LOOKS = {
    Stage.WARM_UP.value: ("#dbe9f6", "", "warm-up"),
    Stage.PARALLELISM.value: ("#fde7c8", "//", "middle"),
    Stage.FULLY_CONNECTING.value: ("#e3e3e3", "..", "finish"),
}


def draw(result: DemoResult, prompt: str, rows: list[tuple[str, str, str]], path: Path) -> None:
    """Write the figure to `path` (PNG). Raises ImportError without matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    areas = figure.subplot_mosaic([["one", "two", "table"], ["curve", "curve", "curve"]], height_ratios=[1.25, 1])
    psnr = "identical" if result.psnr >= 119 else f"{result.psnr:.1f} dB"
    times = statistics.median(result.one_s), statistics.median(result.two_s)
    titles = f"one device, {times[0]:.2f} s", f"two devices, {times[1]:.2f} s, PSNR {psnr}"
    for name, picture, title in zip(("one", "two"), result.pictures, titles):
        areas[name].imshow(picture.permute(1, 2, 0).numpy(), interpolation="nearest")
        areas[name].set_title(title)
        areas[name].axis("off")
    areas["table"].axis("off")
    table = areas["table"].table([row[:2] for row in rows], loc="center", cellLoc="left", edges="horizontal")
    table.auto_set_font_size(False)
    table.set_fontsize(11)
    table.scale(1, 1.9)

    curve, steps = areas["curve"], result.report.steps
    known = [(step.step, step.rel_mae) for step in steps if step.rel_mae is not None]
    curve.plot(*zip(*known), "o-", color="#1f4e79", label="difference between the branches (rel-MAE), where computed")
    named = set()
    for step in steps:
        colour, hatch, word = LOOKS[step.stage]
        label = word if word not in named else None
        named.add(word)
        curve.axvspan(
            step.step - 0.5, step.step + 0.5, facecolor=colour, hatch=hatch,
            edgecolor="#b0b0b0", linewidth=0, label=label, zorder=0,
        )  # fmt: skip
    curve.set_xlim(-0.5, len(steps) - 0.5)
    curve.set_xlabel("step")
    curve.xaxis.get_major_locator().set_params(integer=True)
    curve.legend(loc="upper center", ncols=4)
    figure.suptitle(f"\u201c{prompt}\u201d, {result.report.mode}")
    figure.savefig(path, dpi=100)
