"""Tensors between two processes over a torch.distributed process group of their own.

The group is not torch's global one, so it stands beside whatever else uses torch.distributed.
The two ends find each other through their control pipe (`PipeStore`): no rendezvous port, no
file. Gloo listens on the loopback address only; before anything else crosses, each end proves
that it knows the token which went through the pipe.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import sys
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta

import torch
import torch.distributed as dist

from .wire import as_bytes

ALIGNMENT = 16
CONNECT_LIMIT_S = 60.0
SEND_LIMIT_S = 10.0  # the other end takes each message at once, unless it is stuck
PIECE_BYTES = 16 << 20


class ChannelBroken(Exception):
    """The other end is gone, does not answer in time, or is not who it should be."""


class PipeStore(dist.Store):
    """The key-value store through which a process group's ends find each other, over the control pipe.

    What this end sets, `send` carries to the other; what the other end sets comes in by `put`.
    """

    def __init__(self, send: Callable[[str, bytes], None], limit_s: float = CONNECT_LIMIT_S):
        super().__init__()
        self._send, self._limit_s = send, limit_s
        self._values: dict[str, bytes] = {}
        self._changed = threading.Condition()

    def put(self, key: str, value: bytes) -> None:
        with self._changed:
            self._values[key] = value
            self._changed.notify_all()

    def set(self, key: str, value: bytes | str) -> None:
        data = value.encode() if isinstance(value, str) else bytes(value)
        self.put(key, data)
        self._send(key, data)

    def get(self, key: str) -> bytes:
        self.wait([key])
        return self._values[key]

    def check(self, keys: Sequence[str]) -> bool:
        with self._changed:
            return all(key in self._values for key in keys)

    def wait(self, keys: Sequence[str], timeout: timedelta | None = None) -> None:
        limit = timeout.total_seconds() if timeout else self._limit_s
        with self._changed:
            if not self._changed.wait_for(lambda: all(key in self._values for key in keys), limit):
                raise ChannelBroken(f"the other process did not come to the meeting within {limit:.0f} s")


def choose_backend(here: str, there: str, same_device: bool, platform: str = sys.platform) -> str:
    """ "gloo", or "nccl" between two different CUDA devices on Linux where HYBRIDIFF_NCCL=1 asks for it.

    `here` and `there` are torch device types; HIP builds call theirs "cuda" and bring RCCL. nccl is
    not the default: a peer that dies leaves its kernel waiting, and torch's watchdog then ends the
    whole process; a latent is too small for the difference in speed to be seen.
    """
    asked = os.environ.get("HYBRIDIFF_NCCL") == "1"
    if asked and here == there == "cuda" and not same_device and platform == "linux" and dist.is_nccl_available():
        return "nccl"
    return "gloo"


def connect(store: dist.Store, rank: int, backend: str, device: torch.device, token: bytes) -> Channel:
    """Meet the other end (ranks are 0 and 1) and check that it knows `token`.

    Raises ChannelBroken when it does not come or answers wrongly.
    """
    limit = timedelta(seconds=CONNECT_LIMIT_S)
    try:
        if backend == "nccl":
            torch.cuda.set_device(device)
            group = dist.ProcessGroupNCCL(store, rank, 2, limit)
        else:
            options = dist.ProcessGroupGloo._Options()
            options._devices = [dist.ProcessGroupGloo.create_device(hostname="127.0.0.1")]
            options._timeout = limit
            group = dist.ProcessGroupGloo(store, rank, 2, options)
        channel = Channel(group, rank, backend, device)
        # one after the other: nccl runs a group's transfers in order, and two sends would wait for each other
        if rank == 0:
            channel.send([_proof(token, rank)])
        answer = channel.expect([((32,), torch.uint8)]).wait(CONNECT_LIMIT_S)[0]
        if rank == 1:
            channel.send([_proof(token, rank)])
    except RuntimeError as error:
        raise ChannelBroken(f"no {backend} connection: {error}") from error
    if not hmac.compare_digest(bytes(answer.cpu().tolist()), bytes(_proof(token, 1 - rank).tolist())):
        raise ChannelBroken("a stranger answered on the channel: it does not know this run's token")
    return channel


def _proof(token: bytes, rank: int) -> torch.Tensor:
    return torch.tensor(list(hashlib.sha256(token + bytes([rank])).digest()), dtype=torch.uint8)


class Channel:
    """One message at a time in each direction; a message is a list of tensors of agreed shapes.

    A message is one buffer and one transfer. Buffers are made once and grow when a larger message
    comes; for gloo with a GPU they lie in pinned host memory. Several messages may be expected at
    once; they come in the order of `expect`. Not for concurrent senders, nor for concurrent callers
    of `expect`; one thread may send while another receives.
    """

    def __init__(self, group: object, rank: int, backend: str, device: torch.device):
        self.backend, self.device = backend, device
        self.bytes_sent = self.bytes_received = 0
        self._group, self._peer = group, 1 - rank
        on_gpu = backend == "nccl"
        self._buffer_device = device if on_gpu else torch.device("cpu")
        self._pinned = device.type == "cuda" and not on_gpu
        self._outgoing = self._buffer(0)
        self._sending: object | None = None
        self._unused: list[torch.Tensor] = []  # buffers for messages to come

    def send(self, tensors: Sequence[torch.Tensor], limit_s: float = SEND_LIMIT_S) -> int:
        """Copy `tensors` into the buffer and start its transfer; returns the message's bytes.

        Waits, up to `limit_s`, for the transfer before this one. Raises ChannelBroken.
        """
        offsets, total = _layout([(tuple(tensor.shape), tensor.dtype) for tensor in tensors])
        self.finish_sending(limit_s)
        self._outgoing = self._grown(self._outgoing, total)
        for offset, tensor in zip(offsets, tensors):
            data = as_bytes(tensor.detach())
            self._outgoing[offset : offset + data.numel()].copy_(data, non_blocking=True)
        self._settle([tensor.device for tensor in tensors])
        try:
            self._sending = self._group.send([self._outgoing[:total]], self._peer, 0)
        except RuntimeError as error:
            raise ChannelBroken(str(error)) from error
        self.bytes_sent += total
        return total

    def finish_sending(self, limit_s: float = SEND_LIMIT_S) -> None:
        """Wait until the last message has left the buffer. Raises ChannelBroken."""
        work, self._sending = self._sending, None
        if work is not None:
            _wait(work, limit_s)

    def expect(self, parts: Sequence[tuple[tuple[int, ...], torch.dtype]]) -> Expected:
        """Get ready for a message of tensors of these shapes and dtypes.

        Raises ChannelBroken. The tensors that `Expected.wait` gives are views of a buffer: they are
        valid until `Expected.release`.
        """
        offsets, total = _layout(parts)
        buffer = self._grown(self._unused.pop() if self._unused else self._buffer(0), total)
        try:
            work = self._group.recv([buffer[:total]], self._peer, 0)
        except RuntimeError as error:
            raise ChannelBroken(str(error)) from error
        return Expected(self, work, buffer, total, list(zip(offsets, parts)))

    def send_whole(self, tensor: torch.Tensor) -> None:
        """Send a tensor of any size, in pieces, so that the buffers stay small. Raises ChannelBroken."""
        for piece in as_bytes(tensor.detach()).split(PIECE_BYTES):
            self.send([piece])

    def receive_whole(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """Receive what `send_whole` sends, into host memory of its own. Raises ChannelBroken."""
        whole = torch.empty(tuple(shape), dtype=dtype)
        for piece in as_bytes(whole).split(PIECE_BYTES):
            expected = self.expect([(tuple(piece.shape), torch.uint8)])
            piece.copy_(expected.wait(CONNECT_LIMIT_S)[0])
            expected.release()
        return whole

    def close(self) -> None:
        """Let go of the group; the other end's transfers fail."""
        if self.backend == "nccl" and self._group is not None:
            self._group.abort()
        self._group = self._sending = None

    def _buffer(self, size: int) -> torch.Tensor:
        # inference_mode(False): a buffer born in inference mode could not be written outside it
        with torch.inference_mode(False):
            return torch.empty(size, dtype=torch.uint8, device=self._buffer_device, pin_memory=self._pinned)

    def _grown(self, buffer: torch.Tensor, size: int) -> torch.Tensor:
        return buffer if buffer.numel() >= size else self._buffer(size)

    def _settle(self, devices: Sequence[torch.device]) -> None:
        # gloo reads host memory, so copies out of a device must have arrived; nccl orders itself by stream
        if self._buffer_device.type == "cpu":
            for device in {device for device in devices if device.type != "cpu"}:
                torch.get_device_module(device).synchronize(device)


