"""This process's end of one worker: its life, its model and a run's conditioning, and the steps it is given."""

from __future__ import annotations

import itertools
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch

from .. import lines
from ..call import Rows
from ..network.split import Cut, State
from ..share import Unit
from .channel import Channel, ChannelBroken, connect
from .devices import Place
from .gpus import is_same
from .launch_local import WorkerProcess
from .ledger import Ledger, Parcel
from .pieces import send_whole
from .requests import LOAD_LIMIT_S, Requests
from .room import LINK_BYTES, Room, first_memory
from .shared import Segment
from .sockets import Stranger, pair
from .steps import Answer, Steps
from .watch import Watch, WorkerLost
from .wire import CannotCross, Kinds

START_LIMIT_S = 180.0
CONDS_FIRST_NUMBER = 1 << 40

_launched = itertools.count()


@dataclass(frozen=True)
class Loading:
    """What giving a worker its model took: bytes of tensors sent, whether it read the model anew, seconds.

    And what else the worker has to say of it.
    """

    sent_bytes: int = 0
    read_anew: bool = False
    seconds: float = 0.0
    details: dict = field(default_factory=dict)

    def to_dict(self) -> dict:
        return {"sent_bytes": self.sent_bytes, "read_anew": self.read_anew, "seconds": self.seconds, **self.details}


