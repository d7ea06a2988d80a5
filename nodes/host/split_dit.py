"""Where a transformer is cut: by the host's own per-block hook, patches_replace["dit"].

SD3, Flux, Chroma, Qwen-Image, Wan, HunyuanVideo, LTX and others ask it at every block. Blocks are
numbered in the order in which a forward comes to them, double ones before single ones.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch

from ...hybridiff_core.split import Pass, central_openings

HOOKED = ("double_block", "single_block")
MOST_BLOCKS = 256  # of a kind; no network is deeper


class DitSplit:
    """Takes a Pass through a transformer's forward. For one forward at a time."""

    def __init__(self) -> None:
        self._keys: dict[str, tuple[str, ...]] = {}  # of a kind of block: what changes in it, img and perhaps txt
        self._odd: str | None = None
        self._through = Pass()
        self._block = 0
        self._hooks = {
            (kind, i): functools.partial(self._at_block, kind) for kind in HOOKED for i in range(MOST_BLOCKS)
        }

    def hooks(self, through: Pass) -> dict:
        """The transformer_options with which the next forward asks `through` at each block."""
        self._through, self._block = through, 0
        return {"patches_replace": {"dit": self._hooks}}

    def openings(self, blocks: int, segments: int) -> list[tuple[int, int]] | str:
        """Where an inner part can begin and end, or why nowhere, in words for users."""
        return self._odd or central_openings(blocks, segments)

    def _at_block(self, kind: str, args: dict, extra: dict) -> dict:
        block, through = self._block, self._through
        self._block += 1
        if args.get("skip") is not None:
            self._odd = "its later blocks read what earlier ones left for them"
        if kind not in self._keys:  # an exact pass comes first, and shows what changes
            return self._first_of_its_kind(kind, block, args, extra["original_block"])
        keys = self._keys[kind]
        through.enter(block)
        out = extra["original_block"](args) if through.runs(block) else {key: args[key] for key in keys}
        after = tuple(out.get(key) for key in keys)
        left = through.leave(block, after)
        return out if left is after else dict(zip(keys, left))

    def _first_of_its_kind(self, kind: str, block: int, args: dict, run: Callable[[dict], dict]) -> dict:
        self._through.enter(block)
        if not self._through.runs(block):
            raise RuntimeError(f"the network's {kind} was never run whole, so what it changes is not known")
        out = run(args)
        if not all(isinstance(value, torch.Tensor) for value in out.values()) or not out.keys() <= args.keys():
            self._odd = "its blocks pass on something else than tensors"
        self._keys[kind] = tuple(out)
        self._through.leave(block, tuple(out.values()))
        return out
