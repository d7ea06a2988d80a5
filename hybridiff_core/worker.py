"""The worker's loop: frames in, predictions out. What a prediction is, a Backend knows."""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from .channel import Channel, PipeStore, connect
from .wire import DTYPES, FramePipe, Kinds, decode

log = logging.getLogger("hybridiff.worker")


class Backend(Protocol):
    """What a worker computes with: ComfyUI's model, or the demo's."""

    device: torch.device
    kinds: Kinds

    def load(self, recipe: object) -> dict:
        """Hold the model that `recipe` describes; the answer goes back as information."""

    def begin(self, run: object, fresh: bool) -> None:
        """Take a run's conditioning and options; `fresh` is False where a run's conditioning changed."""

    def predict(self, x: torch.Tensor, sigma: torch.Tensor, units: Sequence[tuple[int, int]]) -> list[torch.Tensor]:
        """The prediction for each branch in `units` (branch, cond), in the order of branches."""

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
    inbox: queue.SimpleQueue = queue.SimpleQueue()
    store = PipeStore(lambda key, value: pipe.send({"op": "store", "key": key, "value": value.hex()}))
    threading.Thread(target=_read_frames, args=(pipe, store, inbox), name="frames", daemon=True).start()
    threading.Thread(target=_follow_parent, args=(os.getppid(),), name="parent", daemon=True).start()
    if start.get("cpus") and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, start["cpus"])
    if start.get("threads"):
        torch.set_num_threads(int(start["threads"]))
    backend = make_backend(start)
    pipe.send({"op": "ready", "pid": os.getpid(), "device": str(backend.device)})
    with torch.inference_mode():
        _Worker(pipe, store, inbox, backend).run()


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


def _read_frames(pipe: FramePipe, store: PipeStore, inbox: queue.SimpleQueue) -> None:
    while frame := pipe.receive():
        if frame.get("op") == "store":
            store.put(frame["key"], bytes.fromhex(frame["value"]))
        else:
            inbox.put(frame)
    # the parent's end of the pipe is closed: it is gone, or done with us, whatever the main thread does
    os._exit(0)


def _follow_parent(parent: int) -> None:
    # a third process that was forked from the parent may hold the pipe open after the parent's death
    while sys.platform != "win32":
        if os.getppid() != parent:
            os._exit(0)
        time.sleep(1.0)


class _Worker:
    def __init__(self, pipe: FramePipe, store: PipeStore, inbox: queue.SimpleQueue, backend: Backend):
        self.pipe, self.store, self.inbox, self.backend = pipe, store, inbox, backend
        self.channel: Channel | None = None
        self.tensors: dict[int, torch.Tensor] = {}
        self.failure: str | None = None

    def run(self) -> None:
        while True:
            frame = self.inbox.get()
            if frame["op"] == "step":
                self.step(frame)
            else:
                self.answer(frame)

    def answer(self, frame: dict) -> None:
        try:
            info = self.request(frame) or {}
        except Exception as error:
            log.exception("%s failed", frame["op"])
            self.failure = describe(error)
            info = {"error": self.failure}
        self.pipe.send({"op": "reply", "id": frame["id"], **info})

    def request(self, frame: dict) -> dict | None:
        match frame["op"]:
            case "connect":
                token = bytes.fromhex(frame["token"])
                self.channel = connect(self.store, 1, frame["backend"], self.backend.device, token)
            case "load":
                self.failure = None
                return self.backend.load(self.unpack(frame))
            case "begin" | "renew" as op:
                self.failure = None
                self.backend.begin(self.unpack(frame), fresh=op == "begin")
            case "end":
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

    def step(self, frame: dict) -> None:
        number, units = frame["number"], [(branch, index) for branch, index in frame["units"]]
        shape, dtype = tuple(frame["x"][0]), DTYPES[frame["x"][1]]
        sigma_shape, sigma_dtype = tuple(frame["sigma"][0]), DTYPES[frame["sigma"][1]]
        expected = self.channel.expect([(shape, dtype), (sigma_shape, sigma_dtype)])
        x, sigma = (tensor.to(self.backend.device) for tensor in expected.wait(60.0))
        branches = len({branch for branch, _ in units})
        started = time.perf_counter()
        try:
            if self.failure:
                raise RuntimeError(self.failure)
            predictions = self.backend.predict(x, sigma, units)
            status = 0
        except Exception as error:
            log.exception("step %d failed", number)
            self.pipe.send({"op": "failed", "number": number, "text": describe(error)})
            predictions, status = [torch.zeros(shape, dtype=dtype)] * branches, 1
        result = torch.stack([prediction.to(dtype) for prediction in predictions])
        if result.device.type != "cpu":
            torch.get_device_module(result.device).synchronize(result.device)
        microseconds = int((time.perf_counter() - started) * 1e6)
        self.channel.send([torch.tensor([number, status, microseconds]), result])
        self.channel.finish_sending()


def describe(error: BaseException) -> str:
    """One line for users: the kind of error and its first line."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
