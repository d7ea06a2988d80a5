"""PyTorch's settings as they cross to a worker."""

import json

import pytest
import torch

from hybridiff_core.workers import torch_settings


@pytest.fixture(autouse=True)
def before():
    before = torch_settings.read()
    yield before
    torch_settings.lay(before)


CHANGES = {
    "tf32": lambda: torch.set_float32_matmul_precision("high"),
    "bf16": lambda: torch.set_float32_matmul_precision("medium"),
    "tf32, the old way": lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
    "tf32 of cudnn": lambda: setattr(torch.backends.cudnn, "allow_tf32", False),
    "benchmark": lambda: setattr(torch.backends.cudnn, "benchmark", True),
    "fp16 sums": lambda: setattr(torch.backends.cuda.matmul, "allow_fp16_reduced_precision_reduction", False),
    "bf16 sums": lambda: setattr(torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction", False),
    "flash attention": lambda: torch.backends.cuda.enable_flash_sdp(False),
    "deterministic": lambda: torch.use_deterministic_algorithms(True, warn_only=True),
}
if hasattr(torch.backends.cuda.matmul, "fp32_precision"):  # PyTorch 2.9; the old way cannot be read after it
    CHANGES["tf32, the new way"] = lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32")
    CHANGES["tf32 everywhere"] = lambda: setattr(torch.backends, "fp32_precision", "tf32")


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_crosses_and_the_next_run_takes_it_back(change, before):
    CHANGES[change]()
    changed = json.loads(json.dumps(torch_settings.read()))
    assert changed != before
    for told in (before, changed, before):  # as a worker is told in three runs
        torch_settings.lay(told)
        assert torch_settings.read() == told


@pytest.mark.parametrize(
    "told",
    [
        None,
        {"cudnn.__class__": True},
        {"cudnn.benchmark": "on"},
        {"cudnn.benchmark": 1},
        {"float32_matmul_precision": "low"},
        {"float32_matmul_precision": [True]},
        {"float32_matmul_precision": "tf32"},
        {"cuda.matmul.fp32_precision": "high"},
        {"cuda.matmul.allow_tf32": "tf32"},
        {"cuda.matmul.allow_fp16_reduced_precision_reduction": "ieee"},
    ],
)
def test_what_is_none_of_them_is_refused(told, before):
    with pytest.raises(ValueError, match="not "):
        torch_settings.lay(told)
    assert torch_settings.read() == before
