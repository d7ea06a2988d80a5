"""Muon: momentum made orthogonal for the matrices, Adam for everything else."""

import torch


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """The matrix with its singular values near 1: five Newton-Schulz steps (Jordan et al., Muon, 2024).

    A step multiplies x by a polynomial in x x^T. Those commute, so x x^T is carried instead of x, which is wider, and x
    is multiplied once.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    one = torch.eye(len(x))
    gram, product = x @ x.T, one
    for _ in range(5):
        step = 3.4445 * one - 4.7750 * gram + 2.0315 * gram @ gram
        product = step @ product
        gram = step @ gram @ step
    x = product @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Steps of Adam's usual size on weights of any shape, whose first dimension counts their outputs."""

    def __init__(self, parameters: list, lr: float, momentum: float = 0.95, weight_decay: float = 0.02) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                mean = self.state[weight].setdefault("mean", torch.zeros_like(weight))
                mean.lerp_(weight.grad, 1 - group["momentum"])
                flat = weight.grad.lerp(mean, group["momentum"]).flatten(1)
                size = 0.2 * max(flat.shape) ** 0.5
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(orthogonal(flat).view_as(weight), alpha=-group["lr"] * size)
