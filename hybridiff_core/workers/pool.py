"""Workers' life: started when first wanted, kept between runs, restarted after an end, let go when idle."""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from concurrent.futures import wait as wait_for

import torch

from .. import lines
from .bringing import ModelFile, Progress, bring, told_of
from .devices import Place
from .exchange import Exchange
from .launch_local import WorkerProcess
from .memory import Need, require_room
from .watch import WorkerLost
from .wire import Kinds

log = logging.getLogger("hybridiff")

IDLE_S = 600.0
RUNS = 2  # a device that failed by itself in so many, one after the other, is set aside


class Lease:
    """A worker on its way to a run: being started, or given its model, in the background."""

    def __init__(self, place: Place, own: torch.device):
        self.place, self.own = place, own
        self.exchange: Exchange | None = None
        self.busy = False
        self.running = False  # before this run
        self.losses = 0  # runs in a row in which this device failed by itself
        self.wish: object = None
        self.owed = ""  # what the worker is to do once no run holds it: "unload" or "end"
        self.lacking: str | None = None  # a line, where the model was loaded in part
        self.held: dict[object, Need] = {}  # the models that the worker was given
        self.sending: Progress | None = None  # while the worker's machine is sent a file
        self._answers = 0
        self._blamed: Exchange | None = None
        self._prepared: Future | None = None
        self._idle_timer: threading.Timer | None = None

    @property
    def settled(self) -> bool:
        """Whether `ready` would not wait."""
        return self._prepared.done()

    def ready(self, check: Callable[[], None]) -> Exchange:
        """Wait for the worker; `check` is called meanwhile and may raise.

        Raises what kept it from getting ready: WorkerLost, CannotCross.
        """
        while True:
            came = self._prepared.done()  # asked before: what comes meanwhile is seen the next time round
            try:
                return self._prepared.result(0.0 if came else 0.02)
            except NotYet:
                if came:
                    raise
            check()

    def usable(self) -> bool:
        """Whether there is a worker that can be given a model."""
        return self.exchange is not None and self.exchange.alive() and not self.exchange.spent

    def require_fit(self) -> None:
        """Raises WorkerLost where the device is set aside. One of another machine never is: a machine comes back."""
        if self.losses >= RUNS and not self.place.machine:
            raise WorkerLost(lines.SET_ASIDE(device=self.place.label, times=RUNS))

    def begin(self) -> None:
        """The worker is ready for a run."""
        self._answers = self.exchange.steps.answers

    def take_stock(self) -> None:
        """After a run: did the device fail by itself, or compute?"""
        exchange = self.exchange
        if exchange is None or exchange is self._blamed or exchange.steps is None:
            return
        if exchange.broken and not exchange.process.ended_from_outside():
            self._blamed = exchange
            self.losses += 1
        elif not exchange.broken and exchange.steps.answers > self._answers:
            self.losses = 0

    def blame(self) -> None:
        """The device failed before it was ready."""
        self._blamed = self.exchange
        self.losses += 1

    def forgive(self) -> None:
        """What made it fail in this run was not the device."""
        self.losses = max(0, self.losses - 1)

    def when_failed(self, then: Callable[[Exception], None]) -> None:
        """Call `then` with what kept it from getting ready, if anything does; whether anybody waits or not."""
        self._prepared.add_done_callback(lambda done: done.exception() and then(done.exception()))


