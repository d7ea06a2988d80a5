"""Draw the pack's icon (400 x 400) and banner (1260 x 540) into assets/. Needs matplotlib.

    python dev/brand.py

Two branches that agree in the middle: the discrepancy between them, with its three stages.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

ASSETS = Path(__file__).resolve().parents[1] / "assets"
NIGHT, STAGES = "#14202e", ("#24476b", "#8a5a12", "#3c4450")
COND, UNCOND = "#f2c14e", "#6ec1e4"


def branches(axes, thick: float) -> None:
    t = np.linspace(0, 1, 300)
    apart = 0.36 * np.exp(-6 * t) + 0.30 * t**7 + 0.05
    path = 0.5 + 0.05 * np.sin(5 * t)
    for first, last, colour in zip((0, 0.32, 0.78), (0.32, 0.78, 1), STAGES):
        axes.axvspan(first, last, color=colour, linewidth=0)
    axes.plot(t, path + apart, color=COND, linewidth=thick, solid_capstyle="round")
    axes.plot(t, path - apart, color=UNCOND, linewidth=thick, solid_capstyle="round")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.axis("off")


def draw(name: str, width: float, height: float, area: tuple, thick: float, texts: list[tuple]) -> None:
    figure = Figure(figsize=(width, height), facecolor=NIGHT)
    FigureCanvasAgg(figure)
    branches(figure.add_axes(area), thick)
    for x, y, text, size, colour in texts:
        figure.text(x, y, text, fontsize=size, color=colour, weight="bold" if size > 30 else "normal")
    figure.savefig(ASSETS / name, dpi=100, facecolor=NIGHT)


if __name__ == "__main__":
    ASSETS.mkdir(exist_ok=True)
    draw("icon.png", 4, 4, (0.08, 0.08, 0.84, 0.84), 14, [])
    words = [
        (0.40, 0.56, "Hybridiff", 62, "white"),
        (0.405, 0.42, "one image on two GPUs, the same picture sooner", 21, "#c9d4df"),
    ]
    draw("banner.png", 12.6, 5.4, (0.05, 0.14, 0.30, 0.72), 11, words)
