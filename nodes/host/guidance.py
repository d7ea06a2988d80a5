"""What a guider tells of a run: its conds, and how strongly it guides by them."""

from __future__ import annotations

import math

from comfy.model_patcher import ModelPatcher

from .conditioning import Cond, with_boxes


class Guidance:
    """A guider's conds and CFG, as they are now: a node may change them while the run goes on."""

    def __init__(self, guider: object):
        self._guider = guider

    @property
    def conds(self) -> dict[str, list[Cond]]:
        """The branches' conds by the guider's names for them; empty for a guider that keeps none."""
        return with_boxes(getattr(self._guider, "conds", {}))

    @property
    def all_conds(self) -> list[Cond]:
        return [cond for of_branch in self.conds.values() for cond in of_branch]

    @property
    def expected(self) -> list[list[Cond]]:
        """The conds that a call will have, a list per branch, told before the first one."""
        if self.off and not self._guider.model_options.get("disable_cfg1_optimization", False):
            return [list(self.conds.get("positive", ()))]
        return list(self.conds.values())

    @property
    def asks_at_once(self) -> bool:
        """Whether all branches are asked of this model, in one call, as far as that shows before the first one."""
        others = (value for value in vars(self._guider).values() if isinstance(value, ModelPatcher))
        own = all(patcher is self._guider.model_patcher for patcher in others)
        return own and "sampler_calc_cond_batch_function" not in self._guider.model_options

    @property
    def other_model(self) -> ModelPatcher | None:
        """The model that is asked for one of the branches beside the guider's own; None for none, or for several."""
        own = self._guider.model_patcher
        found = [v for v in vars(self._guider).values() if isinstance(v, ModelPatcher) and v.model is not own.model]
        return found[0] if len(found) == 1 and not self.off else None

    @property
    def branches(self) -> int:
        """How many branches have conds."""
        return sum(map(bool, self.conds.values()))

    @property
    def scale(self) -> float:
        """The guider's CFG; of a guider with two, what both come to."""
        one, two = (float(getattr(self._guider, name, 0.0)) for name in ("cfg1", "cfg2"))
        both = one * two if getattr(self._guider, "nested", False) else one + two
        return max(float(getattr(self._guider, "cfg", 1.0)), both)

    @property
    def off(self) -> bool:
        """Whether only the positive branch counts."""
        plain = self.conds.keys() <= {"positive", "negative"}  # others have scales of their own
        return plain and math.isclose(getattr(self._guider, "cfg", 0.0), 1.0)

    @property
    def in_windows(self) -> bool:
        """Whether calls see parts of the latent in turn, by the host's context windows."""
        return "context_handler" in self._guider.model_options
