"""A stand-in for torch's lists of devices: what a process with these variables would be shown."""

import types

import torch

from hybridiff_core.workers import candidates, gpus


class Machine:
    """Cards (nvml_fake.Card) as torch lists them; `show` says which, in torch's order. Set up with monkeypatch.

    `uuids` is False for an old torch, `backend` one of cuda, hip, xpu and none.
    """

    def __init__(self, monkeypatch, cards, backend="cuda", uuids=True, built=("sm_75", "sm_86", "sm_89", "sm_90")):
        self.cards, self.shown, self.uuids, self.backend = cards, list(cards), uuids, backend
        set_to = monkeypatch.setattr
        for variable in (gpus.CUDA, gpus.HIP, gpus.LEVEL_ZERO, gpus.WHO, "ONEAPI_DEVICE_SELECTOR", "CUDA_DEVICE_ORDER"):
            monkeypatch.setenv(variable, "")  # so that what is set meanwhile is undone too
            monkeypatch.delenv(variable)
        set_to(torch.version, "cuda", "13.0" if backend == "cuda" else None)
        set_to(torch.version, "hip", "7.0" if backend == "hip" else None)
        set_to(torch.cuda, "is_available", lambda: backend in ("cuda", "hip") and bool(self.shown))
        set_to(torch.cuda, "device_count", lambda: len(self.shown) if backend in ("cuda", "hip") else 0)
        set_to(torch.cuda, "get_device_properties", self.properties)
        set_to(torch.cuda, "get_arch_list", lambda: list(built))
        set_to(torch.xpu, "is_available", lambda: backend == "xpu" and bool(self.shown))
        set_to(torch.xpu, "device_count", lambda: len(self.shown))
        set_to(torch.xpu, "get_device_properties", self.properties)
        set_to(candidates, "_idle", set())
        gpus.gpus.cache_clear()
        gpus.unopened.cache_clear()

    def show(self, *cards):
        """Have torch list these, in this order; what another process would be asked is as it was."""
        self.shown = list(cards)
        gpus.gpus.cache_clear()
        return self

    def properties(self, index):
        card = self.shown[index]
        major, minor = card.capability
        found = {"name": card.title, "major": major, "minor": minor, "total_memory": card.total, **card.more}
        if self.uuids:
            found["uuid"] = card.uuid.removeprefix("GPU-")
        return types.SimpleNamespace(**found)
