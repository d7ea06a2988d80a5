"""The worker's loop: frames in, predictions out. What a prediction is, a Backend knows."""

from __future__ import annotations

import logging
import os
import queue
import socket
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from ..network.lead import Lead, measure
from ..network.split import Cut, Inner, Pass, Reached, State
from ..share import Unit
from .channel import Channel, ChannelBroken, Expected, connect
from .frames import FramePipe
from .messages import FAILED, GROUP_LOST, HEAD, RIGHT, head, inner_frame
from .sockets import take_over
from .wire import DTYPES, Kinds, decode, describe_tensor, read_description

log = logging.getLogger("hybridiff.worker")

MESSAGE_LIMIT_S = 60.0  # for a message whose frame is here
GROUP_LIMIT_S = 60.0  # for an inner device's result


class Backend(Protocol):
    """What a worker computes with: ComfyUI's model, or the demo's."""

    device: torch.device
    kinds: Kinds

    def load(self, recipe: object) -> dict:
        """Hold the model that `recipe` describes; the answer goes back as information."""

    def begin(self, run: object, fresh: bool) -> None:
        """Take a run's conditioning and options; `fresh` is False where a run's conditioning changed."""

    def predict(
        self,
        x: torch.Tensor,
        sigma: torch.Tensor,
        units: Sequence[tuple[int, int]],
        through: Pass | None = None,
    ) -> list[torch.Tensor]:
        """The prediction for each branch in `units` (branch, cond), in the order of branches.

        `through` is asked at each of the network's blocks; a network without such blocks ignores it.
        """

    def end(self) -> None:
        """The run is over."""

    def unload(self) -> None:
        """Give the device's memory back."""


def serve(make_backend: Callable[[dict], Backend]) -> None:
    """A worker process's life, from its first frame to the end of its pipe.

    `make_backend` gets the first frame: device, threads, and what else the host told.
    """
    pipe = _private_pipe()
    start = pipe.receive()
    if start is None:
        return
    way = socket.socket(fileno=start["way"]) if "way" in start else None
    inlet = _Inlet(pipe, start["name"], way)
    threading.Thread(target=_read_frames, args=(pipe, inlet), name="frames", daemon=True).start()
    threading.Thread(target=_follow_parent, args=(os.getppid(),), name="parent", daemon=True).start()
    if start.get("cpus") and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, start["cpus"])
    if start.get("threads"):
        torch.set_num_threads(int(start["threads"]))
    try:
        backend = make_backend(start)
    except Exception as error:
        log.exception("no start: %s", describe(error))
        os._exit(1)  # at once: torch takes its time to end a process
    pipe.send({"op": "ready", "pid": os.getpid(), "device": str(backend.device)})
    with torch.inference_mode():
        _Worker(pipe, inlet, backend).run()


def _private_pipe() -> FramePipe:
    """Take standard input and output for frames alone; what libraries print goes to standard error."""
    incoming, outgoing = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    if sys.platform == "win32":
        import msvcrt

        for descriptor in (incoming, outgoing):
            msvcrt.setmode(descriptor, os.O_BINARY)
    return FramePipe(os.fdopen(incoming, "rb"), os.fdopen(outgoing, "wb"))


def _read_frames(pipe: FramePipe, inlet: _Inlet) -> None:
    try:
        while frame := pipe.receive():
            inlet.take(frame)
    finally:
        # the parent is gone, or done with us, or nothing it says can be read: whatever the main thread does
        os._exit(0)


def _follow_parent(parent: int) -> None:
    # a third process that was forked from the parent may hold the pipe open after the parent's death
    while sys.platform != "win32":
        if os.getppid() != parent:
            os._exit(0)
        time.sleep(1.0)


