"""What gpu_tokens.py measured, as Markdown, and what is projected for two GPUs: from it, or from assumed times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .block import Column, table
from .gpu_rows import milliseconds

LINKS = (6, 20)  # GB/s in each direction, both at once: a slow PCIe slot, and PCIe 4 x16
HALF_PRECISION = 2  # bytes


class Assumed(NamedTuple):
    """A network's sizes, and a forward's time on a card that nobody timed here."""

    model: str
    size: str
    tokens: int  # of the image
    text: int  # beside them in the same blocks
    width: int
    blocks: int
    whole_s: float


# the times are those assumed for an RTX 4090; Wan's text is read by attention of its own
ASSUMED = (
    Assumed("Flux", "1024", 4096, 512, 3072, 57, 0.6),
    Assumed("Qwen-Image", "1328", 6889, 128, 3072, 60, 1.5),
    Assumed("Wan 14B", "480p, 81 frames", 32760, 0, 5120, 40, 8.0),
)


def projection(whole_s: float, part_s: float, crossing_s: float, hidden_s: float = 0.0) -> float:
    """Speed-up of two devices, each of which computes for `part_s` and exchanges for `crossing_s` seconds a forward.

    With `hidden_s`, the time of the attention of the first half of the heads, the second half crosses meanwhile.
    """
    hidden = min(crossing_s / 2, hidden_s)
    return whole_s / (part_s + crossing_s - hidden)


def each_way(one: Assumed) -> int:
    """Bytes a forward that a device sends: keys and values of half of the tokens, in each block."""
    return 2 * (one.tokens // 2) * one.width * HALF_PRECISION * one.blocks


def assumed_part(one: Assumed) -> float:
    """Seconds for half of the tokens and all of the text."""
    return one.whole_s * (one.tokens / 2 + one.text) / (one.tokens + one.text)


def assumed_attention(one: Assumed) -> float:
    """Seconds of it for the attention of half of the heads, by operations.

    Of each token a block of width w multiplies with 12 w^2 weights, and its attention with 2 w for each of the tokens.
    """
    tokens = one.tokens + one.text
    return assumed_part(one) * tokens / (tokens + 6 * one.width) / 2


def assumed_speed_ups(one: Assumed) -> list[tuple[float, float]]:
    """By link: with nothing hidden, and by halves of the heads."""
    found, part_s = [], assumed_part(one)
    for link in LINKS:
        crossing_s = each_way(one) / (1e9 * link)
        hidden_s = (0.0, assumed_attention(one))
        found.append(tuple(projection(one.whole_s, part_s, crossing_s, hidden) for hidden in hidden_s))
    return found


ARITHMETIC: list[Column] = [
    ("model", lambda one: one.model),
    ("size", lambda one: one.size),
    ("one GPU, s: assumed", lambda one: f"{one.whole_s:g}"),
    ("half of the tokens, s", lambda one: f"{assumed_part(one):.2f}"),
    ("GB each way", lambda one: f"{each_way(one) / 1e9:.2f}"),
    *(
        (f"{link} GB/s, {how}", lambda one, i=i, j=j: f"{assumed_speed_ups(one)[i][j]:.2f}")
        for i, link in enumerate(LINKS)
        for j, how in enumerate(("nothing hidden", "by halves of the heads"))
    ),
    ("exchange in no time", lambda one: f"{one.whole_s / assumed_part(one):.2f}"),
]


def arithmetic() -> str:
    """The table of speed-ups from assumed times."""
    return table(ASSUMED, ARITHMETIC)


def span(measured: Sequence[dict]) -> str:
    """The least and the most that two cards bring: projected from `measured` rows, or from assumed times."""
    found = [value for row in measured if row["part"] == "forward" for value in projected(row)]
    if not found:
        found = [by_halves for one in ASSUMED for _, by_halves in assumed_speed_ups(one)]
    return f"{min(found):.1f} to {max(found):.1f}x"


def projected(row: dict) -> list[float]:
    """By link, from measured parts: the better of whole exchanges and of those by halves of the heads."""
    found = []
    for link in LINKS:
        crossing_s = max(row["sent"], row["received"]) / (1e9 * link)
        plain = projection(row["whole_s"], row["part_s"], crossing_s)
        found.append(max(plain, projection(row["whole_s"], row["halves_s"], crossing_s, row["first_half_s"])))
    return found


def scaled(counted: dict, made: int, blocks: int) -> dict:
    """What was counted of a network with `made` of its `blocks`, as of all of them."""
    return {**{key: value * blocks / made for key, value in counted.items()}, "made": made, "blocks": blocks}


def blocks(row: dict) -> str:
    """How many blocks there are; where fewer were made, it says so."""
    return f"{row['made']} of {row['blocks']}, scaled" if row["made"] < row["blocks"] else f"{row['blocks']}"


FORWARD: list[Column] = [
    ("model", lambda row: row["model"]),
    ("size", lambda row: row["size"]),
    ("blocks", blocks),
    ("whole, ms", milliseconds("whole_s")),
    ("half of the tokens, ms", milliseconds("part_s")),
    ("by halves of the heads, ms", milliseconds("halves_s")),
    ("of it attention, first half, ms", milliseconds("first_half_s")),
    ("GB sent", lambda row: f"{row['sent'] / 1e9:.3g}"),
    ("GB received", lambda row: f"{row['received'] / 1e9:.3g}"),
]
CROSSING: list[Column] = [
    ("model", lambda row: row["model"]),
    ("size", lambda row: row["size"]),
    ("channel", lambda row: row["channel"]),
    ("MB an attention, each way", lambda row: f"{row['bytes'] / 1e6:.3g}"),
    ("an attention, ms", milliseconds("seconds")),
    ("a forward, ms", milliseconds("forward_s")),
    ("GB/s each way", lambda row: f"{row['bytes'] / row['seconds'] / 1e9:.2g}"),
    ("worker on", lambda row: row["on"]),
]
PROJECTED: list[Column] = [
    ("model", lambda row: row["model"]),
    ("size", lambda row: row["size"]),
    *((f"PROJECTED at {link} GB/s", lambda row, i=i: f"{projected(row)[i]:.2f}") for i, link in enumerate(LINKS)),
    ("exchange in no time", lambda row: f"{row['whole_s'] / min(row['part_s'], row['halves_s']):.2f}"),
]
TABLES = (
    ("Forwards, whole and one device's part of two, without waiting for the other", "forward", FORWARD),
    ("Keys and values between this process and a worker, both ways at once", "crossing", CROSSING),
    ("Speed-up of two GPUs, PROJECTED from the forwards above; not measured", "forward", PROJECTED),
)


def render(block: dict) -> str:
    """The Markdown of a kept block's rows."""
    texts = []
    for title, part, columns in TABLES:
        rows = [row for row in block["rows"] if row["part"] == part]
        if rows:
            texts.append(f"{title}:\n\n{table(rows, columns)}")
    return "\n\n".join([*texts, *(row["line"] for row in block["rows"] if row["part"] == "left out")])
