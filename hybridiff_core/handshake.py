"""Whether a device computes what this process computes: its first results beside this process's own.

A network can be changed in ways that no recipe shows (a block's class swapped, weights changed in
place). So a result is believed where one like it was compared before.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch

from .call import Call, Rows
from .rules import ROUNDING, ROUNDING_BFLOAT16, ROUNDING_FLOAT16, ROUNDING_TF32
from .setting import Setting
from .workers.exchange import Exchange

WHOLE = {"float32", "float64"}  # types of which rounding leaves next to nothing


class Handshake:
    """A run's comparisons. What they found is kept by the worker (Exchange.compared), for the runs after it.

    A worker that is new to a model and latent is compared at its first result, and once more in the
    second half of the same run.
    """

    def __init__(self, setting: Setting):
        self.output, self.dtype, self.steps = setting.output, setting.dtype, setting.steps
        self._proof = setting.proof or (lambda: setting.name)
        self._again: set[Exchange] = set()

    @functools.cached_property
    def _name(self) -> object:
        return self._proof()  # takes some time, and is for nothing where no worker comes

    def _key(self, call: Call) -> object:
        return self._name, tuple(call.x.shape)

    def trusts(self, exchange: Exchange, call: Call) -> bool:
        """Whether the worker's results for this model and latent were found right before."""
        return self._key(call) in exchange.compared

    def due(self, exchange: Exchange, call: Call, step: int | None) -> bool:
        """Whether the worker's result of this exact call is to be compared."""
        if not self.trusts(exchange, call):
            return True
        return exchange in self._again and step is not None and step >= max(1, self.steps // 2)

    def passed(self, exchange: Exchange, call: Call) -> None:
        """A result was found right."""
        if self.trusts(exchange, call):
            self._again.discard(exchange)
        else:
            self._again.add(exchange)
            exchange.compared.add(self._key(call))

    def failed(self, exchange: Exchange, call: Call, off: float) -> None:
        """A result was found wrong: `off` as `off` gives it."""
        exchange.compared.discard(self._key(call))
        exchange.differs[self._key(call)] = off
        self._again.discard(exchange)

    def differs(self, exchange: Exchange, call: Call) -> float | None:
        """How far off the worker was found before, for this model and latent; None where it was not."""
        return exchange.differs.get(self._key(call))

    # -- a call that was shared by rows or tokens (share.py)

    def trusts_way(self, kind: object, exchanges: Sequence[Exchange], call: Call) -> bool:
        """Whether what these workers and this process made of a call shared in this `kind` of way was found right."""
        return all((*self._key(call), kind) in exchange.compared for exchange in exchanges)

    def passed_way(self, kind: object, exchanges: Sequence[Exchange], call: Call) -> None:
        """It was found right."""
        for exchange in exchanges:
            exchange.compared.add((*self._key(call), kind))

    # -- how near

    def off(self, call: Call, theirs: torch.Tensor, own: torch.Tensor, rows: Rows | None = None) -> float:
        """How far a prediction is from this process's, as a share of what the network put out.

        Both in denoised space, of x's shape, or of that of its batch items `rows`. 0 where this process's own has
        values that are no numbers.
        """
        first, end, _ = rows or (0, len(call.x), 0)
        given = (call.x[first:end], call.sigma[first:end], own, theirs)
        x, sigma, own, theirs = (tensor.cpu() for tensor in given)  # not every device has float64
        expected = self.output(x, sigma, own).double()
        apart = (self.output(x, sigma, theirs).double() - expected).norm()
        share = float(apart / expected.norm().clamp_min(1e-12))
        return share if math.isfinite(float(expected.norm())) else 0.0

    def allowed(self, exchange: Exchange) -> float:
        """What rounding alone may make of it, by the types and devices that compute."""
        on_processors = exchange.own.type == "cpu" and exchange.place.device == "cpu"
        return rounding({self.dtype, exchange.info.get("dtype") or self.dtype}, on_processors)


def rounding(dtypes: set[str], on_processors: bool) -> float:
    """What rounding alone may make of a prediction, as a share, where networks of these types compute."""
    if not dtypes <= WHOLE:
        return ROUNDING_FLOAT16 if dtypes <= {*WHOLE, "float16"} else ROUNDING_BFLOAT16
    fine = on_processors and torch.get_float32_matmul_precision() == "highest"  # a setting has them round to bfloat16
    return ROUNDING if fine else ROUNDING_TF32
