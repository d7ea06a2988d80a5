"""A bridge's way to its worker on another machine: an actor of Ray's, and a connection to it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from .. import lines
from ..workers.channel import MESSAGE_LIMIT
from ..workers.sockets import Stranger
from .connection import Connection, connect
from .machines import Cluster, Machine, read, resource

MODULE_FOLDER = Path(__file__).resolve().parent / "path"
PLACED_LIMIT_S = 60.0  # for a process there; importing comes after it
LOOK_S = 1.0
PING_S = 4.0
HEARD_S = 2.5  # an answer so lately is as good as a sign
WHY_S = 1.0  # for Ray to say what ended a worker whose connection broke
END_LIMIT_S = 1.5  # pool.py ends a worker that takes over two seconds


class Lost(Exception):
    """The worker, its machine or the way to it is gone; the text is for users."""


class Link:
    """A worker on `machine`. Calls come from one thread; answers are given to `answered` by another, in their order.

    An answer is what the worker told, its messages' bytes, which hold until `answered` returns, and the seconds since
    it was asked. Ray makes the worker, watches it and ends it; what it is asked goes by the connection.
    `lost` is called once, with words for users, where the worker can no longer be had.
    """

    def __init__(
        self,
        cluster: Cluster,
        machine: Machine,
        answered: Callable[[dict, np.ndarray, float], None],
        lost: Callable[[str], None],
    ):
        self.machine, self._answered, self._lost = machine, answered, lost
        os.environ |= ray_environment(cluster.token)
        import ray

        self._ray = ray
        self._actor = None
        self._serving = None  # the actor's call that lasts as long as the connection
        self._connection: Connection | None = None
        self._asked: queue.SimpleQueue = queue.SimpleQueue()  # when, for what is not answered
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
            self._connect()
        except Lost:
            raise
        except Exception as error:
            raise Lost(self.reason(error)) from error
        threading.Thread(target=self._collect, name="answers", daemon=True).start()
        return ready

    def _connect(self) -> None:
        key = secrets.token_bytes(32)
        address, port = json.loads(self._ray.get(self._actor.open.remote(key)))
        self._serving = self._actor.serve.remote()
        try:
            self._connection = connect(address, port, key)
        except (OSError, Stranger) as error:
            raise Lost(lines.PORTS_CLOSED(machine=self.machine.name, error=_first_line(error))) from error

    # -- what it is asked

    def do(self, frame: dict, messages: Iterable[np.ndarray], size: int) -> None:
        """Send a frame, and as they come its messages, of so many bytes together. Raises Lost."""
        self.computes = frame["op"] == "step"
        self._out += 1
        self._asked.put(time.perf_counter())
        try:
            self._connection.send({"frame": frame, "size": size})
            for message in messages:
                self._connection.add(message)
        except OSError as error:
            raise Lost(self._why_broken(error)) from error

    def _collect(self) -> None:
        room = np.empty(0, np.uint8)
        try:
            while told := self._connection.receive():
                size = _size_of(told["messages"])
                room = room if room.nbytes >= size else np.empty(size, np.uint8)
                self._connection.fill(room[:size])
                self._out -= 1
                self._answered(told, room[:size], time.perf_counter() - self._asked.get_nowait())
            self._lost(self._why_broken(EOFError(lines.OTHER_END_HUNG_UP())))
        except (OSError, EOFError) as error:
            self._lost(self._why_broken(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, this worker is lost
            self._lost(self.reason(error))

    def _why_broken(self, error: Exception) -> str:
        """Words for users: why the connection ended, which Ray knows where the worker did."""
        try:
            self._ray.get(self._serving, timeout=WHY_S)
        except self._ray.exceptions.GetTimeoutError:
            hung_up = isinstance(error, (EOFError, ConnectionResetError, BrokenPipeError))  # so its machine is there
            return (lines.REMOTE_ENDED if hung_up else lines.MACHINE_GONE)(machine=self.machine.name)
        except Exception as cause:  # noqa: BLE001 - Ray's own, of many kinds
            return self.reason(cause)
        return self.reason(error)

    # -- life

    def sign(self, then: Callable[[], None]) -> None:
        """Call `then` when the worker gave a sign: an answer just now, or one to a call that only asks for it.

        While it starts or loads, Python there may not come to answer; that its machine is there, Ray watches. Where
        the connection alone is cut, the worker is lost, though Ray still has its signs.
        """
        busy = self._actor is None or (self._out and not self.computes)
        heard = max(self._heard, self._connection.heard) if self._connection else self._heard
        if self._connection and self._connection.is_cut():
            self._lost(lines.MACHINE_GONE(machine=self.machine.name))
        elif busy or time.monotonic() - heard < HEARD_S:
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


def _size_of(messages: list) -> int:
    """Bytes of all messages of an answer. Raises ValueError."""
    size = sum(messages)
    if not all(type(one) is int and one >= 0 for one in messages) or size > MESSAGE_LIMIT:
        raise ValueError(lines.MESSAGE_OVER_LIMIT(size=size, limit=MESSAGE_LIMIT))
    return size


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
