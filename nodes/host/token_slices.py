"""What goes with a part of the image's tokens into a transformer's block."""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Callable

import torch
from torch import Tensor

from ...hybridiff_core import lines
from ...hybridiff_core.network.tokens import NotDivided, Shard

IMAGE, TEXT = "img", "txt"
ROW = "x"  # what HiDream O1's hook calls the image
# what blocks pass on; `skip` is an earlier block's, which a later one reads, `beside` what goes with the image
OF_IMAGE = (IMAGE, "skip", "beside")
ROTARY = re.compile(r"(^|_)pe$|freqs|rope|rotary|^pos_img$|^position_embeddings$")
MODULATION = re.compile(r"vec|timestep|temb|adaln|^emb|^t$")
MASK = re.compile("mask")
OF_SOUND = "a_"  # how the names begin that go with LTX-2's sound, which is not divided


class Slices:
    """A part of the image's tokens, from `first` to `end` of `tokens`, and what belongs to it of a block's arguments.

    `args` are the first block's, whole; `mine` gives the part of a number of tokens. Where text and image stand in
    one row, the text is before the image, or with `image_first` behind it; `prefix` tokens of the first block's row
    are text where it is known that such a row has them (HiDream O1). Where blocks pass on several rows (a
    video and its sound), the first is divided.
    """

    def __init__(self, args: dict, mine: Callable[[int], tuple[int, int]], image_first: bool = False, prefix: int = 0):
        self.tokens, self._shape = row_of(args[IMAGE]).shape[1] - prefix, rows_of(args[IMAGE])[0].shape
        self.first, self.end = mine(self.tokens)
        self.image_first = image_first
        text, batched = args.get(TEXT), len(self._shape) > 2
        self.text = text.shape[batched] if isinstance(text, Tensor) and text.ndim > 1 else prefix
        self.prefix = prefix
        self.undivided = self.text + sum(row.shape[1] for row in rows_of(args[IMAGE])[1:])
        self._cuts = (ROTARY, self._rotary), (MODULATION, self._modulation), (MASK, self._mask)
        self._named = {
            "timestep_zero_index": self._place, "modulation_dims_img": self._ranges, "modulation_dims": self._ranges,
            "mod_segments": self._ranges, "local_add_cond": self._from_the_end,
        }  # fmt: skip
        self._windows: dict[tuple, Tensor] = {}
        self._cut: dict[int, tuple[object, object]] = {}  # the same for all blocks; the value keeps its id

    @property
    def mine(self) -> int:
        """How many tokens the part has."""
        return self.end - self.first

    # -- tensors in which text and image stand along a dimension

    def image_in(self, tensor: Tensor, dim: int, tokens: int) -> Tensor:
        """The image's tokens, of which `tensor` has so many."""
        return tensor.narrow(dim, self._begin(tensor, dim, tokens), tokens)

    def with_image(self, tensor: Tensor, dim: int, tokens: int, image: Tensor) -> Tensor:
        """`tensor`, in which the image has so many tokens, with others in their place."""
        begin = self._begin(tensor, dim, tokens)
        before = tensor.narrow(dim, 0, begin)
        after = tensor.narrow(dim, begin + tokens, tensor.shape[dim] - begin - tokens)
        parts = [part for part in (before, image, after) if part.shape[dim]]
        return torch.cat(parts, dim) if len(parts) > 1 else image

    def part_of(self, tensor: Tensor, dim: int) -> Tensor:
        """The tensor with this part of the image in the place of the whole."""
        image = self.image_in(tensor, dim, self.tokens).narrow(dim, self.first, self.mine)
        return self.with_image(tensor, dim, self.tokens, image)

    @staticmethod
    def _text(tensor: Tensor, dim: int, tokens: int) -> int:
        if (text := tensor.shape[dim] - tokens) < 0:
            raise NotDivided(lines.OTHER_TOKENS(found=tensor.shape[dim], expected=tokens))
        return text

    def _begin(self, tensor: Tensor, dim: int, tokens: int) -> int:
        text = self._text(tensor, dim, tokens)
        return 0 if self.image_first else text

    def window(self, reach: int, beyond: float, dtype: torch.dtype, device: torch.device) -> Tensor:
        """What is added where this part's tokens find all tokens' keys: 0 within `reach`, `beyond` elsewhere."""
        key = reach, beyond, dtype
        if key not in self._windows:
            apart = self._numbers(device)[:, None] - torch.arange(self.tokens, device=device)
            mask = torch.zeros(apart.shape, dtype=dtype, device=device)
            self._windows[key] = mask.masked_fill_(apart.abs() > reach, beyond)
        return self._windows[key]

    # -- the image

    def part(self, args: dict, ready: Callable[[Tensor], Tensor] = Tensor.contiguous) -> dict:
        """A block's arguments for this part of the image, each tensor of it made `ready`."""
        few = {key: self._few(args[key], ready) for key in OF_IMAGE if args.get(key) is not None}
        return self.along({**args, **few})

    def copied(self, args: dict) -> dict:
        """The same, with nothing in it that the whole's block can write into."""
        few = self.part(args, Tensor.clone)
        return {**few, TEXT: few[TEXT].clone()} if isinstance(few.get(TEXT), Tensor) else few

    def spread(self, value: object) -> object:
        """What a block gives for this part, at the whole's length: the rows of other parts are zero.

        So what the network does between blocks with single tokens is right for this part.
        """
        row = row_of(value)
        image = self.image_in(row, 1, self.mine)
        whole = image.new_zeros(image.shape[0], self.tokens, *image.shape[2:])
        whole[:, self.first : self.end] = image
        return self._whole(value, row, whole)

    def gathered(self, value: object, shard: Shard) -> object:
        """What the last block gives, with all devices' parts in it."""
        row = row_of(value)
        return self._whole(value, row, shard.gather(self.image_in(row, 1, self.mine), 1, self.tokens))

    def _whole(self, value: object, row: Tensor, image: Tensor) -> object:
        whole = self.with_image(row, 1, self.mine, image)
        five = rows_of(value)[0].ndim == 5
        return with_row(value, whole.view(len(whole), *self._shape[1:4], whole.shape[-1]) if five else whole)

    def _few(self, value: object, ready: Callable[[Tensor], Tensor]) -> object:
        return each_tensor(with_row(value, self.part_of(row_of(value), 1)), ready)

    # -- code that takes all tokens

    def at_length(self, run: Callable, *args: object, **kwargs: object) -> object:
        """What `run` gives for this part, given rows of the whole's length in the place of the part's."""
        grown = [_in_dicts(value, self._grown) for value in args]
        return _in_dicts(run(*grown, **_in_dicts(kwargs, self._grown)), self._shrunk)

    def _grown(self, value: Tensor) -> Tensor:
        if value.ndim == 5 and value.shape[1:4] == (1, 1, self.mine) and len(self._shape) == 5:
            return self.spread(value)
        of_part = value.ndim == 3 and value.shape[1] in (self.mine, self.text + self.mine)
        return self.spread(value) if of_part else value

    def _shrunk(self, value: Tensor) -> Tensor:
        if value.ndim == 5 and value.shape[:4] == self._shape[:4]:
            return self._few(value, Tensor.contiguous)
        of_all = value.ndim == 3 and value.shape[1] in (self.tokens, self.text + self.tokens)
        return self.part_of(value, 1) if of_all else value

    # -- what goes with it

    def along(self, args: dict) -> dict:
        """A block's arguments, those that are of each token cut to this part; image and text as they are."""
        return {name: self._of(name, value) for name, value in args.items()}

    def _of(self, name: str, value: object) -> object:
        if name in self._named and value is not None:
            return self._named[name](value)
        cut = next((cut for pattern, cut in self._cuts if pattern.search(name)), None)
        if cut is None or value is None or name.startswith(OF_SOUND):
            return value
        if id(value) not in self._cut:
            self._cut[id(value)] = (value, each_tensor(value, cut))
        return self._cut[id(value)][1]

    def _place(self, token: int | None, text: int = 0) -> int | None:
        """Where in the part's row a token of the whole's is; at its end, or beginning, where it is in another part."""
        if token is None or token <= text:
            return token
        return text + min(max(token - text - self.first, 0), self.mine)

    def _ranges(self, ranges: list[tuple[int, int | None, object]]) -> list[tuple[int, int | None, object]]:
        """Of tokens, from one to another or to the row's end, and which modulation is theirs, or each one's.

        In a row with text and an end for each, the text is before the image.
        """
        ends, found = [end for _, end, _ in ranges], []
        text = 0 if None in ends else max(ends) - self.tokens
        for begin, end, which in ranges:
            first, last = (self._place(p, text) for p in (begin, end))
            if isinstance(which, Tensor):
                before = max(0, text + self.first - begin)
                which = which[before : before + last - first]
            found.append((first, last, which))
        return found

    def _from_the_end(self, value: Tensor) -> Tensor:
        """Of a value for each of the last tokens [batch, tokens, width]; the block fills up what is before them."""
        before = self.tokens - value.shape[1]
        return value[:, max(0, self.first - before) : max(0, self.end - before)]

    def _rotary(self, value: Tensor) -> Tensor:
        """Of the first dimension that is as long as the image, or as text and image; what is before it is small."""
        lengths = self.tokens, self.text + self.tokens
        dim = next((dim for dim, size in enumerate(value.shape) if size in lengths), None)
        return value if dim is None else self.part_of(value, dim)

    def _mask(self, value: Tensor) -> Tensor:
        """Of keys alone, text and image; the attention puts it together again, as it does the keys."""
        of_keys = value.ndim > 2 and value.shape[-2] == 1 and value.shape[-1] == self.text + self.tokens
        return self.part_of(value, value.ndim - 1) if of_keys else value

    def _modulation(self, value: Tensor) -> Tensor:
        """Of a value for each token [batch, tokens, ...] or frame [batch, frames, 6, width] (Wan 2.2 5B)."""
        if hasattr(value, "patches_per_frame"):  # LTX-2's, a row for each frame
            return self._by_frame(value)
        if value.ndim < 3 or value.shape[1] == 1:
            return value
        if value.shape[1] == self.tokens:
            return value.narrow(1, self.first, self.mine)
        if value.ndim == 3 or value.shape[1] > self.tokens:
            return value
        return value[:, self._numbers(value.device) // -(-self.tokens // value.shape[1])]

    def _by_frame(self, value: object) -> object:
        part = copy.copy(value)
        if value.num_frames * value.patches_per_frame == self.tokens:
            part.data = value.data[:, self._numbers(value.data.device) // value.patches_per_frame]
            part.num_frames, part.patches_per_frame = self.mine, 1
        return part

    def _numbers(self, device: torch.device) -> Tensor:
        return torch.arange(self.first, self.end, device=device)


def rows_of(value: object) -> list:
    """The rows of tokens in what blocks pass on, the image's first."""
    return list(value) if isinstance(value, (tuple, list)) else [value]


def is_row(value: object) -> bool:
    """Whether tokens stand in a row, or in several: [batch, tokens, width], [tokens, width] (MiniMax-H3), or [batch,
    frames, height, width, channels] (Cosmos, Anima)."""
    rows = rows_of(value)
    return bool(rows) and all(isinstance(row, Tensor) and row.ndim in (2, 3, 5) for row in rows)


def row_of(value: Tensor | tuple | list) -> Tensor:
    """The image's row of tokens [batch, tokens, width] in what blocks pass on."""
    row = rows_of(value)[0]
    return row.flatten(1, 3) if row.ndim == 5 else row.view(-1, *row.shape[-2:])


def with_row(value: Tensor | tuple | list, row: Tensor) -> Tensor | tuple | list:
    """What blocks pass on with another row for the image; in five dimensions one line of one frame."""
    ndim = rows_of(value)[0].ndim
    if ndim == 5 and row.ndim == 3:
        row = row[:, None, None]
    elif ndim == 2:
        row = row[0]
    return row if isinstance(value, Tensor) else type(value)((row, *value[1:]))


def each_tensor(value: object, cut: Callable) -> object:
    """`value` with each tensor in it cut."""
    if isinstance(value, Tensor) or hasattr(value, "patches_per_frame"):
        return cut(value)
    if isinstance(value, (tuple, list)):
        return type(value)(each_tensor(item, cut) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **{name: each_tensor(item, cut) for name, item in fields.items()})
    return value


def _in_dicts(value: object, cut: Callable) -> object:
    """The same, in a dict's values too; the options of a forward stay what they are, for code writes into them."""
    if type(value) is dict:
        return {name: item if name.endswith("_options") else each_tensor(item, cut) for name, item in value.items()}
    return each_tensor(value, cut)
