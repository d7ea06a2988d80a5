"""What gpu.py measured, as Markdown; the bounds of a speed-up, and what is projected from its parts."""

from __future__ import annotations

from .block import Column, table


def milliseconds(key: str):
    def cell(row: dict) -> str:
        if row.get(key) is None:
            return "-"
        value = 1e3 * row[key]
        return f"{value:.0f}" if value >= 100 else f"{value:.3g}"

    return cell


FORWARD: list[Column] = [
    ("model", lambda row: row["model"]),
    ("size", lambda row: row["size"]),
    ("batch 2, ms", milliseconds("two_s")),
    ("batch 1, ms", milliseconds("one_s")),
    ("outer part, ms", milliseconds("outer_s")),
    ("inner part, ms", milliseconds("inner_s")),
    ("cut", lambda row: f"{row['cut'][0]} to {row['cut'][-1]} of {row['blocks']}"),
]
EXCHANGE: list[Column] = [
    ("model", lambda row: row["model"]),
    ("size", lambda row: row["size"]),
    ("what", lambda row: row["what"]),
    ("KiB", lambda row: f"{row['bytes'] / 1024:.1f}"),
    ("idle, ms", milliseconds("seconds")),
    ("while kernels are launched, ms", milliseconds("busy_s")),
    ("channel", lambda row: row["channel"]),
    ("worker on", lambda row: row["on"]),
]
WORKER: list[Column] = [
    ("worker on", lambda row: row["on"]),
    ("start, s", lambda row: f"{row['seconds']:.2f}"),
]
MEASURED: list[Column] = [
    ("model", lambda row: row["model"]),
    ("size", lambda row: row["size"]),
    ("mode", lambda row: row["mode"]),
    ("k of T", lambda row: f"{row['k']} of {row['steps']}"),
    ("one device, s", lambda row: f"{row['one_s']:.3g}"),
    ("two devices, s", lambda row: f"{row['two_s']:.3g}"),
    ("measured speed-up", lambda row: f"{row['speed_up']:.2f}"),
    ("bound", lambda row: f"{row['bound']:.2f}"),
    ("worker on", lambda row: row["on"]),
]
ALONE: list[Column] = [
    *MEASURED[:4],
    ("KSampler, s", lambda row: f"{row['stock_s']:.3g}"),
    ("Hybridiff, s", lambda row: f"{row['ours_s']:.3g}"),
    ("measured speed-up", lambda row: f"{row['speed_up']:.2f}"),
    ("bound", lambda row: f"{row['bound']:.2f}"),
]
PROJECTED: list[Column] = [
    *MEASURED[:4],
    ("PROJECTED speed-up", lambda row: f"{row['speed_up']:.2f}"),
    ("bound", lambda row: f"{row['bound']:.2f}"),
]
PARTS = {
    "forward": ("Forward passes", FORWARD),
    "exchange": ("Messages to a worker and back, by what the main thread does meanwhile", EXCHANGE),
    "worker": ("A worker's start, ComfyUI's imports included", WORKER),
    "measured": ("Speed-up, measured through a real worker", MEASURED),
    "alone": ("Speed-up on this one GPU without a worker, measured; exact shows what our nodes themselves cost", ALONE),
    "projected": ("Speed-up, PROJECTED from the parts above as for two such GPUs; not measured", PROJECTED),
}


def render(block: dict) -> str:
    """The Markdown of a kept block's rows."""
    texts = []
    for part, (title, columns) in PARTS.items():
        rows = [row for row in block["rows"] if row["part"] == part]
        if rows:
            texts.append(f"{title}:\n\n{table(rows, columns)}")
    return "\n\n".join([*texts, *(row["line"] for row in block["rows"] if row["part"] == "left out")])


def bound(mode: str, steps: int, k: int) -> float:
    """The bound: a whole step of one device costs 1, an exact one of two 1/2, an alternating one 1/4."""
    stage = {"exact": 1 / 2, "predict": 1 / 4, "pipeline": 1 / 4}[mode]  # predict: every second step costs nothing
    return steps / ((steps - k) / 2 + k * stage)


def projection(mode: str, steps: int, k: int, parts: dict, latent_s: float, features_s: float) -> float:
    """The same with measured parts: both devices' work and the messages that a step waits for."""
    exact = parts["one_s"] + latent_s
    alternating = max(parts["outer_s"], parts["inner_s"] + features_s)
    stage = {"exact": exact, "predict": exact / 2, "pipeline": alternating}[mode]
    return steps * parts["two_s"] / ((steps - k) * exact + k * stage)
