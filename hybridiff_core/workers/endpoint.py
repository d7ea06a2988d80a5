"""A worker's end of its connections: frames and tensors, from this process's parent and from other workers."""

from __future__ import annotations

import queue
import socket
import threading
from collections import Counter, deque
from collections.abc import Sequence

import torch

from .. import lines
from ..network.split import Cut, State
from ..share import Unit
from .channel import Channel, ChannelBroken, Expected, connect
from .frames import FramePipe
from .messages import HEAD, inner_frame
from .sockets import take_over
from .wire import read_description

GROUP_LIMIT_S = 60.0  # for an inner device's result
WITH_MESSAGE = ("step", "inner")  # frames that a message of tensors follows


class Endpoint:
    """What comes in: frames, in order, and the tensor messages that they announce. And what goes out.

    A message is expected as soon as its frame is read, so that a sender does not wait for the main
    thread; unless one before it on the same channel is still to be expected by the main thread.
    """

    def __init__(self, pipe: FramePipe, own_name: str, way: socket.socket | None):
        self.own_name = own_name
        self.channels: dict[str, Channel] = {}  # "" is the parent
        self._pipe, self._way = pipe, way
        self._frames: queue.SimpleQueue = queue.SimpleQueue()
        self._late: Counter[str] = Counter()
        self._lock = threading.Lock()

    # -- connections

    @property
    def parent(self) -> Channel:
        return self.channels[""]

    def connect(self, peer: str, rank: int, frame: dict, device: torch.device) -> None:
        """Take over the socket that the parent gave, and meet the other end of it."""
        channel = connect(take_over(frame, self._way), rank, device, bytes.fromhex(frame["token"]))
        self.channels[peer] = channel

    def to(self, peer: str) -> Channel:
        """Raises ChannelBroken where the peer's end is known already."""
        if peer not in self.channels:
            raise ChannelBroken(lines.OTHER_WORKER_GONE())
        return self.channels[peer]

    def send(self, frame: dict) -> None:
        """Send the parent a frame."""
        self._pipe.send(frame)

    def send_to(self, peer: str, frame: dict) -> None:
        """Send another worker a frame; it goes by the parent."""
        self.send({"op": "pass", "peer": peer, "frame": frame})

    # -- the reading thread

    def read(self) -> None:
        """Take frames until the pipe's end. Raises ValueError on what is not a frame."""
        while frame := self._pipe.receive():
            self._take(frame)

    def _take(self, frame: dict) -> None:
        if frame["op"] == "ping":
            self.send({"op": "pong"})
            return
        if frame["op"] == "unlink":
            if channel := self.channels.pop(frame["peer"], None):
                channel.close()
            return
        via = frame.get("via", "")
        message = None
        if frame["op"] in WITH_MESSAGE or frame.get("tensors"):
            with self._lock:
                announced = frame["op"] in WITH_MESSAGE and not self._late[via] and via in self.channels
                message = self._expect(frame) if announced else None
                if message is None:
                    self._late[via] += 1
        self._frames.put((frame, message))

    # -- the main thread

    def receive(self) -> tuple[dict, Expected | None]:
        """The next frame, and the message that it announces."""
        frame, message = self._frames.get()
        if message is None and frame["op"] in WITH_MESSAGE:
            message = self._expect(frame)
            self.caught_up(frame)
        return frame, message

    def caught_up(self, frame: dict) -> None:
        """What `frame` announces is expected, or received, by the main thread."""
        with self._lock:
            self._late[frame.get("via", "")] -= 1

    def _expect(self, frame: dict) -> Expected:
        parts = [frame["x"], frame["sigma"]] if frame["op"] == "step" else frame["state"]
        return self.channels[frame.get("via", "")].expect([read_description(part) for part in parts])


class PeerLink:
    """A lead worker's way to its inner workers and back: a Link (lead.py)."""

    def __init__(self, endpoint: Endpoint, cut: Cut, route: Sequence[tuple[str, int, int]]):
        self.endpoint, self.cut, self.route = endpoint, cut, [tuple(hop) for hop in route]
        self.x: torch.Tensor | None = None
        self.sigma: torch.Tensor | None = None
        self._expected: deque[Expected] = deque()

    def at(self, x: torch.Tensor, sigma: torch.Tensor) -> None:
        self.x, self.sigma = x, sigma

    def send(self, unit: Unit, h: State, z: State) -> None:
        peer, *peers = (hop[0] for hop in self.route)
        frame = inner_frame(0, unit, self.x, self.sigma, h, z, self.cut.segments, peers, self.endpoint.own_name)
        self.endpoint.send_to(peer, frame)
        self.endpoint.channels[peer].send(h)
        parts = [HEAD, *((tuple(tensor.shape), tensor.dtype) for tensor in z)]
        self._expected.append(self.endpoint.channels[self.route[-1][0]].expect(parts))

    def receive(self) -> State:
        expected = self._expected.popleft()
        _, *z = expected.wait(GROUP_LIMIT_S)
        copied = tuple(tensor.to(self.x.device, copy=True) for tensor in z)
        expected.release()
        return copied
