"""Tensors between two processes: by memory that they share (shared.py), with a connected socket (sockets.py) to signal.

A message is tensors behind a head that says its size and where it lies: in the shared memory, or, where there is
none or no room, behind the head in the socket. Who receives knows the size beforehand, and what is announced otherwise
is refused: no length that comes in is ever allocated or trusted.

No thread of its own has a part in it, for each one would wait for Python's lock while the main thread launches
kernels: who sends writes itself, who wants a message reads it itself. Only what the other end does not take is left
to a thread, so that nobody waits for one that is stuck.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass

import torch

from .. import lines
from ..waiting import wait_for
from .shared import Halves, Segment
from .sockets import Line, Stranger, hurry, prove, ready

ALIGNMENT = 16
CONNECT_LIMIT_S = 10.0
SEND_LIMIT_S = 10.0
MOST_UNTAKEN = 2  # messages that the other end has not taken; it takes none while it computes
STALL_S = 0.005  # the other end has taken nothing for so long: a thread sends the rest
LOOK_S = 0.05
MESSAGE_LIMIT = 4 << 30
# mark, the segment's number (0: the tensors follow), bytes, where in the segment; a multiple of ALIGNMENT
HEAD = struct.Struct("<4sIQQ8x")
MARK = b"hyb2"

Parts = Sequence[tuple[tuple[int, ...], torch.dtype]]


class ChannelBroken(Exception):
    """The other end is gone, does not answer in time, is not who it should be, or sent something else."""


def connect(
    end: socket.socket, rank: int, device: torch.device, token: bytes, segment: Segment | None = None
) -> Channel:
    """The channel over `end` (ranks are 0 and 1), after both ends showed that they know `token`.

    `segment` is memory that both ends have. Raises ChannelBroken.
    """
    try:
        prove(end, token, rank, CONNECT_LIMIT_S)
    except Stranger as error:
        end.close()
        raise ChannelBroken(str(error)) from error
    return Channel(end, device, rank, segment)


class Channel:
    """Messages in each direction; a message is a list of tensors of agreed shapes.

    Several may be on their way at once; they come in the order of `expect`. Not for concurrent senders, nor for
    concurrent receivers; one thread may send while another receives.
    """

    def __init__(self, end: socket.socket, device: torch.device, rank: int = 0, segment: Segment | None = None):
        self.device, self._rank = device, rank
        self.bytes_sent = self.bytes_received = 0
        self._end = end
        hurry(end)
        end.setblocking(False)
        self._closed = False
        self._outgoing: torch.Tensor | None = None
        self._untaken: deque[Future] = deque()
        self._line: Line | None = None
        self._expected: deque[Expected] = deque()
        self._unused: list[torch.Tensor] = []  # buffers for messages to come
        self._reading = threading.Lock()
        self._failure: str | None = None
        self._segments: dict[int, Halves] = {}
        self._numbers = 0
        self._sends_in = 0
        if segment:
            self.adopt(segment)
            self.use()

    # -- the shared memory

    @property
    def room(self) -> int:
        """Bytes of the largest message that can go by shared memory."""
        return self._segments[self._sends_in].each_way if self._sends_in else 0

    @property
    def pinned(self) -> bool:
        """Whether what is received lies in memory that a GPU copies from without this process's waiting."""
        return bool(self._sends_in and self._segments[self._sends_in].pinned)

    def adopt(self, segment: Segment) -> None:
        """Take a further segment, which the other end has too or will have; both count them."""
        self._numbers += 1
        self._segments[self._numbers] = Halves(segment, self._rank, self.device)

    def use(self) -> None:
        """Send by the segment adopted last; the other end has it."""
        self._sends_in = self._numbers

    # -- sending

    def send(
        self,
        tensors: Sequence[torch.Tensor],
        limit_s: float = SEND_LIMIT_S,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> int:
        """Send a message of `tensors`; returns its bytes. They may be changed afterwards.

        Does not wait for the other end to take it; but where that has not taken several messages before it, up to
        `limit_s` seconds for one of these, with `meanwhile` called now and then. Raises ChannelBroken.
        """
        return self.send_stowed(self.stow(tensors, limit_s, meanwhile))

    def stow(
        self,
        tensors: Sequence[torch.Tensor],
        limit_s: float = SEND_LIMIT_S,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> Stowed:
        """Begin to copy a message, which `send_stowed` sends; no other is sent in between. Waits as `send` does."""
        offsets, total = layout([(tuple(tensor.shape), tensor.dtype) for tensor in tensors])
        self._make_way(limit_s, meanwhile)
        placed = self._segments[self._sends_in].place(total) if self._sends_in else None
        if placed:
            start, body = placed
            data = memoryview(HEAD.pack(MARK, self._sends_in, total, start))
        else:
            size = HEAD.size + total
            # what is not taken yet lies in the buffer that there is
            self._outgoing = _grown(self._outgoing if not self._untaken else None, size, self.device)
            HEAD.pack_into(self._outgoing.numpy(), 0, MARK, 0, total, 0)
            body = self._outgoing[HEAD.size : size]
            data = memoryview(self._outgoing.numpy())[:size]  # head and body: one write sends both
        for offset, tensor in zip(offsets, tensors):
            room = body[offset : offset + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
            room.copy_(tensor.detach(), non_blocking=True)
        return Stowed(data, total, {tensor.device for tensor in tensors})

    def send_stowed(self, stowed: Stowed) -> int:
        """Wait until all is copied, on the devices' current streams, and send it; returns its bytes."""
        for device in stowed.devices:
            wait_for(device)
        if self._untaken:
            self._leave(stowed.data)
        else:
            self._write(stowed.data)
        self.bytes_sent += stowed.size
        return stowed.size

    def _make_way(self, limit_s: float, meanwhile: Callable[[], None]) -> None:
        deadline = time.monotonic() + limit_s
        while self._untaken:
            late = len(self._untaken) >= MOST_UNTAKEN
            try:
                self._untaken[0].result(min(LOOK_S, limit_s) if late else 0.0)
                self._untaken.popleft()
            except NotYet as error:
                if not late:
                    return
                if self._expected:  # the other end may wait for the same, until it is read from
                    self.receive(self._expected[0], 0.0)
                if time.monotonic() > deadline:
                    raise ChannelBroken(lines.NOTHING_CAME(seconds=limit_s)) from error
                meanwhile()

    def _write(self, data: memoryview) -> None:
        try:
            while data:
                if (count := self._send_some(data)) or ready(self._end, STALL_S, writing=True):
                    data = data[count:]
                    continue
                self._leave(data)
                return
        except BaseException:  # an interrupt too: what would follow could not be told apart
            self.close()
            raise

    def _leave(self, data: memoryview) -> None:
        """The other end is busy, or stuck: a thread sends it when it is taken."""
        self._line = self._line or Line("hybridiff-send")
        self._untaken.append(self._line.do(self._send_rest, data))

    def _send_rest(self, data: memoryview) -> None:
        while data:
            data = data[self._send_some(data) :]
            ready(self._end, 1.0, writing=True)

    def _send_some(self, data: memoryview) -> int:
        if self._closed:
            raise ChannelBroken(lines.CLOSED())
        try:
            return self._end.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except (OSError, ValueError) as error:
            raise ChannelBroken(self._how_broken(error)) from error

    # -- receiving

    def expect(self, parts: Parts, into: torch.Tensor | None = None) -> Expected:
        """What will come next: a message of tensors of these shapes and dtypes.

        Raises ChannelBroken. The tensors that `Expected.wait` gives are views of memory that is theirs
        until `Expected.release`; `into` is memory for those that come by the socket.
        """
        expected = Expected(self, parts, into)
        if expected.size > MESSAGE_LIMIT:
            raise ChannelBroken(lines.MESSAGE_OVER_LIMIT(size=expected.size, limit=MESSAGE_LIMIT))
        self._expected.append(expected)
        return expected

    def receive(self, wanted: Expected, limit_s: float) -> bool:
        """Read until `wanted` is here, and say whether it is within `limit_s`. Raises ChannelBroken."""
        deadline = time.monotonic() + limit_s
        while not wanted.here:
            with self._reading:
                if self._failure or self._closed:
                    raise ChannelBroken(self._failure or lines.CLOSED())
                if self._read_some(self._expected[0]):
                    if self._expected[0].here:
                        self._expected.popleft()
                    continue
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                ready(self._end, left)
        return True

    def _read_some(self, message: Expected) -> bool:
        """Read what is there of `message`; whether it was anything."""
        try:
            count = self._end.recv_into(message.unread)
        except (BlockingIOError, InterruptedError):
            return False
        except (OSError, ValueError) as error:
            raise self._broke(self._how_broken(error)) from error
        if not count:
            raise self._broke(self._how_broken(lines.OTHER_END_HUNG_UP()))
        message.unread = message.unread[count:]
        if not message.unread and message.body is None:
            self._locate(message)
        message.here = not message.unread
        return True

    def _locate(self, message: Expected) -> None:
        """Its head is here: find its memory, and what of it is still to be read."""
        mark, number, size, start = HEAD.unpack(message.head)
        if mark != MARK or (number and number not in self._segments):
            raise self._broke(lines.NO_MESSAGE())  # what follows cannot be told apart any more
        if size != message.size:
            raise self._broke(lines.MESSAGE_OF_ANOTHER_SIZE(size=size, expected=message.size))
        if number:
            message.segment = self._segments[number]
            try:
                message.body = message.segment.at(start, size)
            except ValueError as error:
                raise self._broke(str(error)) from error
            for older in [known for known in self._segments if known < min(number, self._sends_in)]:
                self._segments.pop(older).close()  # each end has gone on to a later one
            return
        buffer = message.into
        if buffer is None or buffer.numel() != size:
            buffer = message.buffer = _grown(self._unused.pop() if self._unused else None, size, self.device)
        message.body = buffer[:size]
        message.unread = memoryview(message.body.numpy())

    def _broke(self, reason: str) -> ChannelBroken:
        self._failure = self._failure or reason
        with contextlib.suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)
        return ChannelBroken(self._failure)

    def close(self) -> None:
        """Hang up; what is under way fails at both ends."""
        self._closed = True
        with contextlib.suppress(OSError):  # the other end may have hung up already
            self._end.shutdown(socket.SHUT_RDWR)  # wakes who waits in it
        if self._line:
            self._line.close()
        with self._reading:
            self._end.close()
            self._expected.clear()  # each holds the channel, and so its memory
            for halves in self._segments.values():
                halves.close()

    def _how_broken(self, error: object) -> str:
        return lines.CLOSED() if self._closed else str(error)


@dataclass(frozen=True)
class Stowed:
    """A message whose tensors are on their way from `devices`: what the socket is given, and the tensors' bytes."""

    data: memoryview
    size: int
    devices: set[torch.device]


class Expected:
    """A message on its way here. It is read by who asks for it; `result` and `done` are as a Future's."""

    def __init__(self, channel: Channel, parts: Parts, into: torch.Tensor | None):
        offsets, self.size = layout(parts)
        self._channel, self._parts = channel, list(zip(offsets, parts))
        self.head = bytearray(HEAD.size)
        self.unread = memoryview(self.head)
        self.here = False
        self.into, self.body, self.buffer = into, None, None
        self.segment: Halves | None = None

    def done(self, limit_s: float = 0.0) -> bool:
        """Whether it is here, or never will be, within so many seconds."""
        try:
            return self._channel.receive(self, limit_s)
        except ChannelBroken:
            return True

    def result(self, limit_s: float) -> None:
        """Wait until it is here. Raises ChannelBroken, and NotYet after `limit_s`."""
        if not self._channel.receive(self, limit_s):
            raise NotYet

    def wait(self, limit_s: float) -> list[torch.Tensor]:
        """The tensors, in host memory. Raises ChannelBroken, after `limit_s` too."""
        if not self._channel.receive(self, limit_s):
            raise ChannelBroken(lines.NOTHING_CAME(seconds=limit_s))
        self._channel.bytes_received += self.size
        tensors = []
        for offset, (shape, dtype) in self._parts:
            count = torch.Size(shape).numel() * dtype.itemsize
            tensors.append(self.body[offset : offset + count].view(dtype).reshape(shape))
        return tensors

    def release(self) -> None:
        """The tensors are no longer wanted: their memory may hold a later message."""
        if self.segment:
            self.segment.took()
        elif self.buffer is not None:
            self._channel._unused.append(self.buffer)


def _memory(size: int, device: torch.device) -> torch.Tensor:
    """Bytes that go to `device` or come from it."""
    # inference_mode(False): a buffer born in inference mode could not be written outside it
    with torch.inference_mode(False):
        if device.type == "cuda":
            with contextlib.suppress(RuntimeError):  # where no more can be pinned, a copy waits for the device
                return torch.empty(size, dtype=torch.uint8, pin_memory=True)
        return torch.empty(size, dtype=torch.uint8)


def _grown(buffer: torch.Tensor | None, size: int, device: torch.device) -> torch.Tensor:
    return buffer if buffer is not None and buffer.numel() >= size else _memory(size, device)


def layout(parts: Parts) -> tuple[list[int], int]:
    """Where each tensor starts in a message, and the message's size, in bytes."""
    offsets, end = [], 0
    for shape, dtype in parts:
        offsets.append(end)
        size = torch.Size(shape).numel() * dtype.itemsize
        end += -(-size // ALIGNMENT) * ALIGNMENT
    return offsets, max(end, ALIGNMENT)
