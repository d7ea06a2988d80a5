"""Real workers that hold the demo's network, and the same network in this process."""

from __future__ import annotations

import torch

from hybridiff_core.demo.demo_backend import DemoBackend
from hybridiff_core.demo.model import ModelConfig, words_to_context
from hybridiff_core.workers.devices import Place

CPU = torch.device("cpu")
PLACES = [Place(f"cpu#{i}", f"cpu (process {i + 2})", "cpu") for i in range(2)]
TEXTS = ("a cat", "", "a dog")


class Demo:
    """The demo's network of one config, with conds for TEXTS."""

    def __init__(self, **config):
        self.config = config
        self.conds = [words_to_context(text, ModelConfig(**config)) for text in TEXTS]

    def local(self) -> DemoBackend:
        """This process's own."""
        backend = DemoBackend({"device": "cpu"})
        backend.load({"config": self.config})
        backend.begin({"conds": self.conds}, fresh=True)
        return backend

    def worker(self, pool, place=PLACES[0], **changed):
        """One that is ready for steps: (lease, exchange)."""
        lease = pool.prepare(place, CPU, {"config": {**self.config, **changed}})
        exchange = lease.ready(lambda: None)
        exchange.begin({"conds": self.conds})
        return lease, exchange


def here_with(backend: DemoBackend, x: torch.Tensor, sigma: torch.Tensor, computed: list | None = None):
    """A call's `here`; the units that it is asked for are added to `computed`."""

    def here(units, through=None, rows=None):
        if computed is not None:
            computed.extend(units)
        first, end, _ = rows or (0, len(x), 0)
        asked = [(unit.branch, unit.index) for unit in units]
        predictions = backend.predict(x[first:end], sigma[first:end], asked, through, rows)
        return {unit.branch: prediction for unit, prediction in zip(units, predictions)}

    return here


def mixing(here, x: torch.Tensor, share: float):
    """`here` of a network that puts out less, by `share`, where several units are computed at once."""

    def mixed(units, *how, **where):
        found = here(units, *how, **where)
        return {b: of + share * (x - of) for b, of in found.items()} if len(units) > 1 else found

    return mixed if share else here
