"""Connected sockets between processes of one machine, made here and handed over.

A pair is made by one process, which gives an end to another: on Unix through a socket that the
other inherited, on Windows by the system's duplicate for that very process. Nothing listens, so
nobody else can connect.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import queue
import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from .. import lines

TRIES = 5
BUFFER = 4 << 20  # bytes in either direction; the system may give less


class Stranger(Exception):
    """The other end did not prove in time that it knows the token."""


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends. Raises Stranger where somebody else came in between, time and again."""
    for _ in range(TRIES):
        here, there = socket.socketpair()
        # on Windows a pair is made by listening on the loopback address for a moment
        unix = here.family == getattr(socket, "AF_UNIX", None)
        if unix or (here.getsockname() == there.getpeername() and there.getsockname() == here.getpeername()):
            return here, there
        here.close()
        there.close()
    raise Stranger(lines.STRANGER_BETWEEN(times=TRIES))


def hurry(end: socket.socket) -> None:
    """Have a pair take a whole latent before it waits, and one that is TCP (on Windows) send at once."""
    if end.family != getattr(socket, "AF_UNIX", None):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for buffer in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        with contextlib.suppress(OSError):  # some systems refuse more than their limit
            end.setsockopt(socket.SOL_SOCKET, buffer, BUFFER)


def ready(end: socket.socket, limit_s: float, writing: bool = False) -> bool:
    """Wait until `end` has something to read, or takes something; whether it does within `limit_s`."""
    try:
        if not hasattr(select, "poll"):  # Windows, where select counts sockets, not their numbers
            return any(select.select(*([], [end]) if writing else ([end], []), [end], limit_s))
        poll = select.poll()
        poll.register(end, select.POLLOUT if writing else select.POLLIN)
        return bool(poll.poll(1e3 * limit_s))
    except (OSError, ValueError):  # it was closed meanwhile, as the next use of it shows
        return True


def hand_over(end: socket.socket, way: socket.socket | None, pid: int) -> dict:
    """Give a socket to the process `pid`: on Unix by `way`. Returns what it must be told, for `take_over`."""
    if sys.platform == "win32":
        return {"socket": end.share(pid).hex()}
    socket.send_fds(way, [b"s"], [end.fileno()])
    return {}


def take_over(told: dict, way: socket.socket | None) -> socket.socket:
    """The socket that `hand_over` gave; sockets come in the order in which they were given."""
    if sys.platform == "win32":
        return socket.fromshare(bytes.fromhex(told["socket"]))
    _, (descriptor,), _, _ = socket.recv_fds(way, 1, 1)
    return socket.socket(fileno=descriptor)


def prove(end: socket.socket, token: bytes, rank: int, limit_s: float) -> None:
    """Show the other end that this one knows `token`, and let it show the same; ranks are 0 and 1.

    Nothing of what comes is read but 32 bytes, which are compared in constant time.
    Raises Stranger.
    """
    deadline = time.monotonic() + limit_s
    try:
        end.settimeout(limit_s)
        if rank == 0:
            end.sendall(_proof(token, 0))
        answer = b""
        while len(answer) < 32:
            end.settimeout(max(0.001, deadline - time.monotonic()))
            part = end.recv(32 - len(answer))
            if not part:
                raise Stranger(lines.HUNG_UP_EARLY())
            answer += part
        if not hmac.compare_digest(answer, _proof(token, 1 - rank)):
            raise Stranger(lines.STRANGER_ANSWERED())
        if rank == 1:
            end.sendall(_proof(token, 1))
        end.settimeout(None)
    except TimeoutError as error:
        raise Stranger(lines.TOKEN_NOT_SHOWN(seconds=limit_s)) from error
    except OSError as error:
        raise Stranger(lines.OTHER_END_GONE(error=error)) from error


def _proof(token: bytes, rank: int) -> bytes:
    return hashlib.sha256(token + bytes([rank])).digest()


class Line:
    """Does jobs one after the other, in a thread of its own."""

    def __init__(self, name: str):
        self._jobs: queue.SimpleQueue = queue.SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def do(self, job: Callable, *arguments: object) -> Future:
        done = Future()
        self._jobs.put((done, job, arguments))
        return done

    def close(self) -> None:
        """End the thread once the jobs given so far are done."""
        self._jobs.put(None)

    def _work(self) -> None:
        while item := self._jobs.get():
            done, job, arguments = item
            try:
                done.set_result(job(*arguments))
            except BaseException as error:  # noqa: BLE001 - for who waits; the jobs behind it are done too
                done.set_exception(error)
            del item, done, job, arguments
