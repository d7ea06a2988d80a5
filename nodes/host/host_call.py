"""A denoiser call as the host makes it, and this process's part in answering it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ...hybridiff_core import lines
from ...hybridiff_core.call import Here, Predictions, Rows
from ...hybridiff_core.network.split import Pass
from ...hybridiff_core.network.tokens import Look, Shard
from ...hybridiff_core.share import Unit
from . import conditioning, options
from .control import Controls
from .cuts import hooked
from .rows import of_first_call, of_rows, ready_hints

Through = Pass | Look | Shard
KEY = "hybridiff"  # of all that this pack puts on a model and into its options


@dataclass(frozen=True)
class HostCall:
    """What the CALC_COND_BATCH wrapper is given (comfy/samplers.py, _calc_cond_batch_outer).

    x [batch, channels, ...]; timestep [batch], in sigma; `conds` is a list per branch, or None.
    """

    executor: Callable
    model: torch.nn.Module
    conds: conditioning.Conds
    x: torch.Tensor
    timestep: torch.Tensor
    model_options: dict

    @property
    def all_conds(self) -> list[conditioning.Cond]:
        return [cond for of_branch in self.conds for cond in of_branch or ()]

    @property
    def branches(self) -> int:
        """How many branches are asked for."""
        return sum(map(bool, self.conds))

    def units(self, controls: Controls) -> list[Unit]:
        """The conds due at this call's sigma."""
        return conditioning.units_of(self.conds, self.x, self.timestep, controls)

    def names(self, units: list[Unit]) -> tuple:
        """What tells the units' conds from others."""
        return tuple(self.conds[unit.branch][unit.index].get("uuid") for unit in units)

    def kinds(self, units: list[Unit]) -> tuple:
        """What is in the units' conds, and which are computed at once, for what is remembered of their forwards."""
        conds = [self.conds[unit.branch][unit.index] for unit in units]
        return tuple(map(conditioning.kind_of, conds)), conditioning.first_alike(conds)

    def weight(self, units: list[Unit]) -> torch.Tensor:
        """The sum of the units' masks, of x's shape."""
        return conditioning.weight_of(self.conds, units, self.x, self.timestep)

    def plain(self, controls: Controls, to_code: bool = False) -> dict:
        """What a worker must know of this call beside x and sigma; `to_code` says that code of nodes is there too."""
        return {
            **conditioning.crossing(self.conds, controls),
            "options": options.crossing(self.model_options["transformer_options"], to_code),
            "shape": tuple(self.x.shape),
        }

    def by_the_host(self) -> list[torch.Tensor]:
        """The answer as without this pack."""
        return self.executor(self.model, self.conds, self.x, self.timestep, self.model_options)

    def network(self, units: list[Unit], splitter: object) -> Here:
        """This process's network as the engine asks it; `units` are all that are due."""

        def here(mine: list[Unit], through: Through | None = None, rows: Rows | None = None) -> Predictions:
            chosen = self.conds if mine == units else conditioning.select(self.conds, mine)
            given = self.model_options if through is None else hooked(self.model_options, splitter, through)
            x, timestep = self.x, self.timestep
            if rows is None and of_first_call(chosen):
                rows = (0, len(x), len(x))
            if rows is not None:
                ready_hints(chosen, x, timestep)
                chosen, x, timestep = of_rows(chosen, rows), x[rows[0] : rows[1]], timestep[rows[0] : rows[1]]
            try:
                out = self.executor(self.model, chosen, x, timestep, given)
            except TypeError:  # Kandinsky 5 calls its blocks by other names where the hook is asked
                if not isinstance(through, Look):
                    raise
                through.form, through.reason = None, lines.NO_BLOCK_HOOK()
                out = self.executor(self.model, chosen, x, timestep, self.model_options)
            return {branch: out[branch] for branch in {unit.branch for unit in mine}}

        return here

    def answer(self, predictions: Predictions) -> list[torch.Tensor]:
        """The engine's predictions as the host wants them: one of x's shape per cond list."""
        return [predictions.get(branch, torch.zeros_like(self.x)) for branch in range(len(self.conds))]
