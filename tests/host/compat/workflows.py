"""What of people's workflows is shared now: counted reasons beside measured rows.

Counted in 1,811 distinct public workflows with a local sampler, from 116 sources, by reading them; each by its
costliest sampler. A workflow can have several reasons.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .conftest import LEFT_OUT, ONE_DEVICE, TWO_DEVICES

ALL, FOR_THE_GRAPH, BY_GRAPH = 1811, 347, 287

HEAD = """
## Share of public workflows

{all:,} distinct public workflows with a local sampler, from 116 sources, were read, each by its costliest sampler. How
many there are of a kind was counted; whether a kind is shared was measured, in the rows of this page. No figure here
says that a workflow was run: one that has something else in it too may stay on one device.

| by its sampler | of all | now |
|---|---|---|
| CFG above 1, nothing in the way | 42 % | two devices, by conds |
| CFG 1, 8 steps and more | 17 % | transformers by tokens, batches by their images, if that is faster; else one device |
| CFG 1, fewer steps | 7 % | the same |
| something in the graph | 19 % | see below |
| a sampler that is not ComfyUI's | 11 % | one device |
| not told | 3 % | - |

The {graph} with something in the graph, by reason; a workflow can have several. By reading, {by_graph} of them have no
reason but those for which a model is made by its graph.

| reason | workflows | now | rows above: two devices, one, left out | what is left |
|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Reason:
    """Why workflows ran on one device, in how many, what is done now, which rows show it (words in their names)."""

    name: str
    workflows: str
    now: str
    words: tuple[str, ...]
    left: str

    def rows_of(self, rows: Iterable[dict]) -> Iterator[dict]:
        return (row for row in rows if any(word in row["row"] for word in self.words))

    def measured(self, rows: list[dict]) -> str:
        found = [row["result"] for row in self.rows_of(rows)]
        counts = [found.count(result) for result in (TWO_DEVICES, ONE_DEVICE, LEFT_OUT)]
        return ", ".join(map(str, counts)) if found else "not measured"


PATCH = "by graph"
GUIDANCE = (
    "PerturbedAttention", "SmoothedEnergy", "NormalizedAttention", "PLADIS", "TokenPerturbation",
    "SelfAttentionGuidance",
)  # fmt: skip
REASONS = [
    Reason(
        "patches inside the network, all", "184", PATCH, ("FreeU", "HyperTile", "IPAdapter", *GUIDANCE),
        "those that draw random numbers or keep something from step to step: one device",
    ),
    Reason("of these IPAdapter", "73", PATCH, ("IPAdapter",), "FaceID, which needs insightface, was not run"),
    Reason("of these FreeU", "24", PATCH, ("FreeU",), "-"),
    Reason("of these InstantID, PuLID", "21", PATCH, ("InstantID", "PuLID"), "they need insightface, and were not run"),
    Reason("of these IC-Light", "21", PATCH, ("IC-Light",), "was not run"),
    Reason(
        "a part of the network replaced", "71", PATCH,
        ("ReSDPatcher", "ReFluxPatcher", "ReWanPatcher", "EnhanceAVideo", "ChunkFeedForward", "WanVideoNAG"),
        "those that need both prompts of a step at once: one device",
    ),
    Reason("a loader not known", "41", "by parts, or by graph", ("DiffusionModelLoaderKJ", "ClownModelLoader"), "-"),
    Reason(
        "a wrapper around the network", "37", PATCH, ("FBCache", "TeaCache on", "LTXVPerStep"),
        "caches between steps: one device",
    ),
    Reason(
        "a guider that asks one branch at a time", "33", "transformers: by tokens", ("a branch at a time",),
        "U-Nets: one device",
    ),
    Reason(
        "another pack's ControlNet", "27", "-", ("Advanced-ControlNet",),
        "its conds are computed by ComfyUI's process: one device where both prompts have it",
    ),
    Reason("AnimateDiff", "27", "-", ("AnimateDiff",), "a batch is frames there; was not run"),
    Reason("a model class of another pack", "18", PATCH, ("a model class of another",), "was not run"),
    Reason("GGUF", "14, and 55 at CFG 1", PATCH, ("GGUF: UnetLoader",), "-"),
    Reason("a merge", "12", PATCH, ("ModelMerge",), "-"),
    Reason("Sage by a node", "6, and 12 at CFG 1", PATCH, ("Sage",), "-"),
]  # fmt: skip


def section(rows: list[dict]) -> str:
    """The section, from the rows that were run."""
    lines = [
        f"| {one.name} | {one.workflows} | {one.now} | {one.measured(rows)} | {one.left} |" for one in REASONS
    ]  # fmt: skip
    return HEAD.format(all=ALL, graph=FOR_THE_GRAPH, by_graph=BY_GRAPH) + "\n".join(lines) + "\n"
