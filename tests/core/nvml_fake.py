"""A stand-in for pynvml: a driver with these cards, in PCI order."""

import sys
import types
from dataclasses import dataclass, field

GIB = 2**30


class NoAnswer(Exception):
    """pynvml's NVMLError."""


@dataclass
class Card:
    """`held` is what each process computing on it holds, in bytes; None where the driver does not say."""

    title: str
    uuid: str
    capability: tuple = (8, 6)
    total: int = 24 * GIB
    free: int | None = None
    mig: bool = False
    held: dict = field(default_factory=dict)
    utilisation: int = 0
    lost: bool = False
    dumb: bool = False  # answers to its name alone, as old drivers and cards do
    more: dict = field(default_factory=dict)  # what torch's properties have beside the usual


def driver(monkeypatch, cards, count=None):
    """Have `import pynvml` give a driver of these cards; `count` is what counting them raises."""
    calls = {"running": 0}

    def answer(card, value):
        if card.lost:
            raise NoAnswer("GPU is lost")
        if card.dumb:
            raise NoAnswer("Not Supported")
        return value

    def opened(index):
        if cards[index].lost:
            raise NoAnswer("GPU is lost")
        return cards[index]

    def by_uuid(uuid):
        for card in cards:
            if card.uuid == uuid:
                return card
        raise NoAnswer("Not Found")

    def counted():
        if count is not None:
            raise count
        return len(cards)

    def step(by):
        calls["running"] += by

    def memory(card):
        free = card.total if card.free is None else card.free
        return answer(card, types.SimpleNamespace(total=card.total, free=free, used=card.total - free))

    def processes(card):
        held = [types.SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in card.held.items()]
        return answer(card, held)

    fake = types.SimpleNamespace(
        NVMLError=NoAnswer,
        nvmlInit=lambda: step(1),
        nvmlShutdown=lambda: step(-1),
        nvmlDeviceGetCount=counted,
        nvmlDeviceGetHandleByIndex=opened,
        nvmlDeviceGetHandleByUUID=by_uuid,
        nvmlDeviceGetName=lambda card: card.title.encode(),
        nvmlDeviceGetUUID=lambda card: card.uuid,
        nvmlDeviceGetCudaComputeCapability=lambda card: answer(card, card.capability),
        nvmlDeviceGetMemoryInfo=memory,
        nvmlDeviceGetMigMode=lambda card: answer(card, [int(card.mig)] * 2),
        nvmlDeviceGetComputeRunningProcesses=processes,
        nvmlDeviceGetUtilizationRates=lambda card: answer(card, types.SimpleNamespace(gpu=card.utilisation)),
        nvmlSystemGetDriverVersion=lambda: "560.35",
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return calls
