"""One of Ray's nodes on this machine: `ray start --block`, until this process's standard input ends."""

from __future__ import annotations

import os
import signal
import sys
import threading

from ..workers.frames import FramePipe
from ..workers.worker import private_pipe


def serve() -> None:
    """The process's life. Its first frame has the arguments of `ray start`, and what to add to the environment."""
    pipe = private_pipe()
    told = pipe.receive()
    if told is None:
        return
    os.environ.update(told["environment"])
    threading.Thread(target=_follow, args=(pipe,), daemon=True).start()
    from ray.scripts.scripts import start

    start.main(args=told["arguments"], prog_name="ray start")


def _follow(pipe: FramePipe) -> None:
    while pipe.receive():
        pass
    # as Ctrl-C does: Ray ends what it started
    if sys.platform == "win32":
        signal.raise_signal(signal.SIGINT)
    else:
        os.kill(os.getpid(), signal.SIGTERM)
