"""Whether a run's conds are still those that a worker has, in ComfyUI's own Python: asked in every call."""

from __future__ import annotations

import os
import subprocess

from .comfy_server import PACK, python_of

SCRIPT = """
import importlib
import runpy
import sys

import torch

runpy.run_path("nodes/host/worker.py")["register_pack"]()
sys.path.insert(0, sys.argv[1])
import comfy.cli_args

comfy.cli_args.args.cpu = not torch.cuda.is_available()
importlib.import_module("hybridiff_pack.nodes.host.acceleration")
from torch.overrides import TorchFunctionMode
from hybridiff_pack.nodes.host.conditioning import snapshot, unchanged


class Asked(TorchFunctionMode):
    count = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.count += function in (torch.Tensor.__bool__, torch.Tensor.item, torch.equal)
        return function(*args, **(kwargs or {}))


with torch.inference_mode():  # as ComfyUI's nodes make them: without a version
    conds = [{"model_conds": {"c": torch.ones(2, 3), "y": torch.zeros(4)}, "strength": 1.0} for _ in range(3)]
before = snapshot(conds, keep=True)
with Asked() as asked:
    assert unchanged(before, snapshot(conds))
print(asked.count)
for change in (lambda cond: cond["model_conds"]["y"].add_(1), lambda cond: cond.update(strength=2.0)):
    with torch.inference_mode():
        change(conds[1])
    assert not unchanged(before, snapshot(conds))
    before = snapshot(conds, keep=True)
    assert unchanged(before, snapshot(conds))
conds[0]["model_conds"]["y"] = torch.zeros(5)
assert not unchanged(before, snapshot(conds))
"""


def test_a_device_is_asked_once_whether_its_conds_changed(comfyui_root):
    done = subprocess.run(
        [python_of(comfyui_root), "-c", SCRIPT, str(comfyui_root)],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=120, cwd=PACK,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "1"
