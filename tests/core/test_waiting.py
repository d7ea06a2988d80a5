"""Waiting for a device, on backends that are not here: what is asked of torch's module for each."""

import types

import pytest
import torch

from hybridiff_core.waiting import wait_for


class Asked:
    """A backend's module that notes what it is asked."""

    def __init__(self, streams):
        self.calls = []
        if streams:
            self.current_stream = self._stream

    def _stream(self, device):
        return types.SimpleNamespace(synchronize=lambda: self.calls.append(("stream", device)))

    def synchronize(self):
        self.calls.append("all")


@pytest.mark.parametrize(
    ("name", "streams", "asked"),
    [
        ("cuda:1", True, [("stream", torch.device("cuda:1"))]),  # ROCm is called so too
        ("xpu:0", True, [("stream", torch.device("xpu:0"))]),
        ("mps", False, ["all"]),  # no streams, and takes no device
        ("cpu", True, []),
    ],
)
def test_each_backend_is_asked_what_it_has(monkeypatch, name, streams, asked):
    module = Asked(streams)
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    wait_for(torch.device(name))
    assert module.calls == asked


def test_directml_has_no_module():
    wait_for(torch.device("privateuseone:0"))
