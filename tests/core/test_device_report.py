"""`python -m hybridiff_core devices`: what a user is asked for first."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hybridiff_core import device_report
from hybridiff_core.cli import main
from hybridiff_core.workers import gpus

from .nvml_fake import GIB, Card, driver
from .torch_fake import Machine

PACK = Path(__file__).resolve().parents[2]
ROW = r"{}\s+\d+\.\d\d\s+\d+\.\d\d\s+\d+\.\d\d"
CARDS = [
    Card("NVIDIA GeForce RTX 4090", "GPU-4090", (8, 9), 24 * GIB, free=22 * GIB),
    Card("NVIDIA GeForce GT 1030", "GPU-1030", (6, 1), 2 * GIB, free=GIB),
    Card("NVIDIA GeForce RTX 3090", "GPU-3090", (8, 6), 24 * GIB, free=24 * GIB),
    Card("NVIDIA GeForce RTX 3080", "GPU-3080", (8, 6), lost=True),
]


@pytest.fixture
def machine(monkeypatch):
    driver(monkeypatch, CARDS)
    yield Machine(monkeypatch, CARDS[:3])
    gpus.gpus.cache_clear()
    gpus.unopened.cache_clear()


def written(own, messages):
    said = []
    device_report.write(own, messages, said.append)
    return said


def test_each_device_and_what_auto_does_with_it(machine):
    assert device_report.roles(torch.device("cuda", 0)) == [
        ("cuda:0 (RTX 4090, 24 GB)", "22.0 GB free", "ComfyUI's own"),
        ("cuda:1 (GT 1030, 2 GB)", "1.0 GB free", "auto leaves it out: this PyTorch was not built for it (6.1)"),
        ("cuda:2 (RTX 3090, 24 GB)", "24.0 GB free", "auto takes it, as number 1"),
        ("cuda:3", "", "cannot be opened: GPU is lost"),
        ("cpu", "", "only if it is chosen"),
    ]


def test_why_auto_takes_nobody(machine):
    machine.uuids = False
    rows = device_report.roles(torch.device("cuda", 0))
    assert {role.partition(";")[0] for _, _, role in rows[:3]} == {
        "auto takes no GPU, for it cannot tell which of them is ComfyUI's own (cuda:0)"
    }


def test_versions_variables_and_what_this_torch_cannot_use(machine, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    said = device_report.system()
    assert said[0].startswith("Hybridiff ") and f"PyTorch {torch.__version__}" in said[0]
    assert "NVIDIA driver 560.35" in said[2] and said[3:] == ["CUDA_VISIBLE_DEVICES=0,1,2"]
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "NVIDIA GeForce GT 1030 cannot be used: this PyTorch was built without CUDA" in device_report.system()


def test_a_device_that_fails_to_start_has_its_line_and_the_others_are_measured(machine):
    """The GPUs are made up, so real workers fail on them."""
    said = written(torch.device("cpu"), messages=True)
    rows = {label: line for line in said[said.index("") :] for label in ("cuda:0", "cpu") if line.startswith(label)}
    assert "the worker on cuda:0 (RTX 4090, 24 GB)" in rows["cuda:0"]
    assert re.match(ROW.format(r"cpu \(process 2\)"), rows["cpu"])
    assert "Traceback" not in "\n".join(said)


def test_without_messages_no_worker_starts(machine):
    said = written(torch.device("cuda", 0), messages=False)
    assert "ComfyUI's own device: cuda:0 (RTX 4090, 24 GB)" in said and not any("message" in line for line in said)


def test_the_command(capsys):
    assert main(["devices", "--cpu"]) == 0
    out = capsys.readouterr().out
    assert re.search(ROW.format(r"\ncpu \(process 2\)"), out) and "ComfyUI's own device: cpu\n" in out


@pytest.mark.parametrize("given, expected", [("1", "1"), ("0,1", "0,1"), ("all", "before")])
def test_cuda_device_is_set_as_comfyui_does(monkeypatch, capsys, given, expected):
    for name in (gpus.CUDA, gpus.HIP):
        monkeypatch.setenv(name, "before")
    assert main(["devices", "--no-messages", "--cuda-device", given]) == 0
    assert (os.environ[gpus.CUDA], os.environ[gpus.HIP]) == (expected, expected)
    assert f"CUDA_VISIBLE_DEVICES={expected}\n" in capsys.readouterr().out


@pytest.mark.parametrize("how", [["-m", "hybridiff_core"], [str(PACK / "hybridiff_core")]], ids=["module", "folder"])
def test_it_can_be_asked_as_a_module_and_as_a_folder(how, tmp_path):
    """The folder is for ComfyUI's portable Python, which like -I does not look into the working folder."""
    isolated, folder = ([], PACK) if how[0] == "-m" else (["-I"], tmp_path)
    done = subprocess.run(
        [sys.executable, *isolated, *how, "devices", "--no-messages"], cwd=folder, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0 and done.stderr == "" and done.stdout.startswith("Hybridiff ")
