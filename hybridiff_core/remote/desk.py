"""A worker on another machine: its loop, fed by an actor's calls in the place of a pipe and a socket."""

from __future__ import annotations

import logging
import os
import platform
from collections import deque

import numpy as np
import torch

from .. import lines
from ..workers.channel import ChannelBroken
from ..workers.gpus import uuid_of
from ..workers.loop import Loop, describe
from ..workers.token_ways import TokenChannels
from ..workers.wire import read_description
from .parcels import NOTHING, Stream, chunks, opened, parcel

log = logging.getLogger("hybridiff.worker")


class DeskEndpoint:
    """What a Loop asks of an Endpoint: frames and messages of the one call that it is in."""

    own_name = ""

    def __init__(self) -> None:
        self.parent = Stream()
        self.tokens = TokenChannels()
        self.frames: list[dict] = []

    def send(self, frame: dict) -> None:
        self.frames.append(frame)

    def expect(self, frame: dict, parts: list) -> object:
        return self.parent.expect(parts)

    def to(self, peer: str) -> Stream:
        """Raises ChannelBroken: other workers are not to be reached from here."""
        raise ChannelBroken(lines.OTHER_WORKER_GONE())


class Desk:
    """The backend that `order` (a start frame) wants, and its loop. `here` is what this machine's owner said.

    Raises what the backend raises; ValueError where this machine's ComfyUI is another one.
    """

    def __init__(self, make_backend, order: dict, here: dict):
        if order.get("comfyui") and order["comfyui"] != here["comfyui_version"]:
            theirs = here["comfyui_version"]
            raise ValueError(lines.OTHER_COMFYUI(machine=here["name"], theirs=theirs, own=order["comfyui"]))
        order = {**order, "root": here["comfyui"], "args": {**order.get("args", {}), **here["folders"]}}
        if order["device"] == "cpu":
            torch.set_num_threads(here["threads"])  # Ray gives an actor one
        self._endpoint = DeskEndpoint()
        backend = make_backend(order)
        self._loop = Loop(self._endpoint, backend)
        self._left: deque[np.ndarray] = deque()
        told = {"pid": os.getpid(), "device": str(backend.device), "uuid": uuid_of(backend.device)}
        self.ready = {**told, "remarks": list(backend.remarks), "python": platform.python_version()}

    def put(self, piece: np.ndarray) -> None:
        self._endpoint.parent.put(piece)

    def do(self, text: bytes, piece: np.ndarray) -> tuple[bytes, np.ndarray]:
        """Frames and messages' sizes, and the first bytes of these; `more` gives the others."""
        frame, last = opened(text, piece)
        endpoint = self._endpoint
        endpoint.parent.put(last)
        endpoint.frames = []
        endpoint.parent.begin()
        try:
            parts = [read_description(frame[name]) for name in ("x", "sigma")] if frame["op"] == "step" else None
            with torch.inference_mode():
                self._loop.take(frame, parts)
        except Exception as error:  # what a loop does not answer itself: a message that is none
            log.exception("%s failed", frame["op"])
            endpoint.frames = [{"op": "lost", "text": describe(error)}]
        endpoint.parent.clear()
        messages = endpoint.parent.outgoing
        data = np.concatenate(messages) if len(messages) > 1 else messages[0] if messages else NOTHING
        first, *left = chunks(data)
        self._left = deque(left)
        sizes = [message.nbytes for message in messages]
        return parcel({"frames": endpoint.frames, "messages": sizes, "left": len(left)}, first)

    def more(self) -> np.ndarray:
        return self._left.popleft() if self._left else NOTHING
