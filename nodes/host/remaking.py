"""How a run's model is made again in a worker, by parts or by its graph, and what follows from that for its calls."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

import torch
from comfy.model_patcher import ModelPatcher

from ...hybridiff_core import lines
from ...hybridiff_core.call import Here, Predictions
from ...hybridiff_core.share import Unit
from ...hybridiff_core.workers.wire import CannotCross
from . import content, obstacles
from .graph import Origin
from .loaders import FileChanged, require_unchanged
from .recipe import recipe_of
from .state import Watching

REMEMBERED = 64

_proven: OrderedDict[object, None] = OrderedDict()  # graphs whose code kept nothing from call to call
_faults: OrderedDict[object, str] = OrderedDict()  # graphs whose code did, and why they are not shared


class Remaking:
    """The recipe of `patcher`'s model with the options of a sampling. Where it is by graph, its code is watched.

    `origin` is the graph, None where it is not known; `other_packs` says whether nodes of other packs may be run.
    """

    def __init__(self, patcher: ModelPatcher, model_options: dict, origin: Origin | None, other_packs: bool = True):
        self.patcher, self.origin, self.other_packs = patcher, origin, other_packs
        self.code = obstacles.code_inside(model_options)  # which code of other nodes is in the network
        self.recipe: dict | None = None
        self.watching: Watching | None = None
        self._graph: object = None
        self._done: list[list[Unit]] = []

    @property
    def by_graph(self) -> bool:
        return self.watching is not None

    def make(self, controls: Sequence[dict]) -> str | None:
        """Find the recipe; gives why there is none, in words for users, or None where there is one."""
        reason = self.code
        try:
            if not reason:
                self.recipe = recipe_of(self.patcher, controls)
                return None
            require_unchanged(self.patcher)
        except FileChanged as error:
            return str(error)
        except CannotCross as error:
            reason = str(error)
        if self.origin is None:
            return reason
        try:
            recipe = self.origin.recipe(self.patcher, controls, self.other_packs)
        except CannotCross as error:
            return lines.AND_NOT_BY_GRAPH(reason=reason, why=error)
        self._graph = repr(recipe["graph"]["nodes"])
        if fault := _faults.get(self._graph):
            return fault
        self.recipe, self.watching = recipe, Watching(self.patcher, self.origin.left)
        return None

    # -- a run's calls

    def code_in(self, executor: Callable, model: torch.nn.Module, model_options: dict) -> str | None:
        """Which code a call has in its network that a worker does not, in words for users; None for none."""
        if not self.by_graph:
            return obstacles.code_inside(model_options) or obstacles.code_around(executor, model)
        return self.origin.strange(model_options) or obstacles.comfyui_replaced(executor, model)

    @property
    def serial(self) -> int:
        """A number of the objects that are in the model: where nodes ran again it is another one."""
        return content.serial(self.origin.left) if self.by_graph else 0

    def noting(self, here: Here) -> Here:
        """`here`, of which is noted what of a call it computes."""
        self._done = []

        def noted(units: list[Unit], *how: object) -> Predictions:
            self._done.append(list(units))
            return here(units, *how)

        return noted if self.by_graph else here

    def torn(self, units: list[Unit]) -> bool:
        """Whether a call of these units, which was shared, is to be computed once more, whole and by this process.

        So where it shows for the first time that code keeps something: what it gave so far is right, but this
        process is to keep all of it, as it would alone.
        """
        return self.by_graph and bool(self.watching.fault and self._done) and self._done != [units]

    @property
    def trusted(self) -> bool:
        """Whether the code in the network is known to keep nothing from call to call."""
        return not self.by_graph or self.watching.proven or (self._graph in _proven and not self.watching.fault)

    def fault(self) -> str | None:
        """Why the code that was watched cannot be shared, in words for users; None where nothing shows."""
        if not self.by_graph:
            return None
        if self.watching.proven:
            _remember(_proven, self._graph, None)
        if self.watching.fault:
            _remember(_faults, self._graph, self.watching.fault)
            _proven.pop(self._graph, None)
        return self.watching.fault

    def hear(self, doubts: Iterable[str | None]) -> None:
        """Take note of what workers saw of the code."""
        if self.by_graph:
            self.watching.fault = next(filter(None, (self.watching.fault, *doubts)), None)


def _remember(found: OrderedDict, key: object, value: object) -> None:
    found[key] = value
    found.move_to_end(key)
    while len(found) > REMEMBERED:
        found.popitem(last=False)
