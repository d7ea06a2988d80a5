"""What a worker's bridge and a worker on another machine send each other: frames, and messages' bytes behind them.

A socket of its own, for Ray copies what its calls carry several times. The worker's machine listens for this one
connection, and no longer; who comes must know a key that Ray carried, inside the cluster's token.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import sys
import time
from collections.abc import Sequence

import numpy as np

from .. import lines
from ..workers.frames import FramePipe
from ..workers.sockets import Stranger, prove

ADMIT_S, PROVE_S = 10.0, 2.0  # for the bridge to come; for whoever came to show the key
IDLE_S, PROBE_EVERY_S, PROBES = 3, 2, 2  # then a connection over which nothing goes is known to be cut
UNHEARD_MS = 6000  # after gaps of 1.5 s it comes to three
# of Linux's struct tcp_info: probes and packets that are not acknowledged, and milliseconds since anything was
TCP_INFO = struct.Struct("=3xB20xI28xI")
AGAIN_S = 0.1


class Connection:
    """Over a connected socket: a frame, and as many bytes as it says. One thread may send while another receives."""

    def __init__(self, end: socket.socket):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("TCP_KEEPIDLE", IDLE_S), ("TCP_KEEPINTVL", PROBE_EVERY_S), ("TCP_KEEPCNT", PROBES)):
            if hasattr(socket, name):
                end.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self._end = end
        self._frames = FramePipe(end.makefile("rb", buffering=0), end.makefile("wb"))
        self.heard = time.monotonic()  # when something last came

    def send(self, frame: dict) -> None:
        """Send a frame. Raises OSError, CannotCross."""
        self._frames.send(frame)

    def add(self, data: np.ndarray) -> None:
        """Send bytes that belong behind the last frame; they may change afterwards. Raises OSError."""
        self._end.sendall(memoryview(data))

    def receive(self) -> dict | None:
        """The next frame; None where the other end hung up. Raises OSError, and ValueError on what is no frame."""
        frame = self._frames.receive()
        self.heard = time.monotonic()
        return frame

    def fill(self, buffer: np.ndarray) -> None:
        """Take the bytes behind a frame. Raises OSError, EOFError too where the other end hung up."""
        left = memoryview(buffer)
        while left:
            count = self._end.recv_into(left)
            if not count:
                raise EOFError(lines.HUNG_UP_EARLY())
            self.heard = time.monotonic()
            left = left[count:]

    def is_cut(self) -> bool:
        """Whether the other machine acknowledges nothing of what was sent. Linux alone would try for a quarter hour."""
        if sys.platform != "linux":
            return False
        try:
            told = self._end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO.size)
            probes, packets, since_ms = TCP_INFO.unpack(told)
        except (OSError, struct.error):  # what stands in for Linux may not know it (WSL 1, gVisor)
            return False
        return probes + packets > 0 and since_ms > UNHEARD_MS

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self._frames.outgoing.close()  # it may have something that cannot be sent any more
        self._frames.incoming.close()
        self._end.close()


class Door:
    """Listens on the first of `ports` of `address` that is free, for one connection. Raises OSError if none is."""

    def __init__(self, address: str, ports: Sequence[int], key: bytes):
        self._key = key
        self._door = _listening(address, ports)
        self._until = time.monotonic() + ADMIT_S
        self.port = self._door.getsockname()[1]

    def admit(self) -> Connection:
        """The connection of who knows the key; nothing listens afterwards. Raises Stranger where nobody came."""
        with self._door:
            while (left := self._until - time.monotonic()) > 0:
                self._door.settimeout(left)
                try:
                    end, _ = self._door.accept()
                except OSError:  # nobody came, or who came is gone again
                    continue
                try:
                    prove(end, self._key, 1, min(PROVE_S, left))
                    return Connection(end)
                except Stranger:
                    end.close()
        raise Stranger(lines.TOKEN_NOT_SHOWN(seconds=ADMIT_S))


def connect(address: str, port: int, key: bytes) -> Connection:
    """The bridge's end. Raises OSError, and Stranger where another program answers."""
    end = socket.create_connection((address, port), timeout=ADMIT_S)
    try:
        prove(end, key, 0, ADMIT_S)
    except Stranger:
        end.close()
        raise
    return Connection(end)


def _listening(address: str, ports: Sequence[int]) -> socket.socket:
    """Tries for as long as a bridge waits: another worker of this machine may have the ports for a moment."""
    deadline = time.monotonic() + ADMIT_S
    while True:
        for port in ports:
            try:
                return _listening_on(address, port)
            except OSError as error:
                refused = error
        if time.monotonic() > deadline:
            raise refused
        time.sleep(AGAIN_S)


def _listening_on(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
    door = socket.socket(family, socket.SOCK_STREAM)
    try:
        # on Windows SO_REUSEADDR would let any program have the port too
        alone = socket.SO_EXCLUSIVEADDRUSE if sys.platform == "win32" else socket.SO_REUSEADDR
        door.setsockopt(socket.SOL_SOCKET, alone, 1)
        door.bind((address, port))
        door.listen(4)
    except OSError:
        door.close()
        raise
    return door