class Expected:
    """A message on its way here."""

    def __init__(self, channel: Channel, work: object, buffer: torch.Tensor, size: int, parts: list):
        self._channel, self._work, self._buffer, self._parts = channel, work, buffer, parts
        self.size = size

    def wait(self, limit_s: float) -> list[torch.Tensor]:
        """The tensors, on the buffer's device (host memory for gloo). Raises ChannelBroken after `limit_s`."""
        _wait(self._work, limit_s)
        self._channel.bytes_received += self.size
        tensors = []
        for offset, (shape, dtype) in self._parts:
            count = torch.Size(shape).numel() * dtype.itemsize
            tensors.append(self._buffer[offset : offset + count].view(dtype).reshape(shape))
        return tensors

    def release(self) -> None:
        """The tensors are no longer wanted: their memory may hold a later message."""
        self._channel._unused.append(self._buffer)


def _wait(work: object, limit_s: float) -> None:
    try:
        work.wait(timedelta(seconds=limit_s))
    except RuntimeError as error:
        raise ChannelBroken(str(error)) from error


def _layout(parts: Sequence[tuple[tuple[int, ...], torch.dtype]]) -> tuple[list[int], int]:
    """Where each tensor starts in a message, and the message's size, in bytes."""
    offsets, end = [], 0
    for shape, dtype in parts:
        offsets.append(end)
        size = torch.Size(shape).numel() * dtype.itemsize
        end += -(-size // ALIGNMENT) * ALIGNMENT
    return offsets, max(end, ALIGNMENT)