class _Inlet:
    """What comes in: frames, in order, and the tensor messages that they announce.

    A message is expected as soon as its frame is read, so that a sender does not wait for the main
    thread; unless one before it on the same channel is still to be expected by the main thread.
    """

    def __init__(self, pipe: FramePipe, own_name: str, way: socket.socket | None):
        self.pipe, self.own_name = pipe, own_name
        self.frames: queue.SimpleQueue = queue.SimpleQueue()
        self.channels: dict[str, Channel] = {}  # "" is the parent
        self._way = way
        self._late: Counter[str] = Counter()
        self._lock = threading.Lock()

    def connect(self, peer: str, rank: int, frame: dict, device: torch.device) -> None:
        """Take over the socket that the parent gave, and meet the other end of it."""
        channel = connect(take_over(frame, self._way), rank, device, bytes.fromhex(frame["token"]))
        self.channels[peer] = channel

    def to(self, peer: str) -> Channel:
        """Raises ChannelBroken where the peer's end is known already."""
        if peer not in self.channels:
            raise ChannelBroken("the other worker is gone")
        return self.channels[peer]

    def send_to(self, peer: str, frame: dict) -> None:
        """Send another worker a frame; it goes by the parent."""
        self.pipe.send({"op": "pass", "peer": peer, "frame": frame})

    def take(self, frame: dict) -> None:
        """Called by the reading thread."""
        if frame["op"] == "ping":
            self.pipe.send({"op": "pong"})
            return
        if frame["op"] == "unlink":
            if channel := self.channels.pop(frame["peer"], None):
                channel.close()
            return
        via = frame.get("via", "")
        message = None
        if frame["op"] in ("step", "inner") or frame.get("tensors"):
            with self._lock:
                announced = frame["op"] in ("step", "inner") and not self._late[via] and via in self.channels
                message = self._expect(frame) if announced else None
                if message is None:
                    self._late[via] += 1
        self.frames.put((frame, message))

    def message(self, frame: dict, message: Expected | None) -> Expected:
        """The message that `frame` announces, expected by now. Called by the main thread."""
        if message is None:
            message = self._expect(frame)
            self.caught_up(frame)
        return message

    def caught_up(self, frame: dict) -> None:
        """What `frame` announces is expected, or received, by the main thread."""
        with self._lock:
            self._late[frame.get("via", "")] -= 1

    def _expect(self, frame: dict) -> Expected:
        parts = [frame["x"], frame["sigma"]] if frame["op"] == "step" else frame["state"]
        return self.channels[frame.get("via", "")].expect([read_description(part) for part in parts])


class _PeerLink:
    """A lead worker's way to its inner workers and back: a Link (lead.py)."""

    def __init__(self, inlet: _Inlet, cut: Cut, route: Sequence[tuple[str, int, int]]):
        self.inlet, self.cut, self.route = inlet, cut, [tuple(hop) for hop in route]
        self.x: torch.Tensor | None = None
        self.sigma: torch.Tensor | None = None
        self._expected: deque[Expected] = deque()

    def at(self, x: torch.Tensor, sigma: torch.Tensor) -> None:
        self.x, self.sigma = x, sigma

    def send(self, unit: Unit, h: State, z: State) -> None:
        peer, *peers = (hop[0] for hop in self.route)
        frame = inner_frame(0, unit, self.x, self.sigma, h, z, self.cut.segments, peers, self.inlet.own_name)
        self.inlet.send_to(peer, frame)
        self.inlet.channels[peer].send(h)
        parts = [HEAD, *((tuple(tensor.shape), tensor.dtype) for tensor in z)]
        self._expected.append(self.inlet.channels[self.route[-1][0]].expect(parts))

    def receive(self) -> State:
        expected = self._expected.popleft()
        _, *z = expected.wait(GROUP_LIMIT_S)
        copied = tuple(tensor.to(self.x.device, copy=True) for tensor in z)
        expected.release()
        return copied


