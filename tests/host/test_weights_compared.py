"""By which of their values weights are compared, in ComfyUI's own Python."""

from __future__ import annotations

import os
import subprocess

from .comfy_server import PACK, python_of

SCRIPT = """
import runpy
import sys

import torch

runpy.run_path("nodes/host/worker.py")["register_pack"]()
sys.path.insert(0, sys.argv[1])
import comfy.cli_args

comfy.cli_args.args.cpu = not torch.cuda.is_available()
from hybridiff_pack.nodes.host.weights import alike, sample

for size in (1, 7, 8, 9, 15, 64, 100, 127, 1000):  # the last value of a step at the latest
    values = sample(torch.arange(size), 8).tolist()
    assert len(values) <= 8 and values[0] == 0 and size - values[-1] <= -(-size // 8), (size, values)
kernel = torch.randn(6, 5, 3, 3)
turned = kernel.to(memory_format=torch.channels_last)
for weight in (kernel, turned, torch.nn.Parameter(kernel[2:])):
    assert sample(weight, 8).untyped_storage().data_ptr() == weight.untyped_storage().data_ptr()  # no copy
assert alike(kernel, turned) and alike(turned, kernel) and alike(kernel[:, 1:], turned[:, 1:])
assert not alike(kernel, turned.neg()) and not alike(kernel, kernel[1:])
assert alike(torch.empty(0), torch.empty(0))
eighth = torch.randn(100).to(torch.float8_e4m3fn)
assert alike(eighth.float(), eighth) and alike(eighth, eighth.clone())
changed = eighth.float()
changed[66:] += 1
assert not alike(eighth.float(), changed)
print("compared")
"""


def test_weights_are_compared_by_values_from_all_over_them_in_any_order_of_memory(comfyui_root):
    done = subprocess.run(
        [python_of(comfyui_root), "-c", SCRIPT, str(comfyui_root)],
        cwd=PACK, capture_output=True, text=True, timeout=300, env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip
    assert done.stdout.split() == ["compared"], done.stderr[-2000:]
