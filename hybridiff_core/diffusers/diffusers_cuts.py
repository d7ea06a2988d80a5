"""Where diffusers' networks are cut: while a Pass is asked, the parts of the network have another forward.

A part's forward is replaced for one forward of the network and put back after it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from diffusers import SD3Transformer2DModel, UNet2DConditionModel
from torch import Tensor, nn

from .. import lines
from ..network.split import Inner, Outer, Pass, State, central_openings

KNOWN_BLOCKS = {
    "DownBlock2D",
    "CrossAttnDownBlock2D",
    "UNetMidBlock2D",
    "UNetMidBlock2DCrossAttn",
    "UpBlock2D",
    "CrossAttnUpBlock2D",
}


def splitter_for(network: nn.Module) -> DitSplit | UnetSplit:
    return UnetSplit(network) if isinstance(network, UNet2DConditionModel) else DitSplit(network)


@contextlib.contextmanager
def _replaced(forwards: list[tuple[nn.Module, Callable]]) -> Iterator[None]:
    try:
        for module, forward in forwards:
            module.forward = forward
        yield
    finally:
        for module, _ in forwards:
            vars(module).pop("forward", None)


class DitSplit:
    """Takes a Pass through the transformer's blocks. The state is the image's and, but for the last, the text's."""

    def __init__(self, network: SD3Transformer2DModel):
        self._blocks = list(network.transformer_blocks)

    def openings(self, blocks: int, segments: int) -> list[tuple[int, int]] | str:
        """Where an inner part can begin and end, or why nowhere, in words for users."""
        return central_openings(blocks, segments)

    def asking(self, through: Pass | None) -> contextlib.AbstractContextManager:
        """Within it, the network's forward asks `through` at each block."""
        if through is None:
            return contextlib.nullcontext()
        return _replaced([(block, self._asks(i, block.forward, through)) for i, block in enumerate(self._blocks)])

    def _asks(self, number: int, forward: Callable, through: Pass) -> Callable:
        def run(hidden_states: Tensor, encoder_hidden_states: Tensor, **others: object):
            def block(state: State) -> State:
                text, image = forward(hidden_states=state[0], encoder_hidden_states=state[1], **others)
                return (image,) if text is None else (image, text)

            image, *text = through.at(number, (hidden_states, encoder_hidden_states), block)
            return text[0] if text else None, image

        return run


class UnetSplit:
    """Takes a Pass through a U-Net's layers, cut around the deepest, so that every skip stays on one side.

    Blocks are numbered input, middle, output: conv_in, each resnet with its attention, each
    downsampler; the middle; each resnet with its attention and, at a level's end, the upsampler.
    Input block j's output is read by output block n - 1 - j. The state is x and, between inner
    segments, the skips that are still to be read.
    """

    def __init__(self, network: UNet2DConditionModel):
        inputs = [[network.conv_in]]
        for level in network.down_blocks:
            inputs += [*_steps(level), *([layer] for layer in level.downsamplers or ())]
        outputs = []
        for level in network.up_blocks:
            steps = _steps(level)
            steps[-1] += level.upsamplers or ()
            outputs += steps
        self._depth = len(inputs)
        middle = [[network.mid_block]] if network.mid_block is not None else []
        self._layers = [*inputs, *middle, *outputs]
        self._enlarges = [any(type(layer).__name__ == "Upsample2D" for layer in step) for step in outputs]
        self._odd: str | None = None
        if len(outputs) != self._depth or not middle:
            self._odd = lines.HALVES_DIFFER()
        levels = [*network.down_blocks, network.mid_block, *network.up_blocks]
        unknown = {type(level).__name__ for level in levels} - KNOWN_BLOCKS
        if unknown:
            self._odd = lines.UNKNOWN_BLOCKS(kinds=", ".join(sorted(unknown)))
        self._factor, self._uneven = 2**network.num_upsamplers, False
        self._through = Pass()
        self._skips: dict[int, Tensor] = {}

    def openings(self, blocks: int, segments: int) -> list[tuple[int, int]] | str:
        """Where an inner part of so many segments can begin and end, or why nowhere, in words for users.

        What enters the inner part is also the last skip before it, so a single inner segment can run
        the output block that reads it, or enlarge to its size. Later segments do not see it.
        """
        if self._odd or self._uneven:
            return self._odd or lines.UNEVEN_LATENT(factor=self._factor)
        found = []
        enlarges = [False, *self._enlarges]
        for first in range(self._depth, 0, -1):
            outputs = self._depth - first  # as many as there are inner input blocks
            if segments == 1 or not enlarges[outputs]:
                found.append((first, self._depth + 1 + outputs))
            if segments == 1 and not enlarges[outputs + 1]:
                found.append((first, self._depth + 2 + outputs))
        return found

    def asking(self, through: Pass | None) -> contextlib.AbstractContextManager:
        """Within it, the network's forward asks `through` at each block."""
        if through is None or self._odd:
            return contextlib.nullcontext()
        self._through, self._skips = through, {}
        return _replaced([
            (layer, self._asks(block, layer.forward, layer is layers[0], layer is layers[-1]))
            for block, layers in enumerate(self._layers)
            for layer in layers
        ])  # fmt: skip

    def _kind(self, block: int) -> tuple[str, int]:
        """input, middle or output, and the number among these."""
        if block < self._depth:
            return "input", block
        return ("middle", 0) if block == self._depth else ("output", block - self._depth - 1)

    def _asks(self, block: int, forward: Callable, first: bool, last: bool) -> Callable:
        kind, index = self._kind(block)

        def run(x: Tensor, *args: object, **others: object):
            through = self._through
            if first:
                through.enter(block)
                if kind == "output":  # the network has joined it to x
                    self._skips.pop(self._depth - 1 - index, None)
                elif block == 0:
                    self._uneven = any(size % self._factor for size in x.shape[-2:])
                if isinstance(through, Outer) and not through.runs(block):
                    x = x[:, :0]  # no channels: passes by the inner blocks for nothing
            if through.runs(block):
                out = forward(x, *args, **others)
                x = out[0] if isinstance(out, tuple) else out
            if last:
                x = self._leave(block, kind, index, x)
            return (x,) if "return_dict" in others else x  # only attention is told it

        return run

    def _leave(self, block: int, kind: str, index: int, x: Tensor) -> Tensor:
        through = self._through
        if isinstance(through, Inner) and block < through.start:
            return self._before_segment(block, kind, index, x)
        if kind == "input" and index >= through.first and through.runs(block):
            self._skips[index] = x
        return through.leave(block, (x, *(self._skips[j] for j in sorted(self._skips))))[0]

    def _before_segment(self, block: int, kind: str, index: int, x: Tensor) -> Tensor:
        """What a block before an inner segment leaves: h at the end, before it the skips that came with h."""
        h, *carried = self._through.h
        if block == self._through.start - 1:
            self._skips = dict(enumerate(carried, self._through.first))
            return h
        if kind == "input" and index >= self._through.first:
            place = index - self._through.first
            # an empty vector can be joined to anything: nobody reads this skip any more
            return carried[place] if place < len(carried) else x.new_empty(0)
        return h if kind == "middle" else x


def _steps(level: nn.Module) -> list[list[nn.Module]]:
    """A level's resnets, each with its attention."""
    attentions = getattr(level, "attentions", None) or [None] * len(level.resnets)
    return [
        [resnet, attention] if attention is not None else [resnet]
        for resnet, attention in zip(level.resnets, attentions)
    ]