class Exchange:
    """One worker, connected. Steps and requests come from one thread at a time.

    `own` is this process's torch device, `kinds` says how host objects cross. `channel` and `steps`
    are there once it is open.
    """

    def __init__(self, process: WorkerProcess, place: Place, own: torch.device, kinds: Kinds | None = None):
        self.place, self.own, self.kinds = place, own, kinds
        self.name = f"{place.key}.{next(_launched)}"  # a new process at a place is another one to its peers
        self.process = process
        self.watch = Watch(process, place.label, lambda: self.requests.ping())
        self.requests = Requests(process, self.watch, self.name)
        self.channel: Channel | None = None
        self.steps: Steps | None = None
        self.info: dict = {}
        self.loading = Loading()
        self.warm = False  # its next step takes no longer than others
        self.behind = False  # the run's conditioning changed, and this worker was not told yet
        self.spent = False  # alive, but not to be trusted with another run: it failed to open, or to load a model
        self._forget()

    def _forget(self) -> None:
        self._recipe = Ledger(by_content=False, keeps=True)
        self._conds = Ledger(by_content=True, first_number=CONDS_FIRST_NUMBER)
        self._loaded: object = None
        self._found: dict[object, tuple[set, dict]] = {}

    @property
    def compared(self) -> set:
        """What this worker computed as this process does, with the model that it holds (handshake.py)."""
        return self._found.setdefault(repr(self._loaded), (set(), {}))[0]

    @property
    def differs(self) -> dict:
        """What it computed otherwise, and how far off it was."""
        return self._found.setdefault(repr(self._loaded), (set(), {}))[1]

    # -- life

    @property
    def broken(self) -> str | None:
        """Why the worker is lost, or None."""
        return self.watch.broken

    @property
    def lost_at(self) -> float | None:
        """When its loss was noticed (time.perf_counter)."""
        return self.watch.lost_at

    def alive(self) -> bool:
        return self.watch.alive()

    def look(self) -> None:
        """Every second: is the worker still moving? Raises WorkerLost."""
        self.watch.look()

    def open(self, start: dict, check: Callable[[], None] = lambda: None) -> None:
        """Tell the worker what it is to be, wait until it is ready, and connect the channel.

        Raises WorkerLost; the worker is then of no use, though it may be alive.
        """
        self.spent = True
        self._open(start, check)
        self.spent = False

    def _open(self, start: dict, check: Callable[[], None]) -> None:
        hello = {"op": "start", "device": self.place.device, "name": self.name, **self.process.hello}
        self.requests.send({**hello, **start})
        self.info = self.watch.wait(self.requests.ready, START_LIMIT_S, check, lines.DID_NOT_START())
        self.process.elsewhere = bool(self.place.machine)  # starting is done here
        uuid = str(self.info.get("uuid") or "")
        if uuid and self.place.uuid and not is_same(uuid, self.place.uuid):
            raise self.watch.lost(lines.ANOTHER_GPU())
        token, memory = secrets.token_bytes(32), first_memory()
        try:
            here, there = pair()
            with there:
                reply = self.requests.ask("connect", token=token.hex(), **self.hand(there, memory))
                self.channel = connect(here, 0, self.own, token)
                told = self.watch.wait(reply, LOAD_LIMIT_S, check, lines.DID_NOT_CONNECT())
        except (ChannelBroken, Stranger, OSError) as error:
            raise self.watch.lost(lines.CONNECTION_BROKE(error=error)) from error
        finally:
            if memory:
                memory.close_file()
        if memory and told.get("shared"):
            self.channel.adopt(memory)
            self.channel.use()
        room = Room(self.channel, self.requests, self.process)
        self.steps = Steps(self.channel, self.requests, self.watch, self.own, room)

    def link(self, other: Exchange, check: Callable[[], None] = lambda: None) -> None:
        """Connect this worker with another one, so that tensors go between them directly. Raises WorkerLost."""
        if other.name in self.requests.peers:
            return
        token = secrets.token_bytes(32).hex()
        self.requests.peers[other.name], other.requests.peers[self.name] = other.requests, self.requests
        try:
            ends = pair()
        except (Stranger, OSError) as error:
            raise self.watch.lost(lines.NO_WAY_TO_ANOTHER(error=error)) from error
        shared = self.channel.room and other.channel.room  # they could map it
        memory = first_memory(LINK_BYTES) if shared else None
        with ends[0], ends[1]:
            try:
                replies = [
                    here.requests.ask("link", peer=there.name, rank=rank, token=token, **here.hand(ends[rank], memory))
                    for rank, (here, there) in enumerate(((self, other), (other, self)))
                ]
            finally:
                if memory:
                    memory.close_file()
            for here, reply in zip((self, other), replies):
                here.watch.wait(reply, LOAD_LIMIT_S, check, lines.DID_NOT_CONNECT_TO_ANOTHER())

    def wait_idle(self, check: Callable[[], None] = lambda: None) -> None:
        """Wait until the worker has done all that it was given. Raises WorkerLost."""
        self.watch.wait(self.requests.ask("idle"), LOAD_LIMIT_S, check, lines.DID_NOT_FINISH())

    def hand(self, end: socket.socket, memory: Segment | None) -> dict:
        """Give the worker an end of a connection; returns what it must be told for it. Raises WorkerLost."""
        try:
            told = self.process.hand(end, int(self.info["pid"]))
            return {**told, "memory": self.process.hand_memory(memory)} if memory else told
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise self.watch.lost(lines.CANNOT_BE_CONNECTED(error=error)) from error

    def close(self) -> None:
        lost = self.watch.broken
        self.watch.close(lines.CLOSED())
        self.process.stop(grace_s=0.0 if lost else 2.0)
        if self.channel:
            self.channel.close()
        self.requests.close()

    # -- its model, and a run

    def load(self, recipe: object, check: Callable[[], None] = lambda: None) -> Loading:
        """Make the worker hold the model that `recipe` describes; sends only what it lacks.

        Raises WorkerLost, and CannotCross for a recipe with something in it that has no form on
        the wire.
        """
        started = time.perf_counter()
        parcel = self._recipe.pack(recipe, self.kinds, "the model")
        if self._loaded == parcel.value and not parcel.tensors:
            return Loading(seconds=time.perf_counter() - started)
        self._loaded, self.warm = None, False
        reply = self._give("load", parcel, self._recipe)
        try:
            info = self.watch.wait(reply, LOAD_LIMIT_S, check, lines.DID_NOT_LOAD())
        except WorkerLost:
            self.spent, self.watch.lost_at = True, self.watch.lost_at or time.perf_counter()
            raise
        self._loaded = parcel.value
        self._recipe.forgotten(info.pop("forgotten", ()))
        details = dict(info.pop("details", {}))
        if details.get("packs"):  # they may have changed what others compute with in there
            self._found.clear()
        self.info.update(info)
        sent = sum(tensor.nbytes for _, tensor in parcel.tensors)
        return Loading(sent, bool(info.get("read_anew")), time.perf_counter() - started, details)

    def unload(self) -> None:
        """Ask the worker to give its model's memory back; nothing that it was sent is there after that."""
        self._forget()
        self.warm = False
        self.requests.ask("unload")

    def begin(self, run: object) -> None:
        """Give the worker a run's conditioning and options. Does not wait. Raises WorkerLost, CannotCross."""
        self.steps.forget_times()  # another model or latent has other step times, and the first step may load
        self.behind = False
        self._give("begin", self._conds.pack(run, self.kinds, "the conditioning"), self._conds)

    def renew(self, run: object) -> None:
        """Like `begin`, for conditioning that changed within a run."""
        self.behind = False
        self._give("renew", self._conds.pack(run, self.kinds, "the conditioning"), self._conds)

    def end(self) -> None:
        """The run is over; the worker keeps its model. Does not wait."""
        self.requests.ask("end")

    def _give(self, op: str, parcel: Parcel, ledger: Ledger) -> Future:
        """A request with a value, and the tensors in it that the worker lacks."""
        if parcel.tensors:
            self.requests.let_finish()
        described = parcel.describe(self.own)
        try:
            reply = self.requests.ask(op, value=parcel.value, tensors=described, forget=parcel.forget)
        except CannotCross:  # too large a frame
            ledger.take_back()
            raise
        with self.watch.connection():
            for _, tensor in parcel.tensors:
                send_whole(self.channel, tensor)
        return reply

    # -- its part in a pipeline

    def measured(self, check: Callable[[], None] = lambda: None) -> dict:
        """The block times of the last timed step: {"times": seconds of each block, "rest": the other seconds}."""
        return self.watch.wait(self.requests.ask("measured"), LOAD_LIMIT_S, check, lines.DID_NOT_TELL_TIMES())

    def set_cut(
        self,
        cut: Cut,
        delay: int = 1,
        route: Sequence[tuple[Exchange, tuple[int, int]]] = (),
        extrapolate: bool = True,
    ) -> None:
        """Say where the network is cut, for steps that take z; `route` makes this worker a group's lead."""
        hops = [[exchange.name, *segment] for exchange, segment in route]
        self.requests.ask("cut", bounds=list(cut.bounds), delay=delay, route=hops, extrapolate=extrapolate)

    def history(self, unit: Unit, count: int, check: Callable[[], None] = lambda: None) -> list[tuple[float, State]]:
        """The last `count` inner results of `unit` that the worker took in exact steps, with the model's times."""
        return self.steps.history(unit, count, check)

    # -- steps (steps.py)

    def submit(
        self, x: torch.Tensor, sigma: torch.Tensor, units: Sequence[Unit], rows: Rows | None = None, **how: object
    ) -> None:
        """Start a step: the worker predicts `units` at (x, sigma), of batch items `rows`. Raises WorkerLost."""
        self.steps.submit(x, sigma, units, rows, **how)

    def collect(self, check: Callable[[], None] = lambda: None) -> Answer:
        """Finish the oldest step that was submitted; calls `check` while it waits. Raises WorkerLost."""
        answer = self.steps.collect(check)
        self.warm = True
        return answer

    @property
    def busy(self) -> bool:
        """Whether it has something to do that `renew` might wait for."""
        return bool(self.steps and self.steps.pending) or not self.requests.settled

    def answered(self) -> bool:
        """Whether the oldest step's answer is here, or the worker is lost. Never waits, never raises."""
        return self.steps.answered() if self.steps else not self.alive()

    def drain(self, check: Callable[[], None] = lambda: None) -> None:
        """Wait for the answers that an interrupted run left behind. Raises WorkerLost."""
        if self.steps:
            self.steps.drain(check)