class Pool:
    """The workers of this process, one for each place.

    `script` names the program (launch_local.SCRIPTS), `start` makes its first frame, `kinds` says
    how host objects cross. A worker idle for `idle_s` seconds is ended.
    """

    def __init__(self, script: str, start: Callable[[Place], dict], kinds: Kinds | None = None, idle_s: float = IDLE_S):
        self.script, self.start, self.kinds, self.idle_s = script, start, kinds, idle_s
        self._leases: dict[str, Lease] = {}
        self._promised: dict[Lease, int] = {}  # RAM of workers that start now
        self._lock, self._asking = threading.Lock(), threading.Lock()
        atexit.register(self.close)

    def prepare(
        self,
        place: Place,
        own: torch.device,
        recipe: object,
        wish: object = None,
        need: Need | None = None,
        file: ModelFile | None = None,
    ) -> Lease | None:
        """Get the worker at `place` ready for a run with the model of `recipe`, in the background.

        Returns at once: a lease to give back with `release`, or None while another run has it. A
        device that failed by itself in several runs in a row is left alone until `wish`, what the
        user asked for, is another. With `need`, memory is asked for first: `Lease.lacking` is then a
        line where the model is loaded in part, and a worker for which there is no RAM is not started.
        `file` is what the worker's machine is sent before, where it has none like it.
        """
        with self._lock:
            lease = self._leases.get(place.key)
            if lease and lease.busy:
                return None
            if lease is None or lease.place != place or lease.own != own:
                if lease and lease.exchange:
                    lease.exchange.close()
                lease = self._leases[place.key] = Lease(place, own)
            lease.busy = True
            lease.running = lease.exchange is not None and lease.exchange.alive()
            if lease.wish != wish:
                lease.losses, lease.wish = 0, wish
            before, lease._prepared = lease._prepared, Future()
            if lease._idle_timer:
                lease._idle_timer.cancel()
        threading.Thread(
            target=self._prepare,
            args=(lease, recipe, need, file, lease._prepared, before),
            name=f"hybridiff-prepare-{place.key}",
            daemon=True,
        ).start()
        return lease

    def _prepare(
        self,
        lease: Lease,
        recipe: object,
        need: Need | None,
        file: ModelFile | None,
        prepared: Future,
        before: Future | None,
    ) -> None:
        try:
            if before:
                wait_for([before])  # an interrupted run may have left its preparation under way
            if lease.exchange and lease.exchange.alive():
                self._drain(lease)
            lease.require_fit()
            self._ask_for_memory(lease, need)
            self._make_ready(lease, recipe, file)
            if need:
                lease.held[need.key] = need
            prepared.set_result(lease.exchange)
        except Exception as error:  # noqa: BLE001 - handed to the run that waits for it
            prepared.set_exception(error)
        except BaseException as error:  # noqa: BLE001 - no run waits for ever, and none ends as this thread does
            reason = f"{type(error).__name__}: {error}"
            prepared.set_exception(WorkerLost(lines.WORKER_OUT(device=lease.place.label, reason=reason)))
        with self._lock:
            self._settle(lease)

    def _ask_for_memory(self, lease: Lease, need: Need | None) -> None:
        """Raises WorkerLost where there is too little."""
        there = lease.usable()
        if not there:
            lease.held = {}
        if need is not None and need.key in lease.held:
            return
        lease.lacking = None
        if need is None:
            return
        with self._asking:  # several may start at once
            held = lease.held.values() if there else None
            lease.lacking = require_room(lease.place, need, held, sum(self._promised.values()))
            if not there:
                self._promised[lease] = need.ram(lease.place)

    def _make_ready(self, lease: Lease, recipe: object, file: ModelFile | None) -> None:
        try:
            if not lease.usable():
                self._launch(lease)
            if file:
                self._bring(lease, file)
            lease.exchange.loading = lease.exchange.load(recipe)
        except Exception as error:
            ended = lease.exchange is None or not lease.exchange.alive()
            # another model may be one that can be loaded, but for want of memory
            if ended or lines.OUT_OF_MEMORY() in str(error):
                lease.blame()
            raise
        lease.begin()

    def _bring(self, lease: Lease, file: ModelFile) -> None:
        def tell(progress: Progress | None) -> None:
            lease.sending = progress

        since, machine = time.perf_counter(), lease.place.machine
        if place := bring(lease.exchange, file, tell):
            log.info("Hybridiff: %s", told_of(file, machine, place, since))

    def _drain(self, lease: Lease) -> None:
        """Finish what an interrupted run left in the worker, or give the worker up."""
        try:
            lease.exchange.drain()
        except WorkerLost as error:
            log.info("%s", error)
        lease.take_stock()

    def _launch(self, lease: Lease) -> None:
        try:
            if lease.exchange:
                lease.exchange.close()
            place = lease.place
            process = WorkerProcess("bridge" if place.machine else self.script, place)
            lease.exchange = Exchange(process, place, lease.own, self.kinds)
            there = {"machine": place.machine, "there": place.there, "script": self.script} if place.machine else {}
            lease.exchange.open({**self.start(place), **there})
        finally:
            self._promised.pop(lease, None)  # from now on what it takes is seen
        log.info("started a worker on %s (process %d)", lease.place.label, process.pid)

    def release(self, lease: Lease) -> None:
        """A run is over; its worker stays for the next one, or is ended where it broke."""
        with self._lock:
            lease.busy = False
            exchange = lease.exchange
            if lease._prepared.done():
                lease.take_stock()
                if exchange and (exchange.spent or not exchange.alive()):
                    lease.exchange = None
                    # in the background: a worker that is stopped takes a moment to kill
                    threading.Thread(target=exchange.close, daemon=True).start()
                self._settle(lease)
            self._begin_idle(lease)

    def _begin_idle(self, lease: Lease) -> None:
        lease._idle_timer = threading.Timer(self.idle_s, self._end_idle, (lease,))
        lease._idle_timer.daemon = True
        lease._idle_timer.start()

    def _end_idle(self, lease: Lease) -> None:
        with self._lock:
            if lease.busy:
                return
            if not lease._prepared.done():  # an interrupted run left it under way
                self._begin_idle(lease)
                return
            exchange, lease.exchange = lease.exchange, None
        if exchange:
            if exchange.alive():
                log.info("ended the worker on %s after %.0f idle seconds", lease.place.label, self.idle_s)
            exchange.close()

    def unload(self, entirely: bool = False) -> None:
        """Have every worker give its device memory back, or `entirely` all that it has, by its end.

        Does not wait; a worker that a run holds does it after that run.
        """
        with self._lock:
            for lease in self._leases.values():
                lease.owed = "end" if entirely or lease.owed == "end" else "unload"
                self._settle(lease)

    def _settle(self, lease: Lease) -> None:
        """What the worker owes, where no run holds it."""
        exchange = lease.exchange
        if lease.busy or not lease._prepared.done() or not lease.owed:
            return
        owed, lease.owed = lease.owed, ""
        if exchange is None or not exchange.alive():
            return
        if owed == "end":
            lease.exchange = None  # at once: the next run starts another one
            threading.Thread(target=exchange.close, daemon=True).start()
        else:
            try:
                exchange.unload()
                lease.held = {}
            except WorkerLost as error:
                log.info("%s", error)
                return
        log.info("the memory of the worker on %s is given back", lease.place.label)

    def close(self) -> None:
        """End every worker."""
        with self._lock:
            leases, self._leases = list(self._leases.values()), {}
        for lease in leases:
            if lease._idle_timer:
                lease._idle_timer.cancel()
            if lease.exchange:
                lease.exchange.close()
