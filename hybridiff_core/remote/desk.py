"""A worker on another machine: its loop, fed by one connection in the place of a pipe and a socket."""

from __future__ import annotations

import logging
import os
import platform

import torch

from .. import lines
from ..workers.channel import ChannelBroken
from ..workers.gpus import uuid_of
from ..workers.loop import Loop, describe
from ..workers.token_ways import TokenChannels
from ..workers.wire import read_description
from .connection import Door
from .stream import Stream

log = logging.getLogger("hybridiff.worker")


class DeskEndpoint:
    """What a Loop asks of an Endpoint: frames and messages of the one request that it is in."""

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
        self._here = here
        told = {"pid": os.getpid(), "device": str(backend.device), "uuid": uuid_of(backend.device)}
        self.ready = {**told, "remarks": list(backend.remarks), "python": platform.python_version()}

    def open(self, key: bytes) -> tuple[str, int]:
        """Listen for the bridge, who knows `key`, on the address and port given back.

        Raises RuntimeError where none of this machine's ports is free.
        """
        address, ports = self._here["address"], self._here["ports"]
        try:
            self._door = Door(address, ports, key)
        except OSError as error:
            raise RuntimeError(lines.PORTS_CLOSED(machine=self._here["name"], error=error)) from error
        return address, self._door.port

    def serve(self) -> None:
        """Do what the bridge asks for, until it hangs up. Raises Stranger where it does not come."""
        self._connection = self._door.admit()
        try:
            while told := self._connection.receive():
                self._do(told["frame"], told["size"])
        finally:  # what ended it, Ray tells the bridge; that it ended, this does
            self._connection.close()

    def _do(self, frame: dict, size: int) -> None:
        endpoint, stream = self._endpoint, self._endpoint.parent
        endpoint.frames = []
        stream.begin(self._connection, size)
        try:
            parts = [read_description(frame[name]) for name in ("x", "sigma")] if frame["op"] == "step" else None
            with torch.inference_mode():
                self._loop.take(frame, parts)
        except Exception as error:  # what a loop does not answer itself: a message that is none
            log.exception("%s failed", frame["op"])
            endpoint.frames = [{"op": "lost", "text": describe(error)}]
        stream.end()
        messages = stream.outgoing
        self._connection.send({"frames": endpoint.frames, "messages": [message.nbytes for message in messages]})
        for message in messages:
            self._connection.add(message)
