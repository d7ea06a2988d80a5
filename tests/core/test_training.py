"""What training/ has of its own and needs no ComfyUI."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

TRAINING = Path(__file__).resolve().parents[2] / "training"


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    spec = importlib.util.spec_from_file_location("hybridiff_training_muon", TRAINING / "muon.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.orthogonal(matrix)


@pytest.mark.parametrize("shape", [(32, 288), (288, 32), (64, 64)])
def test_muon_does_the_published_newton_schulz_steps(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    x = matrix.double() / matrix.double().norm()
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x - 4.7750 * gram @ x + 2.0315 * gram @ gram @ x
    assert (orthogonal(matrix) - x).norm() < 1e-3 * x.norm()


def test_muon_brings_singular_values_near_1():
    matrix = torch.randn(32, 288, generator=torch.Generator().manual_seed(0))
    least, most = torch.linalg.svdvals(orthogonal(matrix)).aminmax()
    assert least > 0.6 and most < 1.25
