"""A bridge: takes what ComfyUI's process gives a worker, has it done on another machine, and gives back the answers."""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
import threading
import warnings
from collections import deque
from collections.abc import Callable

import numpy as np
import torch

from .. import lines
from ..share import Unit
from ..workers.channel import layout
from ..workers.endpoint import Endpoint
from ..workers.loop import MESSAGE_LIMIT_S, answers_to
from ..workers.messages import HEAD
from ..workers.pieces import PIECE_BYTES
from ..workers.wire import read_description
from ..workers.worker import follow_parent, private_pipe
from .link import Link, Lost
from .machines import read
from .parcels import taken

log = logging.getLogger("hybridiff.worker")

CPU = torch.device("cpu")
HEAD_BYTES = layout([HEAD])[1]
NOT_THERE = ("link", "tokens", "cut", "measured", "history")  # what takes the other devices of its machine


def serve() -> None:
    """A bridge's life, from its first frame to the end of its pipe."""
    warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # Ray's memory, which is only read
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
                (x, dtype), _ = parts
                answers = answers_to(frame, [Unit(branch, index) for branch, index in frame["units"]])
                self._steps += 1
                answer = layout([HEAD, *[(x, dtype)] * answers])[1]
                self._message(layout(parts)[1], lambda data: self.link.do(frame, data, answer))
            case _:
                for item in frame.get("tensors", ()):
                    self._tensor(*read_description([item["shape"], item["dtype"]]))
                self.link.do(frame)

    def _reply(self, frame: dict, info: dict) -> None:
        self.endpoint.send({"op": "reply", "id": frame["id"], **info})

    def _tensor(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        left = torch.Size(shape).numel() * dtype.itemsize
        while True:
            piece = min(left, PIECE_BYTES)
            self._message(layout([((piece,), torch.uint8)])[1], self.link.put)
            left -= piece
            if left <= 0:
                return

    def _message(self, size: int, then: Callable[[np.ndarray], None]) -> None:
        expected = self.endpoint.parent.expect([((size,), torch.uint8)])
        (data,) = expected.wait(MESSAGE_LIMIT_S)
        then(data.numpy())
        expected.release()

    # -- and back

    def _answered(self, told: dict, pieces: list[np.ndarray], seconds: float) -> None:
        for frame in told["frames"]:
            self.endpoint.send(frame)
        left = deque(pieces)
        for size in told["messages"]:
            head, *others = taken(left, size)
            numbers = self._with_the_way(np.array(head[:HEAD_BYTES]), seconds)
            parts = [numbers, head[HEAD_BYTES:], *others]
            self.endpoint.parent.send([torch.from_numpy(part) for part in parts if part.nbytes])

    def _with_the_way(self, head: np.ndarray, seconds: float) -> np.ndarray:
        """What a step took: computing, and the way there and back, which is what a device far away costs."""
        numbers = head.view(np.int64)
        alone, self._steps = self._steps == 1, self._steps - 1
        if alone:
            self._way_s = max(0.0, seconds - numbers[2] / 1e6)
        numbers[2] += int(1e6 * self._way_s)
        return head

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
