"""What an engine must know of a run, beside the workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from . import lines
from .call import to_eps
from .network.split import Cut
from .network.tokens import Form
from .paces import Paces
from .plan import HybridPlan
from .rules import HIGHER_ORDER, STEPS_PER_CFG

Cuts = dict[object, Cut]
Forms = dict[object, "Form | str"]  # by the name of model, units and latent
# what the network itself put out, of its prediction: from (x, sigma, denoised) to a tensor of x's shape
Output = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
# where a network of so many blocks can be cut for so many inner segments, or why nowhere
Openings = Callable[[int, int], "list[tuple[int, int]] | str"]


@dataclass
class Setting:
    """A run's plan and what it runs on.

    `sigmas` are the sampler's; `time` gives the model's time for a sigma; `openings` says where
    the network can be cut. `cuts` and `paces` remember, by `name`, where networks were cut and
    which devices were slower: what is measured differs from run to run, and the picture must not.
    Without `paces` devices count as equal. `forms` has what networks showed of their tokens (sharing.py).
    `proof` gives what tells everything that the model computes with, patches too: under it, a worker's results
    count as compared with this process's (handshake.py), by what `output` says of a prediction;
    `dtype` is what the model computes in.
    `noise` has what sigma is at each of `sigmas`, where these only number levels. `flow` says that
    the model is a flow, and sigma its time; `scale` how large its noise is at sigma 1 beside a
    picture; `first_order` that each of the sampler's steps is eps
    times the change of sigma, as Euler's. `extrapolate=False` takes inner results as they come,
    for comparison.
    """

    plan: HybridPlan
    sigmas: Sequence[float]
    cfg: float = 1.0
    time: Callable[[float], float] = float
    openings: Openings = lambda blocks, segments: lines.NO_BLOCKS()
    cuts: Cuts = field(default_factory=dict)
    paces: Paces | None = field(default_factory=Paces)
    forms: Forms = field(default_factory=dict)
    name: object = None
    proof: Callable[[], object] | None = None
    output: Output = lambda x, sigma, denoised: to_eps(denoised, x, sigma)
    dtype: str = "float32"
    noise: Sequence[float] | None = None
    flow: bool = False
    scale: float = 1.0
    first_order: bool = False
    extrapolate: bool = True

    @property
    def steps(self) -> int:
        return len(self.sigmas) - 1

    @property
    def weight(self) -> float:
        """How much of what a step is off the sampler makes of it, against Euler's with many steps."""
        of_order = 1.0 if self.first_order else HIGHER_ORDER
        return of_order * (max(1.0, STEPS_PER_CFG * self.cfg / self.steps) if self.cfg > 1.0 else 1.0)
