"""Asks Ray which machines there are, and tells `share` (commands.py): a process of its own, for Ray may end it."""

from __future__ import annotations

import os
import threading
import time

from ..workers.frames import FramePipe
from ..workers.worker import private_pipe
from .link import ray_environment
from .machines import from_labels

EVERY_S = 2.0
CONNECT_S, AGAIN_S = 40.0, 0.5  # Ray's head takes some seconds to start


def serve() -> None:
    """The process's life. Its first frame has the cluster's address, this machine's in it, and the token."""
    pipe = private_pipe()
    told = pipe.receive()
    if told is None:
        return
    threading.Thread(target=_follow, args=(pipe,), daemon=True).start()
    os.environ |= ray_environment(told["token"])
    import ray

    deadline = time.monotonic() + CONNECT_S
    while True:
        try:
            ray.init(
                address=told["address"], _node_ip_address=told["node_ip"], log_to_driver=False, configure_logging=False,
                namespace="hybridiff",
            )  # fmt: skip
            break
        except Exception as error:  # noqa: BLE001 - Ray has many kinds, and the text is what tells
            refused = "token" in str(error).lower() or "authenticat" in str(error).lower()
            if refused or time.monotonic() > deadline:
                pipe.send({"op": "refused", "text": str(error).strip()[:400]})
                os._exit(1)
            time.sleep(AGAIN_S)
    while True:
        found = [from_labels(node["NodeID"], bool(node["Alive"]), node.get("Labels") or {}) for node in ray.nodes()]
        machines = [vars(machine) | {"devices": [vars(d) for d in machine.devices]} for machine in found if machine]
        pipe.send({"op": "machines", "machines": machines})
        time.sleep(EVERY_S)


def _follow(pipe: FramePipe) -> None:
    while pipe.receive():
        pass
    os._exit(0)
