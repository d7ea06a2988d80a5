"""The end of a Channel that a worker's loop needs, where messages come by a connection (connection.py).

A message is relayed between machines as the bytes that it is in workers/channel.py, unread.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from .. import lines
from ..workers.channel import MESSAGE_LIMIT, ChannelBroken, layout
from .connection import Connection


class Stream:
    """The bytes behind one frame at a time, taken out as messages; and the messages that answer it.

    Its memory is used again, for new memory costs a large message as much time as a copy does.
    """

    def __init__(self) -> None:
        self.unused: torch.Tensor | None = None  # the memory of a message that is done with
        self.outgoing: list[np.ndarray] = []
        self._connection, self._left = None, 0
        self._sent: list[torch.Tensor] = []

    def begin(self, connection: Connection, size: int) -> None:
        """A frame came with so many bytes behind it. The last one's answer is sent, so its memory is free."""
        self._connection, self._left = connection, size
        self.outgoing, self._sent = [], self._sent[:1]

    def end(self) -> None:
        """Take what a request that failed left unread. Raises OSError and EOFError."""
        while self._left:
            self.fill(np.empty(min(self._left, 1 << 20), np.uint8))

    def expect(self, parts: Iterable, into: torch.Tensor | None = None) -> Came:
        """As Channel.expect; waits until it is here. Raises ChannelBroken where it is not behind the frame."""
        return Came(self, list(parts), into)

    def send(self, tensors: Iterable[torch.Tensor], limit_s: float = 0.0) -> int:
        """As Channel.send: a message to be given back with the frame's answer."""
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
        """The next bytes. Raises ChannelBroken where there are fewer behind the frame; OSError and EOFError."""
        if buffer.nbytes > self._left:
            raise ChannelBroken(lines.MESSAGE_OF_ANOTHER_SIZE(size=self._left, expected=buffer.nbytes))
        self._left -= buffer.nbytes
        self._connection.fill(buffer)


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
