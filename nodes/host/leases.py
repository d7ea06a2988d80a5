"""The workers that a run holds: started, waited for, told what to compute with, given back."""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Collection, Sequence
from pathlib import Path

import comfy
import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher

from ...hybridiff_core import lines
from ...hybridiff_core.paces import Paces
from ...hybridiff_core.remote.facts import comfyui_version
from ...hybridiff_core.report import RunReport
from ...hybridiff_core.workers.exchange import Exchange
from ...hybridiff_core.workers.memory import Need
from ...hybridiff_core.workers.place import Place
from ...hybridiff_core.workers.pool import Lease, Pool
from ...hybridiff_core.workers.watch import WorkerLost
from ...hybridiff_core.workers.wire import CannotCross, dtype_name
from . import conditioning, files, rounding, settings
from .control import Controls
from .loaders import model_folders
from .recipe import ADAPTER_KINDS, name_of

log = logging.getLogger("hybridiff")


@functools.cache
def pool() -> Pool:
    """The workers of this ComfyUI process."""
    return Pool("comfy", start_frame, conditioning.KINDS | conditioning.OBJECTS | ADAPTER_KINDS)


def _told(device: str, details: dict) -> str:
    """For the log: what making a model by its graph took."""
    ran, packs = ", ".join(details["ran"]), ", ".join(f"{name} {s:.1f} s" for name, s in details["packs"].items())
    return lines.MADE_BY_GRAPH(device=device, seconds=details["graph_s"], ran=ran or "-", packs=packs or "-")


@functools.cache
def failed_graphs() -> dict[tuple[str, str, str], str]:
    """What workers said that could not make a model by its graph, by device, its machine's joining, and graph."""
    return {}


def _note_failure(lease: Lease, graph: tuple[str, str, str], error: Exception) -> None:
    """A worker did not get ready: where the graph's code is why, it is not given to that device again."""
    exchange = lease.exchange  # spent: it was asked to load the model, and did not
    if not (exchange and exchange.spent) or lines.OUT_OF_MEMORY() in str(error):
        return
    if exchange.alive() or _crashed(lease, exchange):
        failed_graphs()[graph] = lines.PART_DONE_HERE(reason=error)


def _crashed(lease: Lease, exchange: Exchange) -> bool:
    """Whether a worker that had come up ended by code in it, which is then not the device's fault.

    That of another machine's worker is not known: the process here is its bridge.
    """
    crashed = exchange.steps is not None and not lease.place.machine and exchange.process.crashed()
    if crashed:
        lease.forgive()
    return crashed


