"""Frames on a pipe: four bytes of length, and that many bytes of JSON."""

from __future__ import annotations

import json
import struct
import threading
from typing import BinaryIO

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
            raise CannotCross(f"a message of {len(data)} bytes is over the limit of {FRAME_LIMIT}")
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
            raise ValueError(f"a frame announces {size} bytes, over the limit of {FRAME_LIMIT}")
        data = self._read(size)
        if len(data) < size:
            return None
        try:
            message = json.loads(data)
        except RecursionError as error:
            raise ValueError("a frame is nested too deeply") from error
        if not isinstance(message, dict):
            raise ValueError(f"a frame holds {type(message).__name__} instead of an object")
        return message

    def _read(self, size: int) -> bytes:
        """`size` bytes, or fewer at the pipe's end. What is announced takes no memory before it is there."""
        parts = []
        while size and (part := self.incoming.read(min(size, READ_SIZE))):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
