"""Wait for a device: kernels and copies run on after their launch. One way for every backend that torch has."""

from __future__ import annotations

import torch


def wait_for(device: torch.device) -> None:
    """Wait until `device` has done what this thread gave it.

    CUDA, ROCm and XPU have streams. MPS synchronizes as a whole. DirectML ("privateuseone") has no
    module to ask: what is read from it waits by itself.
    """
    if device.type == "cpu":
        return
    try:
        module = torch.get_device_module(device)
    except RuntimeError:  # a backend without a module
        return
    if hasattr(module, "current_stream"):
        module.current_stream(device).synchronize()
    elif hasattr(module, "synchronize"):
        module.synchronize()
