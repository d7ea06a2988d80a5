"""A bridge: takes what ComfyUI's process gives a worker, has it done on another machine, and gives back the answers."""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator

import numpy as np
import torch

from .. import lines
from ..workers.channel import layout
from ..workers.endpoint import Endpoint
from ..workers.loop import MESSAGE_LIMIT_S
from ..workers.messages import HEAD
from ..workers.pieces import PIECE_BYTES
from ..workers.wire import read_description
from ..workers.worker import follow_parent, private_pipe
from .link import Link, Lost
from .machines import read

log = logging.getLogger("hybridiff.worker")

CPU = torch.device("cpu")
HEAD_BYTES = layout([HEAD])[1]
NOT_THERE = ("link", "tokens", "cut", "measured", "history")  # what takes the other devices of its machine


def serve() -> None:
    """A bridge's life, from its first frame to the end of its pipe."""
    pipe = private_pipe()
    start = pipe.receive()
    if start is None:
        return
    way = socket.socket(fileno=start.pop("way")) if "way" in start else None
    relay = Relay(BridgeEndpoint(pipe, start["name"], way))
    threading.Thread(target=relay.read, name="frames", daemon=True).start()
    threading.Thread(target=follow_parent, args=(os.getppid(), relay.end), name="parent", daemon=True).start()
    relay.run(start)


class BridgeEndpoint(Endpoint):
    """A worker's end; a sign of life is given by the one on the other machine."""

    sign: Callable[[Callable[[], None]], None] | None = None

    def _take(self, frame: dict) -> None:
        if frame["op"] == "ping" and self.sign:
            self.sign(lambda: self.send({"op": "pong"}))
        else:
            super()._take(frame)


class Relay:
    """Frames and messages, to the other machine and back."""

    def __init__(self, endpoint: BridgeEndpoint):
        self.endpoint = endpoint
        self.link: Link | None = None
        self._steps = 0  # that are out
        self._way_s = 0.0  # there and back, without computing

    def run(self, start: dict) -> None:
        try:
            self.link = self._linked(start["machine"])
            self.endpoint.sign = self.link.sign
            self.endpoint.send({"op": "ready", **self.link.start(start), "pid": os.getpid()})
            while True:
                self._take(*self.endpoint.receive())
        except Lost as error:
            self._lost(str(error))
        except Exception as error:
            log.exception("the bridge ends")
            self._lost(lines.WORKER_ERROR(kind=type(error).__name__, words=str(error)[:200]))

    def _linked(self, name: str) -> Link:
        if importlib.util.find_spec("ray") is None:
            raise Lost(lines.NO_RAY())
        cluster = read()
        there = [m for m in cluster.machines if m.name == name and m.alive] if cluster else []
        if not there:
            raise Lost(lines.MACHINE_OFF(machine=name))
        return Link(cluster, there[-1], self._answered, self._lost)

    # -- there

    def _take(self, frame: dict, parts: list | None) -> None:
        match frame["op"]:
            case "connect":
                self._reply(frame, self.endpoint.connect("", 1, frame, CPU))
            case "memory":
                self._reply(frame, self.endpoint.enlarge(frame))
            case op if op in NOT_THERE:
                self._reply(frame, {"error": lines.NOT_BETWEEN_MACHINES()})
            case "step":
                self._steps += 1
                self._relay(frame, [layout(parts)[1]])
            case _:
                described = (read_description([item["shape"], item["dtype"]]) for item in frame.get("tensors", ()))
                self._relay(frame, [size for one in described for size in _pieces(*one)])

    def _reply(self, frame: dict, info: dict) -> None:
        self.endpoint.send({"op": "reply", "id": frame["id"], **info})

    def _relay(self, frame: dict, sizes: list[int]) -> None:
        self.link.do(frame, (message for size in sizes for message in self._message(size)), sum(sizes))

    def _message(self, size: int) -> Iterator[np.ndarray]:
        expected = self.endpoint.parent.expect([((size,), torch.uint8)])
        (data,) = expected.wait(MESSAGE_LIMIT_S)
        yield data.numpy()
        expected.release()

    # -- and back

    def _answered(self, told: dict, data: np.ndarray, seconds: float) -> None:
        for frame in told["frames"]:
            self.endpoint.send(frame)
        start = 0
        for size in told["messages"]:
            message = data[start : start + size]
            self._add_the_way(message[:HEAD_BYTES].view(np.int64), seconds)
            self.endpoint.parent.send([torch.from_numpy(message)])
            start += size

    def _add_the_way(self, numbers: np.ndarray, seconds: float) -> None:
        """What a step took: computing, and the way there and back, which is what a device far away costs."""
        alone, self._steps = self._steps == 1, self._steps - 1
        if alone:
            self._way_s = max(0.0, seconds - numbers[2] / 1e6)
        numbers[2] += int(1e6 * self._way_s)

    # -- the end

    def read(self) -> None:
        try:
            self.endpoint.read()
        finally:
            self.end()

    def end(self) -> None:
        """The parent is gone, or done with us: end the worker there, and this process."""
        if self.link:
            self.link.close()
        os._exit(0)

    def _lost(self, reason: str) -> None:
        try:
            self.endpoint.send({"op": "lost", "text": reason})
        finally:
            self.end()


def _pieces(shape: tuple[int, ...], dtype: torch.dtype) -> list[int]:
    """The sizes of the messages that a tensor comes in (workers/pieces.py)."""
    size = torch.Size(shape).numel() * dtype.itemsize
    pieces = [min(PIECE_BYTES, size - start) for start in range(0, max(size, 1), PIECE_BYTES)]
    return [layout([((piece,), torch.uint8)])[1] for piece in pieces]
