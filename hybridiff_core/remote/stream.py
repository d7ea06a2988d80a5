"""What a worker's bridge and a worker on another machine send each other: a frame, and a message's bytes.

Both know the forms of workers/frames.py and channel.py; a message is relayed as the bytes that it is, unread. What is
larger than CHUNK goes in several calls, so that one is packed while another is on the wire.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable

import numpy as np
import torch

from .. import lines
from ..workers.channel import MESSAGE_LIMIT, ChannelBroken, layout

CHUNK = 512 << 10  # over 1 Gbit/s 1 MiB takes 3 ms beyond the wire; larger ones are better only over 10 Gbit/s
NOTHING = np.empty(0, np.uint8)


def parcel(frame: dict, data: np.ndarray | None = None) -> tuple[bytes, np.ndarray]:
    """A frame as JSON, and the bytes behind it."""
    return json.dumps(frame, separators=(",", ":")).encode(), NOTHING if data is None else data


def opened(text: object, data: object) -> tuple[dict, np.ndarray]:
    """Undo `parcel`. Raises ValueError."""
    if not isinstance(text, bytes) or not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 1:
        raise ValueError(lines.NO_MESSAGE())
    frame = json.loads(text)
    if not isinstance(frame, dict):
        raise ValueError(lines.FRAME_NO_OBJECT(kind=type(frame).__name__))
    return frame, data


def chunks(data: np.ndarray) -> list[np.ndarray]:
    """`data` in pieces of at most CHUNK; at least one."""
    return [data[start : start + CHUNK] for start in range(0, max(data.nbytes, 1), CHUNK)]


def taken(pieces: deque[np.ndarray], size: int) -> list[np.ndarray]:
    """The first `size` bytes of `pieces`, out of them, as they lie. Raises ChannelBroken where there are fewer."""
    found, left = [], size
    while left:
        if not pieces:
            raise ChannelBroken(lines.MESSAGE_OF_ANOTHER_SIZE(size=size - left, expected=size))
        piece = pieces.popleft()
        if piece.nbytes > left:
            pieces.appendleft(piece[left:])
            piece = piece[:left]
        found.append(piece)
        left -= piece.nbytes
    return found


class Stream:
    """Bytes that come in pieces, taken out as messages: the end of a Channel that a worker's loop needs.

    Its memory is used again, for new memory costs a large message as much time as a copy does.
    """

    def __init__(self) -> None:
        self._pieces: deque[np.ndarray] = deque()
        self.unused: torch.Tensor | None = None  # the memory of a message that is done with
        self._sent: list[torch.Tensor] = []
        self.outgoing: list[np.ndarray] = []

    def put(self, piece: np.ndarray) -> None:
        if piece.nbytes:
            self._pieces.append(piece)

    def clear(self) -> None:
        """What a failed request left."""
        self._pieces.clear()

    def begin(self) -> None:
        """Another call: what the last one gave is on its way, so its memory is free."""
        self.outgoing, self._sent = [], self._sent[:1]

    def expect(self, parts: Iterable, into: torch.Tensor | None = None) -> Came:
        """As Channel.expect; what is expected is here already. Raises ChannelBroken."""
        return Came(self, list(parts), into)

    def send(self, tensors: Iterable[torch.Tensor], limit_s: float = 0.0) -> int:
        """As Channel.send: a message to be given back with the call's answer."""
        tensors = [tensor.detach() for tensor in tensors]
        offsets, size = layout([(tuple(tensor.shape), tensor.dtype) for tensor in tensors])
        whole = self._sent.pop() if self._sent and not self.outgoing else None
        if whole is None or whole.nbytes != size:
            whole = torch.empty(size, dtype=torch.uint8)
        self._sent.append(whole)
        for offset, tensor in zip(offsets, tensors):
            whole[offset : offset + tensor.nbytes].view(tensor.dtype).view(tensor.shape).copy_(tensor)
        self.outgoing.append(whole.numpy())
        return size

    def memory(self, size: int) -> torch.Tensor:
        """Room for a message."""
        found, self.unused = self.unused, None
        return found if found is not None and found.nbytes == size else torch.empty(size, dtype=torch.uint8)

    def fill(self, buffer: np.ndarray) -> None:
        """The next bytes. Raises ChannelBroken where fewer came."""
        filled = 0
        for piece in taken(self._pieces, buffer.nbytes):
            buffer[filled : filled + piece.nbytes] = piece
            filled += piece.nbytes


class Came:
    """A message that is here: Expected, as far as a worker's loop asks."""

    def __init__(self, stream: Stream, parts: list, into: torch.Tensor | None):
        self._offsets, self.size = layout(parts)
        if self.size > MESSAGE_LIMIT:
            raise ChannelBroken(lines.MESSAGE_OVER_LIMIT(size=self.size, limit=MESSAGE_LIMIT))
        self._stream, self._parts = stream, parts
        self._own = into is None or into.nbytes != self.size
        self._buffer = stream.memory(self.size) if self._own else into
        stream.fill(self._buffer.numpy())

    def wait(self, limit_s: float) -> list[torch.Tensor]:
        found = []
        for offset, (shape, dtype) in zip(self._offsets, self._parts):
            count = torch.Size(shape).numel() * dtype.itemsize
            found.append(self._buffer[offset : offset + count].view(dtype).reshape(shape))
        return found

    def release(self) -> None:
        """Its memory may hold a later message."""
        if self._own:
            self._stream.unused = self._buffer
