"""What a worker's bridge and a worker on another machine send each other: a frame, and a message's bytes, in one array.

Both know the forms of workers/frames.py and channel.py; a message is relayed as the bytes that it is, unread. What is
larger than CHUNK goes in several calls, so that one is packed while another is on the wire.
"""

from __future__ import annotations

import json
import struct
from collections import deque
from collections.abc import Iterable

import numpy as np
import torch

from .. import lines
from ..workers.channel import MESSAGE_LIMIT, ChannelBroken, layout

CHUNK = 256 << 10
LENGTH = struct.Struct("<I")


def pack(frame: dict, data: np.ndarray | None = None) -> np.ndarray:
    """A frame as JSON, and bytes behind it."""
    text = json.dumps(frame, separators=(",", ":")).encode()
    size = LENGTH.size + len(text)
    whole = np.empty(size + (0 if data is None else data.nbytes), np.uint8)
    whole[:size] = np.frombuffer(LENGTH.pack(len(text)) + text, np.uint8)
    if data is not None:
        whole[size:] = data
    return whole


def unpack(whole: np.ndarray) -> tuple[dict, np.ndarray]:
    """Undo `pack`; the bytes are a view. Raises ValueError."""
    if not isinstance(whole, np.ndarray) or whole.dtype != np.uint8 or whole.nbytes < LENGTH.size:
        raise ValueError(lines.NO_MESSAGE())
    end = LENGTH.size + LENGTH.unpack(bytes(whole[: LENGTH.size]))[0]
    frame = json.loads(bytes(whole[LENGTH.size : end]))
    if not isinstance(frame, dict):
        raise ValueError(lines.FRAME_NO_OBJECT(kind=type(frame).__name__))
    return frame, whole[end:]


def chunks(data: np.ndarray) -> list[np.ndarray]:
    """`data` in pieces of at most CHUNK; at least one."""
    return [data[start : start + CHUNK] for start in range(0, max(data.nbytes, 1), CHUNK)]


class Stream:
    """Bytes that come in pieces, taken out as messages: the end of a Channel that a worker's loop needs."""

    def __init__(self) -> None:
        self._pieces: deque[np.ndarray] = deque()
        self.outgoing: list[np.ndarray] = []

    def put(self, piece: np.ndarray) -> None:
        if piece.nbytes:
            self._pieces.append(piece)

    def clear(self) -> None:
        """What a failed request left."""
        self._pieces.clear()

    def expect(self, parts: Iterable, into: torch.Tensor | None = None) -> Came:
        """As Channel.expect; what is expected is here already. Raises ChannelBroken."""
        return Came(self, list(parts), into)

    def send(self, tensors: Iterable[torch.Tensor], limit_s: float = 0.0) -> int:
        """As Channel.send: a message to be given back with the call's answer."""
        tensors = [tensor.detach() for tensor in tensors]
        offsets, size = layout([(tuple(tensor.shape), tensor.dtype) for tensor in tensors])
        whole = torch.empty(size, dtype=torch.uint8)
        for offset, tensor in zip(offsets, tensors):
            whole[offset : offset + tensor.nbytes].view(tensor.dtype).view(tensor.shape).copy_(tensor)
        self.outgoing.append(whole.numpy())
        return size

    def fill(self, buffer: np.ndarray) -> None:
        """The next bytes. Raises ChannelBroken where fewer came."""
        filled = 0
        while filled < buffer.nbytes:
            if not self._pieces:
                raise ChannelBroken(lines.MESSAGE_OF_ANOTHER_SIZE(size=filled, expected=buffer.nbytes))
            piece = self._pieces.popleft()
            count = min(piece.nbytes, buffer.nbytes - filled)
            buffer[filled : filled + count] = piece[:count]
            filled += count
            if count < piece.nbytes:
                self._pieces.appendleft(piece[count:])


class Came:
    """A message that is here: Expected, as far as a worker's loop asks."""

    def __init__(self, stream: Stream, parts: list, into: torch.Tensor | None):
        self._offsets, self.size = layout(parts)
        if self.size > MESSAGE_LIMIT:
            raise ChannelBroken(lines.MESSAGE_OVER_LIMIT(size=self.size, limit=MESSAGE_LIMIT))
        self._parts = parts
        self._buffer = (
            into if into is not None and into.nbytes == self.size else torch.empty(self.size, dtype=torch.uint8)
        )
        stream.fill(self._buffer.numpy())

    def wait(self, limit_s: float) -> list[torch.Tensor]:
        found = []
        for offset, (shape, dtype) in zip(self._offsets, self._parts):
            count = torch.Size(shape).numel() * dtype.itemsize
            found.append(self._buffer[offset : offset + count].view(dtype).reshape(shape))
        return found

    def release(self) -> None:
        """The buffer is this message's own."""
