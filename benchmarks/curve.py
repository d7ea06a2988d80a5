"""The discrepancy curves that quality.py measured on the way, as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

NAMES = {"dit": "DiT", "unet": "U-Net", "unet, earlier training": "U-Net, earlier training"}
LINES = {20: ":", 28: "--", 50: "-"}  # distinct without colour


def curves(rows: Sequence[dict], cfg: float) -> dict[tuple[str, int], list[tuple[float, float]]]:
    """{(model, steps): points}: the share of the run that is done, and the rel-MAE there, of auto's Euler rows."""
    found = {}
    for row in rows:
        if row["what"] == "auto" and row["sampler"] == "euler" and row["cfg"] == cfg and row["model"] in NAMES:
            points = [(step / row["steps"], value) for step, value in enumerate(row["rel_mae"]) if value is not None]
            found[row["model"], row["steps"]] = points
    return dict(sorted(found.items()))


def draw(rows: Sequence[dict], cfg: float, path: Path) -> None:
    """Write the figure of one CFG to `path`, a panel for each model."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = curves(rows, cfg)
    models = list(dict.fromkeys(model for model, _ in found))
    figure = Figure(figsize=(4.2 * len(models), 3.0), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, model in zip(figure.subplots(1, len(models), squeeze=False)[0], models):
        for (of, steps), points in found.items():
            if of == model:
                axes.plot(*zip(*points), LINES[steps], color="#0b57a4", label=f"{steps} steps")
        axes.set(title=f"{NAMES[model]}, CFG {cfg:g}", xlabel="share of the run", ylabel="rel-MAE", ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
