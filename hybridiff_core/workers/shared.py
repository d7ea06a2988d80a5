"""Memory that two processes share, without a name that anybody else could open, for the tensors between them.

One process makes a segment and hands it over: on Unix as an open file that has no name (any more), through the
socket that the other inherited; on Windows under a random name of 256 bits, told by the private pipe. Where both are
gone, so is the memory, however they ended. A segment has two halves, one for each direction: in its own half a process
places messages, and the other one counts those that it has taken.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
import socket
import sys
from collections import deque
from collections.abc import Iterator

import torch

from .. import lines

FIRST_BYTES = 4 << 20  # of each direction; where a message needs more, a larger segment is made
MOST_BYTES = 1 << 30
COUNTERS = 4096  # bytes before the two halves: a count for each, far enough apart for two processors
APART = 64
PORTABLE = 1  # cudaHostRegisterPortable


class NoSharedMemory(Exception):
    """There is none to be had here, or not as announced."""


class Segment:
    """Mapped memory. `told` is what the other process must be told, beside what `hand_over` gives it."""

    def __init__(self, mapped: mmap.mmap, told: dict, descriptor: int | None = None):
        self.told, self._descriptor = told, descriptor
        # inference_mode(False): memory born in inference mode could not be written outside it
        with torch.inference_mode(False):
            self.memory = torch.frombuffer(mapped, dtype=torch.uint8)

    @classmethod
    def make(cls, each_way: int) -> Segment:
        """New memory with room for `each_way` bytes in either direction. Raises NoSharedMemory."""
        size = COUNTERS + 2 * each_way
        try:
            if sys.platform == "win32":
                name = f"Local\\hybridiff-{secrets.token_hex(32)}"
                return cls(mmap.mmap(-1, size, tagname=name), {"name": name, "bytes": size})
            descriptor = _nameless(size)
            try:
                return cls(mmap.mmap(descriptor, size), {"bytes": size}, descriptor)
            except BaseException:
                os.close(descriptor)
                raise
        except (OSError, ValueError, AttributeError, ImportError) as error:
            raise NoSharedMemory(str(error)) from error

    def hand_over(self, way: socket.socket | None) -> dict:
        """Give it to the process at the other end of `way`. Returns what that must be told, for `take_over`."""
        if self._descriptor is not None:
            socket.send_fds(way, [b"m"], [self._descriptor])
        return self.told

    @classmethod
    def take_over(cls, told: dict, way: socket.socket | None) -> Segment:
        """What `hand_over` gave; what is given comes in the order in which it was. Raises NoSharedMemory."""
        size = told["bytes"]
        if type(size) is not int or not COUNTERS < size <= COUNTERS + 2 * MOST_BYTES:
            raise NoSharedMemory(lines.MEMORY_NOT_AS_TOLD(size=size))
        try:
            if sys.platform == "win32":
                return cls(mmap.mmap(-1, size, tagname=told["name"]), told)
            _, (descriptor,), _, _ = socket.recv_fds(way, 1, 1)
            with open(descriptor, "r+b", buffering=0) as file:
                if os.fstat(descriptor).st_size < size:  # beyond its end an access would end this process
                    raise NoSharedMemory(lines.MEMORY_NOT_AS_TOLD(size=size))
                return cls(mmap.mmap(file.fileno(), size), told)
        except (OSError, ValueError) as error:
            raise NoSharedMemory(str(error)) from error

    def close_file(self) -> None:
        """It was handed over to all who get it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _nameless(size: int) -> int:
    """An open file of `size` bytes in memory, that has no name."""
    if hasattr(os, "memfd_create"):
        import fcntl

        descriptor = os.memfd_create("hybridiff", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        with _closed_on_error(descriptor):
            os.ftruncate(descriptor, size)
            # neither end can make it shorter under the other's feet
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        return descriptor
    # what multiprocessing.shared_memory uses, without its tracker, which would take it for left behind
    from _posixshmem import shm_open, shm_unlink

    name = f"/hyb{secrets.token_hex(12)}"  # macOS takes 31 characters
    descriptor = shm_open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR, mode=0o600)
    with _closed_on_error(descriptor):
        shm_unlink(name)
        os.ftruncate(descriptor, size)
        if hasattr(os, "posix_fallocate"):  # or an access to memory that is not there would end this process
            os.posix_fallocate(descriptor, 0, size)
    return descriptor


@contextlib.contextmanager
def _closed_on_error(descriptor: int) -> Iterator[None]:
    try:
        yield
    except BaseException:
        os.close(descriptor)
        raise


class Halves:
    """This process's view of a segment: the half that it fills, and the half that it reads.

    Messages are read in the order in which they were placed. With a GPU the memory is pinned, where it can be.
    """

    def __init__(self, segment: Segment, rank: int, device: torch.device):
        memory = segment.memory
        self.each_way = (memory.numel() - COUNTERS) // 2
        halves = memory[COUNTERS:].split(self.each_way)
        counters = memory[:COUNTERS].numpy().view("uint64")
        counts = [counters[way * APART // 8 : way * APART // 8 + 1] for way in (0, 1)]
        self._mine, self._theirs = halves[rank], halves[1 - rank]
        self._taken_of_mine, self._taken_by_me = counts[rank], counts[1 - rank]
        self._placed = 0
        self._out: deque[tuple[int, int, int]] = deque()  # which message, from where, to where
        self._registered = _register(memory, device)

    @property
    def pinned(self) -> bool:
        return self._registered is not None

    def place(self, size: int) -> tuple[int, torch.Tensor] | None:
        """Where a message of `size` bytes goes, and the memory there; None where there is no room now."""
        taken = int(self._taken_of_mine[0])
        while self._out and self._out[0][0] <= taken:
            self._out.popleft()
        needed = -(-size // APART) * APART
        start = self._start(needed)
        if start is None:
            return None
        self._placed += 1
        self._out.append((self._placed, start, start + needed))
        return start, self._mine[start : start + size]

    def _start(self, needed: int) -> int | None:
        if not self._out:  # at the beginning again: memory that was used before is in the processor's cache
            return 0 if needed <= self.each_way else None
        first, last = self._out[0][1], self._out[-1][2]
        if last > first and last + needed <= self.each_way:
            return last
        start = 0 if last > first else last
        return start if start + needed <= first else None

    def at(self, start: int, size: int) -> torch.Tensor:
        """A message that came. Raises ValueError where it would not lie within this process's half."""
        if start % APART or start + size > self.each_way:
            raise ValueError(lines.NO_MESSAGE())
        return self._theirs[start : start + size]

    def took(self) -> None:
        """The oldest message that came is no longer wanted."""
        self._taken_by_me[0] += 1

    def close(self) -> None:
        """Pinned no more. The memory goes with the last tensor that lies in it."""
        if self._registered is not None:
            address, self._registered = self._registered, None
            with contextlib.suppress(RuntimeError):
                torch.cuda.cudart().cudaHostUnregister(address)


def _register(memory: torch.Tensor, device: torch.device) -> int | None:
    """Pin `memory` for copies to and from a GPU; its address, or None where it is not pinned."""
    if device.type != "cuda":
        return None
    try:
        with torch.cuda.device(device):
            if int(torch.cuda.cudart().cudaHostRegister(memory.data_ptr(), memory.numel(), PORTABLE)) == 0:
                return memory.data_ptr()
    except (RuntimeError, AttributeError, TypeError):
        return None
    # the next operation would be told of the failure
    with contextlib.suppress(RuntimeError):
        torch.zeros(1, device=device).add_(1)
    return None
