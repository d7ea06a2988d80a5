"""How often an exact step waits for a device: each wait leaves a GPU idle until the next kernels are launched."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.overrides import TorchFunctionMode

from hybridiff_core import team
from hybridiff_core.demo.demo_backend import DemoBackend
from hybridiff_core.demo.model import ModelConfig, words_to_context
from hybridiff_core.engine import Engine
from hybridiff_core.plan import HybridPlan
from hybridiff_core.report import RunReport
from hybridiff_core.setting import Setting
from hybridiff_core.share import Unit
from hybridiff_core.workers import channel, loop
from hybridiff_core.workers.channel import Channel
from hybridiff_core.workers.devices import Place
from hybridiff_core.workers.loop import Loop
from hybridiff_core.workers.messages import HEAD, step_frame
from hybridiff_core.workers.pool import Pool
from hybridiff_core.workers.sockets import pair

CPU = torch.device("cpu")
SMALL = {"size": 16, "width": 32, "depth": 2, "heads": 2}
X = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
SIGMA = torch.tensor([0.7])
LEVELS = [1.0, 0.7, 0.5, 0.4, 0.3, 0.2, 0.0]  # at the second half a result is compared once more
CONDS = [words_to_context(text, ModelConfig(**SMALL)) for text in ("a cat", "")]
UNITS = [Unit(0, 0), Unit(1, 0)]


SCALARS = {torch.Tensor.item, torch.Tensor.__float__, torch.Tensor.__bool__, torch.Tensor.__int__, torch.equal}


class Waits(TorchFunctionMode):
    """Counts what would wait for a GPU, were the tensors on one.

    `scalar`: a number that Python asks for. `copy`: to another device, not left to itself. `wait`: for all before.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        super().__init__()
        self.found = Counter()
        for module in (channel, team, loop):
            monkeypatch.setattr(module, "wait_for", lambda device: self.found.update(wait=1))

    def __torch_function__(self, function, types, args=(), kwargs=None):
        how = kwargs or {}
        self.found["scalar"] += function in SCALARS
        to_a_device = function is torch.Tensor.to and len(args) > 1 and isinstance(args[1], torch.device)
        self.found["copy"] += to_a_device and not how.get("non_blocking")
        return function(*args, **how)


def network():
    backend = DemoBackend({"device": "cpu"})
    backend.load({"config": SMALL})
    backend.begin({"conds": CONDS}, fresh=True)
    return backend


def test_this_process_waits_four_times_in_an_exact_step(monkeypatch):
    """For sigma; for x, before it is sent; for its own part; for the branches' difference, which the view shows."""
    backend, pool = network(), Pool("demo", lambda place: {"threads": 1})
    try:
        exchange = pool.prepare(Place("cpu#0", "cpu", "cpu"), CPU, {"config": SMALL}).ready(lambda: None)
        exchange.begin({"conds": CONDS})
        engine = Engine([exchange], RunReport("exact", []), Setting(HybridPlan(mode="exact"), LEVELS))
        answers = {unit.branch: backend.predict(X, SIGMA, [(unit.branch, 0)])[0] for unit in UNITS}

        def here(units, through=None, rows=None):  # without the network's own waits
            return {unit.branch: answers[unit.branch] for unit in units}

        monkeypatch.setattr(Channel, "pinned", True)  # as with a GPU
        with torch.inference_mode():
            engine.step(X, SIGMA, UNITS, here, None)
            with Waits(monkeypatch) as waits:
                engine.step(X, SIGMA, UNITS, here, None)
    finally:
        pool.close()
    assert +waits.found == {"scalar": 2, "wait": 2}


class Ends:
    """What a Loop needs of its endpoint, for one step."""

    def __init__(self, parent: Channel):
        self.parent = parent


def test_a_worker_waits_twice_in_a_step(monkeypatch):
    """To know whether its numbers are finite, which also ends the time that it reports; and to send them."""
    here, there = (Channel(end, CPU) for end in pair())
    backend = network()
    answer = backend.predict(X, SIGMA, [(1, 0)])
    monkeypatch.setattr(backend, "predict", lambda *args, **how: answer)  # without the network's own waits
    frame = step_frame(1, X, SIGMA, UNITS[1:], {})
    here.send([X, SIGMA])
    coming = there.expect([(tuple(X.shape), X.dtype), (tuple(SIGMA.shape), SIGMA.dtype)])
    with torch.inference_mode(), Waits(monkeypatch) as waits:
        Loop(Ends(there), backend).step(frame, coming)
    _, result = here.expect([HEAD, (tuple(X.shape), X.dtype)]).wait(5)
    assert torch.equal(result, answer[0])
    assert +waits.found == {"scalar": 1, "wait": 1}
    here.close(), there.close()
