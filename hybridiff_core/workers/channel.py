"""Tensors between two processes, over a connected socket (sockets.py).

A message is one buffer behind a head that says its size. Who receives knows the size beforehand, and
what is announced otherwise is refused: no length that comes in is ever allocated or trusted.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet

import torch

from .. import lines
from ..waiting import wait_for
from .sockets import Line, Stranger, hurry, prove
from .wire import as_bytes

ALIGNMENT = 16
CONNECT_LIMIT_S = 10.0
PIECE_LIMIT_S = 60.0
SEND_LIMIT_S = 10.0  # the other end takes each message at once, unless it is stuck
MESSAGE_LIMIT = 4 << 30
PIECE_BYTES = 16 << 20
HEAD = struct.Struct("<4s4xQ")  # as long as ALIGNMENT: it lies before the first tensor, and one write sends both
MARK = b"hyb1"


class ChannelBroken(Exception):
    """The other end is gone, does not answer in time, is not who it should be, or sent something else."""


def connect(end: socket.socket, rank: int, device: torch.device, token: bytes) -> Channel:
    """The channel over `end` (ranks are 0 and 1), after both ends showed that they know `token`.

    Raises ChannelBroken.
    """
    try:
        prove(end, token, rank, CONNECT_LIMIT_S)
    except Stranger as error:
        end.close()
        raise ChannelBroken(str(error)) from error
    return Channel(end, device)


class Channel:
    """One message at a time in each direction; a message is a list of tensors of agreed shapes.

    Buffers are made once and grow when a larger message comes; with a GPU they lie in pinned memory.
    Several messages may be expected at once; they come in the order of `expect`. Not for concurrent
    senders, nor for concurrent callers of `expect`; one thread may send while another receives.
    """

    def __init__(self, end: socket.socket, device: torch.device):
        self.device = device
        self.bytes_sent = self.bytes_received = 0
        self._end = end
        hurry(end)
        self._closed = False
        self._pinned = device.type == "cuda"
        self._outgoing = self._buffer(0)
        self._sending: Future | None = None
        self._unused: list[torch.Tensor] = []  # buffers for messages to come
        self._out, self._in = Line("hybridiff-send"), Line("hybridiff-receive")

    def send(self, tensors: Sequence[torch.Tensor], limit_s: float = SEND_LIMIT_S) -> int:
        """Copy `tensors` into the buffer and start its transfer; returns the message's bytes.

        Waits, up to `limit_s`, for the transfer before this one. Raises ChannelBroken.
        """
        offsets, total = _layout([(tuple(tensor.shape), tensor.dtype) for tensor in tensors])
        self.finish_sending(limit_s)
        self._outgoing = self._grown(self._outgoing, HEAD.size + total)
        HEAD.pack_into(self._outgoing.numpy(), 0, MARK, total)
        message = self._outgoing[HEAD.size : HEAD.size + total]
        for offset, tensor in zip(offsets, tensors):
            data = as_bytes(tensor.detach())
            message[offset : offset + data.numel()].copy_(data, non_blocking=True)
        for device in {tensor.device for tensor in tensors}:  # what is copied must be here before it is sent
            wait_for(device)
        self._sending = self._out.do(self._send_now, self._outgoing[: HEAD.size + total])
        self.bytes_sent += total
        return total

    def finish_sending(self, limit_s: float = SEND_LIMIT_S) -> None:
        """Wait until the last message has left the buffer. Raises ChannelBroken."""
        sending, self._sending = self._sending, None
        if sending is not None:
            _wait(sending, limit_s)

    def expect(self, parts: Sequence[tuple[tuple[int, ...], torch.dtype]]) -> Expected:
        """Get ready for a message of tensors of these shapes and dtypes.

        Raises ChannelBroken. The tensors that `Expected.wait` gives are views of a buffer: they are
        valid until `Expected.release`.
        """
        offsets, total = _layout(parts)
        if total > MESSAGE_LIMIT:
            raise ChannelBroken(lines.MESSAGE_OVER_LIMIT(size=total, limit=MESSAGE_LIMIT))
        buffer = self._grown(self._unused.pop() if self._unused else self._buffer(0), total)
        coming = self._in.do(self._receive_now, buffer[:total])
        return Expected(self, coming, buffer, total, list(zip(offsets, parts)))

    def send_whole(self, tensor: torch.Tensor) -> None:
        """Send a tensor of any size, in pieces, so that the buffers stay small. Raises ChannelBroken."""
        for piece in as_bytes(tensor.detach()).split(PIECE_BYTES):
            self.send([piece])

    def receive_whole(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """Receive what `send_whole` sends, into host memory of its own. Raises ChannelBroken."""
        whole = torch.empty(tuple(shape), dtype=dtype)
        for piece in as_bytes(whole).split(PIECE_BYTES):
            expected = self.expect([(tuple(piece.shape), torch.uint8)])
            piece.copy_(expected.wait(PIECE_LIMIT_S)[0])
            expected.release()
        return whole

    def close(self) -> None:
        """Hang up; what is under way fails at both ends."""
        self._closed = True
        with contextlib.suppress(OSError):  # the other end may have hung up already
            self._end.shutdown(socket.SHUT_RDWR)  # wakes the threads that wait in it
        self._out.close()
        self._in.do(self._end.close)
        self._in.close()

    def _send_now(self, buffer: torch.Tensor) -> None:
        try:
            self._end.sendall(memoryview(buffer.numpy()))
        except OSError as error:
            raise ChannelBroken(self._how_broken(error)) from error

    def _receive_now(self, buffer: torch.Tensor) -> None:
        head = bytearray(HEAD.size)
        self._fill(memoryview(head))
        mark, size = HEAD.unpack(head)
        if mark != MARK or size != buffer.numel():
            self.close()  # what follows cannot be told apart any more
            if mark != MARK:
                raise ChannelBroken(lines.NO_MESSAGE())
            raise ChannelBroken(lines.MESSAGE_OF_ANOTHER_SIZE(size=size, expected=buffer.numel()))
        self._fill(memoryview(buffer.numpy()))

    def _fill(self, view: memoryview) -> None:
        while view:
            try:
                count = self._end.recv_into(view)
            except OSError as error:
                raise ChannelBroken(self._how_broken(error)) from error
            if not count:
                raise ChannelBroken(self._how_broken(lines.OTHER_END_HUNG_UP()))
            view = view[count:]

    def _how_broken(self, error: object) -> str:
        return lines.CLOSED() if self._closed else str(error)

    def _buffer(self, size: int) -> torch.Tensor:
        # inference_mode(False): a buffer born in inference mode could not be written outside it
        with torch.inference_mode(False):
            return torch.empty(size, dtype=torch.uint8, pin_memory=self._pinned)

    def _grown(self, buffer: torch.Tensor, size: int) -> torch.Tensor:
        return buffer if buffer.numel() >= size else self._buffer(size)


class Expected:
    """A message on its way here. `coming` is done when it is here, or broken."""

    def __init__(self, channel: Channel, coming: Future, buffer: torch.Tensor, size: int, parts: list):
        self.coming, self.size = coming, size
        self._channel, self._buffer, self._parts = channel, buffer, parts

    def wait(self, limit_s: float) -> list[torch.Tensor]:
        """The tensors, in host memory. Raises ChannelBroken after `limit_s`."""
        _wait(self.coming, limit_s)
        self._channel.bytes_received += self.size
        tensors = []
        for offset, (shape, dtype) in self._parts:
            count = torch.Size(shape).numel() * dtype.itemsize
            tensors.append(self._buffer[offset : offset + count].view(dtype).reshape(shape))
        return tensors

    def release(self) -> None:
        """The tensors are no longer wanted: their memory may hold a later message."""
        self._channel._unused.append(self._buffer)


def _wait(done: Future, limit_s: float) -> None:
    try:
        done.result(limit_s)
    except NotYet as error:
        raise ChannelBroken(lines.NOTHING_CAME(seconds=limit_s)) from error


def _layout(parts: Sequence[tuple[tuple[int, ...], torch.dtype]]) -> tuple[list[int], int]:
    """Where each tensor starts in a message, and the message's size, in bytes."""
    offsets, end = [], 0
    for shape, dtype in parts:
        offsets.append(end)
        size = torch.Size(shape).numel() * dtype.itemsize
        end += -(-size // ALIGNMENT) * ALIGNMENT
    return offsets, max(end, ALIGNMENT)
