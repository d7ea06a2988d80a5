"""A worker process: its private pipe, its threads, and how it ends."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable

import torch

from .endpoint import Endpoint
from .frames import FramePipe
from .gpus import uuid_of
from .loop import Backend, Loop, describe

log = logging.getLogger("hybridiff.worker")


def serve(make_backend: Callable[[dict], Backend]) -> None:
    """A worker process's life, from its first frame to the end of its pipe.

    `make_backend` gets the first frame: device, threads, and what else the host told.
    """
    pipe = private_pipe()
    start = pipe.receive()
    if start is None:
        return
    way = socket.socket(fileno=start["way"]) if "way" in start else None
    endpoint = Endpoint(pipe, start["name"], way)
    if start.get("cpus") and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, start["cpus"])  # of this thread, and of those it starts from here on
    threading.Thread(target=_read_frames, args=(endpoint,), name="frames", daemon=True).start()
    threading.Thread(target=follow_parent, args=(os.getppid(),), name="parent", daemon=True).start()
    if start.get("threads"):
        torch.set_num_threads(int(start["threads"]))
    try:
        backend = make_backend(start)
    except Exception as error:
        log.exception("no start: %s", describe(error))
        os._exit(1)  # at once: torch takes its time to end a process
    told = {"pid": os.getpid(), "device": str(backend.device), "uuid": uuid_of(backend.device)}
    endpoint.send({"op": "ready", **told, "remarks": list(backend.remarks)})
    with torch.inference_mode():
        Loop(endpoint, backend).run()


def private_pipe() -> FramePipe:
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


def _read_frames(endpoint: Endpoint) -> None:
    try:
        endpoint.read()
    finally:
        # the parent is gone, or done with us, or nothing it says can be read: whatever the main thread does
        os._exit(0)


def follow_parent(parent: int, end: Callable[[], None] = lambda: os._exit(0)) -> None:
    """Call `end` when the process `parent` is this one's parent no more.

    A third process that was forked from the parent may hold the pipe open after the parent's death.
    """
    while sys.platform != "win32":
        if os.getppid() != parent:
            end()
        time.sleep(1.0)
