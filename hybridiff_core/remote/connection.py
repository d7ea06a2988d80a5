"""What a worker's bridge and a worker on another machine send each other: frames, and messages' bytes behind them.

A socket of its own, for Ray copies what its calls carry several times. The worker's machine listens for this one
connection, and no longer; who comes must know a key that Ray carried, inside the cluster's token.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import time
from collections.abc import Sequence

import numpy as np

from .. import lines
from ..workers.frames import FramePipe
from ..workers.sockets import Stranger, prove

ADMIT_S, PROVE_S = 10.0, 2.0  # for the bridge to come; for whoever came to show the key
IDLE_S, PROBES, PROBE_EVERY_S = 30, 4, 10  # a firewall must not forget a connection over which nothing goes
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

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)
        self._end.close()


class Door:
    """Listens on the first of `ports` of `address` that is free, for one connection. Raises OSError if none is."""

    def __init__(self, address: str, ports: Sequence[int], key: bytes):
        self._key = key
        self._door = _listening(address, ports)
        self.port = self._door.getsockname()[1]

    def admit(self) -> Connection:
        """The connection of who knows the key; nothing listens afterwards. Raises Stranger where nobody came."""
        deadline = time.monotonic() + ADMIT_S
        with self._door:
            while True:
                self._door.settimeout(max(0.001, deadline - time.monotonic()))
                try:
                    end, _ = self._door.accept()
                except TimeoutError as error:
                    raise Stranger(lines.TOKEN_NOT_SHOWN(seconds=ADMIT_S)) from error
                with contextlib.suppress(Stranger):
                    prove(end, self._key, 1, PROVE_S)
                    return Connection(end)
                end.close()


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
    family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
    deadline = time.monotonic() + ADMIT_S
    while True:
        for port in ports:
            try:
                return socket.create_server((address, port), family=family, backlog=4)
            except OSError as error:
                if error.errno != errno.EADDRINUSE or (port == ports[-1] and time.monotonic() > deadline):
                    raise
        time.sleep(AGAIN_S)
