"""A bridge's way to its worker on another machine: Ray's driver, one actor, and the calls that are out."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .. import lines
from .machines import Cluster, Machine, read, resource
from .parcels import CHUNK, chunks, opened, parcel

MODULE_FOLDER = Path(__file__).resolve().parent / "path"
PLACED_LIMIT_S = 60.0  # for a process there; importing comes after it
LOOK_S = 1.0
OUT_LIMIT = 24  # pieces that are on their way
PING_S = 4.0
HEARD_S = 2.5  # an answer so lately is as good as a sign
END_LIMIT_S = 1.5  # pool.py ends a worker that takes over two seconds


class Lost(Exception):
    """The worker, its machine or the way to it is gone; the text is for users."""


class Link:
    """A worker on `machine`. Calls come from one thread; answers are given to `answered` by another, in their order.

    An answer is what the worker told, its messages' bytes in pieces as they came, and the seconds since it was asked.
    `lost` is called once, with words for users, where the worker can no longer be had.
    """

    def __init__(
        self,
        cluster: Cluster,
        machine: Machine,
        answered: Callable[[dict, list[np.ndarray], float], None],
        lost: Callable[[str], None],
    ):
        self.machine, self._answered, self._lost = machine, answered, lost
        os.environ |= ray_environment(cluster.token)
        import ray

        self._ray = ray
        self._actor = None
        self._calls: queue.Queue = queue.Queue(OUT_LIMIT)
        self._pings: queue.SimpleQueue = queue.SimpleQueue()
        self._heard = time.monotonic()
        self._out = 0  # frames that are not answered
        self.computes = False  # what is out is a step: then the worker is asked for a sign itself
        try:
            ray.init(
                address=cluster.address, _node_ip_address=cluster.node_ip, log_to_driver=False,
                configure_logging=False, namespace="hybridiff",
            )  # fmt: skip
        except Exception as error:
            raise Lost(lines.NO_CLUSTER(reason=_first_line(error))) from error

    def start(self, order: dict) -> dict:
        """Have the actor made and be the worker of `order`; what it tells of itself. Raises Lost."""
        ray = self._ray
        if str(MODULE_FOLDER) not in sys.path:
            sys.path.append(str(MODULE_FOLDER))
        from hybridiff_remote_worker import RemoteWorker
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(self.machine.node, soft=False)
        made = ray.remote(concurrency_groups={"life": 1})(RemoteWorker)
        held = {resource(order["there"]): 1}
        try:
            self._actor = made.options(num_cpus=0, resources=held, scheduling_strategy=there, max_restarts=0).remote()
            placed = self._actor.ping.options(concurrency_group="life").remote()
            deadline = time.monotonic() + PLACED_LIMIT_S
            while not ray.wait([placed], timeout=LOOK_S)[0]:
                if not _is_there(self.machine):  # Ray may go on trying to reach it
                    raise Lost(lines.MACHINE_OFF(machine=self.machine.name))
                if time.monotonic() > deadline:
                    raise Lost(lines.DEVICE_HELD(machine=self.machine.name, device=order["there"]))
            ray.get(placed)
            threading.Thread(target=self._ping, name="life", daemon=True).start()
            ready = json.loads(ray.get(self._actor.start.remote(json.dumps(order).encode())))
        except Lost:
            raise
        except Exception as error:
            raise Lost(self.reason(error)) from error
        threading.Thread(target=self._collect, name="answers", daemon=True).start()
        return ready

    # -- calls

    def put(self, data: np.ndarray) -> None:
        """Bytes that belong to the frame that `do` sends next. Ray packs them at once: they may change afterwards."""
        for piece in chunks(data):
            self._calls.put((self._actor.put.remote(piece), None, 0.0))

    def do(self, frame: dict, data: np.ndarray | None = None, expected: int = 0) -> None:
        """Send a frame with a message's bytes; `expected` is how many bytes its answer's message will have."""
        since = time.perf_counter()
        self.computes = frame["op"] == "step"
        self._out += 1
        last = None
        if data is not None:
            *first, last = chunks(data)
            for piece in first:
                self._calls.put((self._actor.put.remote(piece), None, 0.0))
        answer = self._actor.do.remote(*parcel(frame, last))
        more = [self._actor.more.remote() for _ in range((max(expected, 1) - 1) // CHUNK)]
        self._calls.put((answer, more, since))

    def _collect(self) -> None:
        get = self._ray.get
        try:
            while True:
                answer, more, since = self._calls.get()
                came = get(answer)
                self._heard = time.monotonic()
                if more is None:
                    continue
                told, first = opened(*came)
                pieces = [first]
                more += [self._actor.more.remote() for _ in range(told["left"] - len(more))]
                for piece in more:
                    pieces.append(get(piece))
                    self._heard = time.monotonic()
                self._out -= 1
                self._answered(told, pieces, time.perf_counter() - since)
        except Exception as error:  # noqa: BLE001 - whatever it is, this worker is lost
            self._lost(self.reason(error))

    # -- life

    def sign(self, then: Callable[[], None]) -> None:
        """Call `then` when the worker gave a sign: an answer just now, or one to a call that only asks for it.

        While it starts or loads, Python there may not come to answer; that its machine is there, Ray watches.
        """
        busy = self._actor is None or (self._out and not self.computes)
        if busy or time.monotonic() - self._heard < HEARD_S:
            then()
        else:
            self._pings.put(then)

    def _ping(self) -> None:
        try:
            while True:
                with contextlib.suppress(queue.Empty):
                    waiting = self._pings.get(timeout=PING_S)
                    self._ray.get(self._actor.ping.options(concurrency_group="life").remote())
                    self._heard = time.monotonic()
                    waiting()
                    continue
                self._ray.get(self._actor.ping.options(concurrency_group="life").remote())
        except Exception as error:  # noqa: BLE001 - whatever it is, this worker is lost
            self._lost(self.reason(error))

    def close(self) -> None:
        """End the worker there. Returns within a few seconds, whatever the network does."""
        ended = threading.Thread(target=self._end, daemon=True)
        ended.start()
        ended.join(END_LIMIT_S)

    def _end(self) -> None:
        with contextlib.suppress(Exception):
            if self._actor is not None:
                self._ray.kill(self._actor)
            self._ray.shutdown()

    def reason(self, error: BaseException) -> str:
        """Words for users: why the worker is lost."""
        of = self._ray.exceptions
        cause = getattr(error, "cause", None) or error
        if isinstance(error, of.RayTaskError):
            return _first_line(cause if isinstance(cause, BaseException) else error)
        if isinstance(error, (of.ActorUnschedulableError, of.NodeDiedError)):
            return lines.MACHINE_OFF(machine=self.machine.name)
        if isinstance(error, (of.ActorDiedError, of.ActorUnavailableError)):
            gone = "node" in str(error).lower() and "died" in str(error).lower()
            return (lines.MACHINE_GONE if gone else lines.REMOTE_ENDED)(machine=self.machine.name)
        return lines.WORKER_ERROR(kind=type(error).__name__, words=_first_line(error))


def _is_there(machine: Machine) -> bool:
    """Whether the machine has been there since it joined, as far as `share` knows."""
    cluster = read()
    return cluster is None or any(one.node == machine.node and one.alive for one in cluster.machines)


def ray_environment(token: str) -> dict[str, str]:
    """What Ray's processes find in their environment; the token is never in a command line."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_memory_monitor_refresh_ms": "0",  # a model's worker takes most of a machine, and Ray would end it
        "RAY_DEDUP_LOGS": "0",
        "RAY_worker_niceness": "0",  # by itself Ray lets every other program on a machine go first
    }


def _first_line(error: object) -> str:
    return "".join(str(error).strip().splitlines()[:1])[:300] or type(error).__name__
