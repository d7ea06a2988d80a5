"""A worker's end of its connections: frames and tensors, from this process's parent and from other workers."""

from __future__ import annotations

import logging
import queue
import socket
from collections import deque
from collections.abc import Sequence

import torch

from .. import lines
from ..network.split import Cut, State
from ..share import Unit
from .channel import Channel, ChannelBroken, Expected, connect
from .frames import FramePipe
from .messages import HEAD, inner_frame
from .shared import NoSharedMemory, Segment
from .sockets import take_over
from .token_ways import TokenChannels
from .wire import read_description

log = logging.getLogger("hybridiff.worker")

GROUP_LIMIT_S = 60.0  # for an inner device's result
WITH_MESSAGE = ("step", "inner")  # frames that a message of tensors follows


class Endpoint:
    """What comes in: frames, in order, and the tensor messages that they announce. And what goes out.

    A message is read by the main thread, when it has taken the frame that announces it.
    """

    def __init__(self, pipe: FramePipe, own_name: str, way: socket.socket | None):
        self.own_name = own_name
        self.channels: dict[str, Channel] = {}  # "" is the parent
        self.tokens = TokenChannels()
        self._pipe, self._way = pipe, way
        self._frames: queue.SimpleQueue = queue.SimpleQueue()

    # -- connections

    @property
    def parent(self) -> Channel:
        return self.channels[""]

    def connect(self, peer: str, rank: int, frame: dict, device: torch.device) -> dict:
        """Take over the socket and the memory that the parent gave, and meet the other end of it."""
        self.channels[peer], told = self._met(rank, frame, device)
        return told

    def connect_tokens(self, frame: dict, device: torch.device) -> dict:
        """Like `connect`, for a channel that only tokens go by."""
        channel, told = self._met(frame["rank"], frame, device)
        self.tokens.add(frame["connection"], frame["peer"], channel)
        return told

    def _met(self, rank: int, frame: dict, device: torch.device) -> tuple[Channel, dict]:
        end, memory = take_over(frame, self._way), self._memory(frame)
        return connect(end, rank, device, bytes.fromhex(frame["token"]), memory), {"shared": memory is not None}

    def enlarge(self, frame: dict) -> dict:
        """Take over further memory for the parent's channel."""
        if memory := self._memory(frame):
            self.parent.adopt(memory)
            self.parent.use()
        return {"shared": memory is not None}

    def _memory(self, frame: dict) -> Segment | None:
        """What the parent handed over with `frame`; None where it cannot be had, for it goes without."""
        if "memory" not in frame:
            return None
        try:
            return Segment.take_over(frame["memory"], self._way)
        except NoSharedMemory as error:
            log.warning("no shared memory: %s", error)
            return None

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
        if frame["op"] == "tokens_end":  # at once: the main thread may wait for what will not come
            self.tokens.end(frame["connection"])
            return
        parts = None
        if frame["op"] in WITH_MESSAGE:
            told = [frame["x"], frame["sigma"]] if frame["op"] == "step" else frame["state"]
            parts = [read_description(part) for part in told]
        self._frames.put((frame, parts))

    # -- the main thread

    def receive(self) -> tuple[dict, list | None]:
        """The next frame, and the shapes and dtypes of the message that it announces, which `expect` is given."""
        return self._frames.get()

    def expect(self, frame: dict, parts: list) -> Expected:
        """The message that `frame` announces. Raises ChannelBroken."""
        return self.to(frame.get("via", "")).expect(parts)


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
        self.endpoint.to(peer).send((self.x, *h), GROUP_LIMIT_S)
        parts = [HEAD, *((tuple(tensor.shape), tensor.dtype) for tensor in z)]
        self._expected.append(self.endpoint.to(self.route[-1][0]).expect(parts))

    def receive(self) -> State:
        expected = self._expected.popleft()
        _, *z = expected.wait(GROUP_LIMIT_S)
        copied = tuple(tensor.to(self.x.device, copy=True) for tensor in z)
        expected.release()
        return copied