def start_frame(place: Place) -> dict:
    """What a worker is told at its start."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(comfy.model_management.__file__)))
    args = settings.read_args()
    if place.machine:  # folders and threads are its own
        args = {name: value for name, value in args.items() if name not in settings.FOLDERS}
        return {"args": args, "comfyui": comfyui_version(Path(root))}
    return {"root": root, "args": args, "threads": torch.get_num_threads(), "model_folders": model_folders()}


class Leases:
    """A run's workers, with the model of `recipe`.

    `places` are asked in their order, as many as are wanted; with `whole` all of them. `wish` is the devices that the
    user asked for, `need` what the model takes; with `sends` other machines are sent the model's file, where they lack
    it. What keeps a worker from its part is noted in `report`.
    """

    def __init__(
        self,
        patcher: ModelPatcher,
        recipe: dict | None,
        places: Sequence[Place],
        wish: tuple[str, ...],
        controls: Controls,
        report: RunReport,
        whole: bool,
        paces: Paces,
        need: Need | None = None,
        sends: bool = False,
    ):
        self.patcher, self.recipe, self.wish = patcher, recipe, wish
        self.controls, self.report, self.whole = controls, report, whole
        self.need, self.sends = need, sends
        self.places = [place for place in places if not (self._failed(place) or self._was_slow(place, paces))]
        self.most = len(self.places)  # workers that there may come to be
        self.near = not all(place.machine for place in self.places)  # some of them on this machine
        self._leases: list[Lease] = []
        self._met: dict[Lease, Exchange | None] = {}
        self._begun: set[Exchange] = set()
        self._told: object = None
        self._settings: dict | None = None
        self._rounds = recipe is not None and rounding.rounds_by_seed(patcher)

    def _failed(self, place: Place) -> bool:
        """Whether the device could not make this model by its graph: it would fail again."""
        line = None if self.recipe is None else failed_graphs().get(self._graph_at(place))
        if line is not None:
            self.report.note(line)
        return line is not None

    def _graph_at(self, place: Place) -> tuple[str, str, str]:
        """The model at that device; a machine that joined anew may have what it lacked."""
        return place.key, place.node, repr(self.recipe["graph"])

    def _was_slow(self, place: Place, paces: Paces) -> bool:
        """Whether the device was too slow for this model in a run before: it is then not even loaded."""
        times = None if self.whole or self.recipe is None else paces.skips(name_of(self.recipe), place.label)
        if times is not None:
            self.report.note(lines.STILL_TOO_SLOW(device=place.label, times=times))
        return times is not None

    def start(self, wanted: int) -> None:
        """Start so many workers, in the background; one more than help would only hold the model."""
        while self.places and (len(self._leases) < wanted or self.whole):
            place = self.places.pop(0)
            try:
                model = files.portable(self.recipe) if place.machine else self.recipe
                file = files.to_send(self.recipe) if place.machine and self.sends else None
            except (OSError, ValueError) as error:
                self.report.note(lines.PART_DONE_HERE(reason=error))
                continue
            order = {"model": model, "args": settings.read_args()}
            lease = pool().prepare(place, self.patcher.load_device, order, self.wish, self.need, file)
            if lease is None:
                self.report.note(lines.DEVICE_BUSY(device=place.label))
            else:
                self._leases.append(lease)
                if self.recipe["graph"]:  # names no more than it must: who waits for the worker may be gone before it
                    lease.when_failed(functools.partial(_note_failure, lease, self._graph_at(place)))

    @property
    def starting(self) -> list[str]:
        """The devices whose workers are not ready yet, by their names."""
        return [lease.place.label for lease in self._leases if lease not in self._met]

    @property
    def sending(self) -> list[dict]:
        """The files that are on their way to other machines: the file's name, the machine's, a share of 1."""
        return [vars(lease.sending) for lease in self._leases if lease.sending]

    def ready(self, wanted: int) -> list[Exchange]:
        """Wait for the workers; gives those that are ready, another device's in the place of one that is not."""
        exchanges: list[Exchange] = []
        since = time.perf_counter()
        self.start(wanted)
        met = 0
        while met < len(self._leases):
            if exchange := self._meet(self._leases[met]):
                exchanges.append(exchange)
            met += 1
            self.start(wanted + met - len(exchanges))
        self.report.waited_s = time.perf_counter() - since
        return exchanges

    def arrived(self, wanted: int, patience_s: float = 0.0) -> list[Exchange]:
        """Those that have got ready since they were asked for last, as far as `wanted` in all.

        Does not wait, but up to `patience_s` for workers that were running before: they have little to do.
        """
        deadline = time.perf_counter() + patience_s
        exchanges = []
        self.start(wanted)
        for lease in list(self._leases):
            if lease in self._met:
                continue
            while lease.running and not lease.settled and time.perf_counter() < deadline:
                time.sleep(0.001)
            if lease.settled:
                if exchange := self._meet(lease):
                    exchanges.append(exchange)
                else:
                    self.start(len(self._leases) + 1)
        return exchanges

    def late(self, others: Sequence[Exchange]) -> None:
        """The run is over: say which workers were not ready in time, those of `others` too."""
        for lease in self._leases:
            if lease not in self._met and (to := lease.sending):
                self.report.note(lines.BEING_SENT(file=to.name, machine=to.machine, share=to.share))
            elif lease not in self._met:
                self.report.note(lines.NOT_READY(device=lease.place.label))
        for exchange in others:
            self.report.note(lines.NOT_READY(device=exchange.place.label))

    def _meet(self, lease: Lease) -> Exchange | None:
        if lease not in self._met:
            self._met[lease] = self._wait_for(lease)
        return self._met[lease]

    def _wait_for(self, lease: Lease) -> Exchange | None:
        try:
            exchange = lease.ready(comfy.model_management.throw_exception_if_processing_interrupted)
        except comfy.model_management.InterruptProcessingException:  # in older releases an Exception
            raise
        except Exception as error:
            log.debug("no worker on %s", lease.place.label, exc_info=True)
            instead = lines.PART_DONE_NEXT if self.places and not self.whole else lines.PART_DONE_HERE
            self.report.note(instead(reason=error))
            return None
        if lease.lacking:
            self.report.note(lease.lacking)
        for remark in exchange.info.get("remarks", ()):
            self.report.note(str(remark))
        # weights that are loaded in part are not rounded, or at another time
        in_part = bool(lease.lacking) or bool(getattr(self.patcher.model, "model_lowvram", False))
        if self._rounds and (in_part or exchange.info.get("dynamic") != rounding.is_dynamic(self.patcher)):
            self.report.note(lines.ROUNDS_OTHERWISE(device=lease.place.label))
            return None
        by_graph = {"packs": {}, "ran": []} if self.recipe["graph"] else {}
        self.report.loadings.append({"device": lease.place.label, **by_graph, **exchange.loading.to_dict()})
        if exchange.loading.details:
            log.info("Hybridiff: %s", _told(lease.place.label, exchange.loading.details))
        self.controls.refused(exchange.info.get("refused", ()))
        its, own = exchange.info.get("dtype"), dtype_name(self.patcher.model.get_dtype_inference())
        if its != own:
            self.report.note(lines.PRECISIONS_DIFFER(device=lease.place.label, its=its, own=own))
        return exchange

    def changes(self, told: dict) -> bool:
        """Whether `told` (HostCall.plain) is something else than what workers were told last."""
        return not conditioning.unchanged(self._told, conditioning.snapshot(told))

    def tell(self, exchanges: Sequence[Exchange], told: dict, joining: Collection[Exchange] = ()) -> list[Exchange]:
        """Give workers the conds and options (HostCall.plain) that they do not have; gives those that cannot have them.

        Does not wait. Those of `joining`, whose work nobody waits for, are told later where they have something to do.
        """
        changed = self.changes(told)
        failed = []
        for exchange in exchanges:
            begun = exchange in self._begun
            if begun and not (changed or exchange.behind):
                continue
            if begun and exchange in joining and exchange.busy:
                exchange.behind = True
                continue
            try:
                self._settings = self._settings or settings.read()  # as they are at the run's beginning
                (exchange.renew if begun else exchange.begin)({**told, "settings": self._settings})
                self._begun.add(exchange)
            except (CannotCross, WorkerLost) as error:
                self.report.note(lines.PART_WAS_DONE_HERE(reason=error))
                self._begun.discard(exchange)  # it has conds of before
                failed.append(exchange)
        if changed:
            self._told = conditioning.snapshot(told, keep=True)
        return failed

    def close(self) -> None:
        """Give the workers back. Safe in any state, also after an interrupt."""
        for lease in self._leases:
            exchange = self._met.get(lease)
            if exchange in self._begun and exchange.alive():
                try:
                    exchange.end()
                except WorkerLost as error:
                    log.info("%s", error)
            pool().release(lease)
            if exchange and exchange.broken and self.recipe["graph"] and _crashed(lease, exchange):
                reason = lines.WORKER_OUT(device=lease.place.label, reason=exchange.broken)
                failed_graphs()[self._graph_at(lease.place)] = lines.PART_DONE_HERE(reason=reason)