class _Worker:
    def __init__(self, pipe: FramePipe, inlet: _Inlet, backend: Backend):
        self.pipe, self.inlet, self.backend = pipe, inlet, backend
        self.tensors: dict[int, torch.Tensor] = {}
        self.failure: str | None = None
        self.lead: Lead | None = None
        self.measured: dict = {}

    @property
    def channel(self) -> Channel:
        return self.inlet.channels[""]

    def run(self) -> None:
        while True:
            frame, message = self.inlet.frames.get()
            match frame["op"]:
                case "step":
                    self.step(frame, self.inlet.message(frame, message))
                case "inner":
                    self.inner(frame, self.inlet.message(frame, message))
                case _:
                    self.answer(frame)

    def answer(self, frame: dict) -> None:
        try:
            info = self.request(frame) or {}
        except Exception as error:
            log.exception("%s failed", frame["op"])
            self.failure = describe(error)
            info = {"error": self.failure}
        if frame.get("tensors"):
            self.inlet.caught_up(frame)
        self.pipe.send({"op": "reply", "id": frame["id"], **info})
        if frame["op"] == "history" and "error" not in info:
            values = self.lead.recall(frame["unit"], frame["count"])
            self.channel.send([tensor for _, state in values for tensor in state])

    def request(self, frame: dict) -> dict | None:
        match frame["op"]:
            case "connect":
                self.inlet.connect("", 1, frame, self.backend.device)
            case "link":
                self.inlet.connect(frame["peer"], frame["rank"], frame, self.backend.device)
            case "load":
                self.failure = None
                return self.backend.load(self.unpack(frame))
            case "begin" | "renew" as op:
                self.failure, self.measured = None, {}
                self.backend.begin(self.unpack(frame), fresh=op == "begin")
            case "measured":
                return self.measured
            case "cut":
                cut = Cut(tuple(frame["bounds"]))
                link = _PeerLink(self.inlet, cut, frame["route"]) if frame["route"] else None
                self.lead = Lead(cut, link, frame["delay"], frame["extrapolate"])
            case "history":
                values = self.lead.recall(frame["unit"], frame["count"])
                return {"values": [[time, [describe_tensor(tensor) for tensor in state]] for time, state in values]}
            case "end":
                self.lead = None
                self.backend.end()
            case "unload":
                self.backend.unload()
            case op:
                raise ValueError(f"unknown request {op}")
        return None

    def unpack(self, frame: dict) -> object:
        for number in frame["forget"]:
            self.tensors.pop(number, None)
        for item in frame["tensors"]:
            tensor = self.channel.receive_whole(item["shape"], DTYPES[item["dtype"]])
            self.tensors[item["number"]] = tensor.to(self.backend.device) if item["on_device"] else tensor
        return decode(frame["value"], self.tensors.__getitem__, self.backend.kinds)

    # -- steps

    def step(self, frame: dict, expected: Expected) -> None:
        number, units = frame["number"], [Unit(branch, index) for branch, index in frame["units"]]
        x, sigma = (tensor.to(self.backend.device) for tensor in expected.wait(MESSAGE_LIMIT_S))
        started = time.perf_counter()
        status, error = RIGHT, None
        try:
            if self.failure:
                raise RuntimeError(self.failure)
            predictions, error = self.predict(frame, x, sigma, units)
        except Exception as reason:
            log.exception("step %d failed", number)
            self.pipe.send({"op": "failed", "number": number, "text": describe(reason)})
            status = GROUP_LOST if isinstance(reason, ChannelBroken) else FAILED
            count = len(units) if "kind" in frame else len({unit.branch for unit in units})
            predictions = [torch.zeros_like(x)] * count
        result = torch.stack([prediction.to(x.dtype) for prediction in predictions])
        self.settle()
        self.channel.send([head(number, status, time.perf_counter() - started, error), result])
        self.channel.finish_sending()
        expected.release()

    def predict(self, frame: dict, x, sigma, units: list[Unit]) -> tuple[list[torch.Tensor], float | None]:
        """The predictions that the frame asks for, and the error of expected inner results."""

        def forward(unit: Unit, through: Pass) -> torch.Tensor:
            return self.backend.predict(x, sigma, [(unit.branch, unit.index)], through)[0]

        match frame.get("kind"):
            case None:
                return self.backend.predict(x, sigma, [(unit.branch, unit.index) for unit in units]), None
            case "measure":
                predictions = []
                for unit in units:
                    prediction, self.measured = measure(forward, unit, self.settle, self.measured)
                    predictions.append(prediction)
                return predictions, None
            case "take":
                done = [self.lead.whole(unit, frame["time"], forward) for unit in units]
            case "outer":
                self.lead.link.at(x, sigma)
                done = [self.lead.outer(unit, frame["time"], forward, frame["hand_on"]) for unit in units]
            case kind:
                raise ValueError(f"unknown kind of step {kind}")
        return done, self.lead.take_error()

    def inner(self, frame: dict, expected: Expected) -> None:
        """A segment of the inner part, and its result on to the next device or back to the lead."""
        h = tuple(tensor.to(self.backend.device, copy=True) for tensor in expected.wait(MESSAGE_LIMIT_S))
        expected.release()
        started = time.perf_counter()
        number = frame["number"]
        following = frame["route"][0][0] if frame["route"] else frame["back"]
        try:
            if self.failure:
                raise RuntimeError(self.failure)
            z = self.segment(frame, h)
            self.settle()
            if frame["route"]:
                (peer, *segment), *others = frame["route"]
                state = [describe_tensor(tensor) for tensor in z]
                via = {"via": self.inlet.own_name, "state": state, "segment": segment, "route": others}
                self.inlet.send_to(peer, {**frame, **via})
                self.inlet.to(peer).send(z)
            else:
                if [describe_tensor(tensor) for tensor in z] != frame["answer"]:
                    raise RuntimeError("the inner part's result has not the expected shape")
                self.inlet.to(following).send([head(number, RIGHT, time.perf_counter() - started), *z])
        except Exception as error:
            log.exception("an inner part failed")
            whose = following if isinstance(error, ChannelBroken) else self.inlet.own_name
            self.pipe.send({"op": "failed", "number": number, "text": describe(error), "inner": whose})

    def segment(self, frame: dict, h: State) -> State:
        (shape, dtype), (values, sigma_dtype) = frame["x"], frame["sigma"]
        device = self.backend.device
        x = torch.zeros(shape, dtype=DTYPES[dtype], device=device)
        sigma = torch.tensor(values, dtype=DTYPES[sigma_dtype], device=device)
        try:
            self.backend.predict(x, sigma, [tuple(frame["unit"])], Inner(frame["first"], tuple(frame["segment"]), h))
        except Reached as reached:
            return reached.state
        raise RuntimeError("the network has no such inner part")

    def settle(self) -> None:
        """Wait until the device has done what it was given."""
        if self.backend.device.type != "cpu":
            torch.get_device_module(self.backend.device).synchronize(self.backend.device)


def describe(error: BaseException) -> str:
    """One line for users: the kind of error and its first line."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
