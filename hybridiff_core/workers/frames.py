"""Frames on a pipe: four bytes of length, and that many bytes of JSON."""

from __future__ import annotations

import json
import struct
import threading
from typing import BinaryIO

from .. import lines
from .wire import CannotCross

FRAME_LIMIT = 64 << 20
READ_SIZE = 1 << 20


class FramePipe:
    """Both directions of a pipe, a frame at a time. `send` may be called from any thread."""

    def __init__(self, incoming: BinaryIO, outgoing: BinaryIO):
        self.incoming, self.outgoing = incoming, outgoing
        self._lock = threading.Lock()

    def send(self, message: dict) -> None:
        """Raises OSError or ValueError when the other end is gone, CannotCross for too large a message."""
        self.write(self.pack(message))

    @staticmethod
    def pack(message: dict) -> bytes:
        """The frame that `write` sends. Raises CannotCross."""
        data = json.dumps(message, separators=(",", ":")).encode()
        if len(data) > FRAME_LIMIT:
            raise CannotCross(lines.TOO_LARGE_TO_SEND(size=len(data), limit=FRAME_LIMIT))
        return struct.pack("<I", len(data)) + data

    def write(self, frame: bytes) -> None:
        with self._lock:
            self.outgoing.write(frame)
            self.outgoing.flush()

    def receive(self) -> dict | None:
        """The next frame, or None at the pipe's end. Raises ValueError on what is not a frame."""
        head = self._read(4)
        if len(head) < 4:
            return None
        (size,) = struct.unpack("<I", head)
        if size > FRAME_LIMIT:
            raise ValueError(lines.FRAME_TOO_LARGE(size=size, limit=FRAME_LIMIT))
        data = self._read(size)
        if len(data) < size:
            return None
        try:
            message = json.loads(data)
        except RecursionError as error:
            raise ValueError(lines.FRAME_TOO_DEEP()) from error
        if not isinstance(message, dict):
            raise ValueError(lines.FRAME_NO_OBJECT(kind=type(message).__name__))
        return message

    def _read(self, size: int) -> bytes:
        """`size` bytes, or fewer at the pipe's end. What is announced takes no memory before it is there."""
        parts = []
        while size and (part := self.incoming.read(min(size, READ_SIZE))):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
