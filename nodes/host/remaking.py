"""How a run's model is made again in a worker, by parts or by its graph, and what follows from that for its calls."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

import torch
from comfy.model_patcher import ModelPatcher

from ...hybridiff_core import lines
from ...hybridiff_core.call import Here, Piece, Predictions, Rows, merge, to_eps
from ...hybridiff_core.handshake import rounding
from ...hybridiff_core.share import Unit
from ...hybridiff_core.workers.wire import CannotCross, dtype_name
from . import content, obstacles
from .graph import Origin
from .loaders import FileChanged, require_unchanged
from .recipe import recipe_of
from .state import Watching

REMEMBERED = 64

_proven: OrderedDict[object, None] = OrderedDict()  # graphs whose code kept nothing from call to call
_apart: OrderedDict[object, None] = OrderedDict()  # graphs that make of a cond alone what they make of it among others
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
        self.several = False  # whether a call has several units, of which a worker would compute one

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

        def noted(units: list[Unit], *how: object, rows: Rows | None = None) -> Predictions:
            self._done.append([] if rows else list(units))  # some of a batch is not the units
            return here(units, *how, **({"rows": rows} if rows else {}))

        return noted if self.by_graph else here

    def torn(self, units: list[Unit]) -> bool:
        """Whether a call of these units, which was shared, is to be computed once more, whole and by this process.

        So where it shows for the first time that code keeps something: what it gave so far is right, but this
        process is to keep all of it, as it would alone.
        """
        return self.by_graph and bool(self.watching.fault and self._done) and self._done != [units]

    @property
    def trusted(self) -> bool:
        """Whether the code in the network is known to keep nothing, and to need none of a call's units for another."""
        return self._keeps_nothing and not (self.by_graph and self.several and self._graph not in _apart)

    @property
    def _keeps_nothing(self) -> bool:
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

    def try_apart(
        self,
        x: torch.Tensor,
        sigma: torch.Tensor,
        units: list[Unit],
        here: Here,
        weight: Callable[[list[Unit]], torch.Tensor],
        predictions: Predictions,
    ) -> None:
        """Compute the units of a call one by one: code may make something else of them at once, as the host does.

        Once for a graph, when it is known to keep nothing: else the further calls would change what it keeps.
        `predictions` are what came of the call; the rest is as in Call.
        """
        if not self.by_graph or len(units) < 2 or not self._keeps_nothing or self._graph in _apart:
            return
        whole = predictions if self._done == [units] else here(units)
        alone = merge([Piece([unit], here([unit])[unit.branch]) for unit in units], weight, len(x))

        def off(found: Predictions) -> float:
            return max(_share_off(to_eps(found[b], x, sigma), to_eps(of_all, x, sigma)) for b, of_all in whole.items())

        dtype, name = dtype_name(self.patcher.model.get_dtype_inference()), self.watching.names
        allowed = rounding({dtype}, x.device.type == "cpu")
        if (apart := off(alone)) <= allowed:
            _remember(_apart, self._graph, None)
        elif off(here(units)) > allowed:
            self.watching.fault = lines.ANOTHER_EACH_TIME(name=name)
        else:
            self.watching.fault = lines.BRANCHES_TOGETHER(name=name, off=apart)

    def hear(self, doubts: Iterable[str | None]) -> None:
        """Take note of what workers saw of the code."""
        if self.by_graph:
            self.watching.fault = next(filter(None, (self.watching.fault, *doubts)), None)


def _share_off(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).double().norm() / expected.double().norm().clamp_min(1e-12))


def _remember(found: OrderedDict, key: object, value: object) -> None:
    found[key] = value
    found.move_to_end(key)
    while len(found) > REMEMBERED:
        found.popitem(last=False)
