"""One of Ray's nodes on this machine: `ray start --block`, until this process's standard input ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading

from ..workers.frames import FramePipe
from ..workers.worker import private_pipe
from .facts import ray_version

ASKED_S = 10


def serve() -> None:
    """The process's life. Its first frame has the arguments of `ray start`, and what to add to the environment."""
    pipe = private_pipe()
    told = pipe.receive()
    if told is None:
        return
    os.environ.update(told["environment"])
    threading.Thread(target=_follow, args=(pipe,), daemon=True).start()
    cluster = told["arguments"][0].removeprefix("--address=")
    if cluster != told["arguments"][0]:
        _compare_versions(cluster)
    from ray.scripts.scripts import start

    start.main(args=told["arguments"], prog_name="ray start")


def _compare_versions(cluster: str) -> None:
    """End this process, with Ray's own words, where the cluster at HOST:PORT runs another Ray.

    Ray compares versions too, but only after it has read what an older version does not keep, and failed over that.
    """
    with contextlib.suppress(Exception):  # then Ray says what is wrong
        from ray._raylet import GcsClient

        kept = GcsClient(address=cluster).internal_kv_get(b"CLUSTER_METADATA", b"cluster", timeout=ASKED_S)
        theirs = json.loads(kept)
        if theirs["ray_version"] != ray_version():
            sys.exit(f"Version mismatch. Ray: {theirs['ray_version']} Python: {theirs['python_version']}")


def _follow(pipe: FramePipe) -> None:
    while pipe.receive():
        pass
    # as Ctrl-C does: Ray ends what it started
    if sys.platform == "win32":
        signal.raise_signal(signal.SIGINT)
    else:
        os.kill(os.getpid(), signal.SIGTERM)
