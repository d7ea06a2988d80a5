"""ControlNets and T2I adapters that a cond brings, as plain data.

A network's weights cross once, with the model's recipe; its hint, made ready by the host's own code in this
process (a VAE may have a part in it), crosses with the conds. A worker computes the residuals where it
computes the branch. An adapter's features are the same in every step, so they cross in place of its network.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator, Sequence

import comfy.controlnet
import torch
from comfy.controlnet import ControlBase, ControlLora, ControlNet, T2IAdapter
from comfy.model_patcher import ModelPatcher

from ...hybridiff_core import lines
from .foreign import changed_methods, of_the_host, replaced_methods
from .weights import is_dense, weights_of

CROSSING = {
    cls.__name__: cls
    for cls in (ControlNet, comfy.controlnet.ControlNetSD35, comfy.controlnet.QwenFunControlNet, ControlLora)
}
OWN_ARGUMENTS = ("base_model",)  # the host sets it in each process

# the networks that were sampled with a model, so that a pass without them does not make the workers forget them
_sampled_with: weakref.WeakKeyDictionary[torch.nn.Module, dict[weakref.ref, dict]] = weakref.WeakKeyDictionary()


class _HintReady(Exception):
    pass


class _Stop(dict):
    """A cond that ends ControlNet.get_control where the hint is ready and the text is asked for."""

    def get(self, *_):
        raise _HintReady

    __getitem__ = get


def chain(control: ControlBase | None) -> Iterator[ControlBase]:
    """`control` and those before it, last first. One of a pack may be of no class of the host's."""
    while control is not None:
        yield control
        control = getattr(control, "previous_controlnet", None)


def active(control: ControlBase | None, sigma: float) -> int:
    """How many of a chain are on at `sigma`, before the host's pre_run all of them."""
    ranges = [getattr(link, "timestep_range", None) or (float("inf"), 0.0) for link in chain(control)]
    return sum(bool(end <= sigma <= start) for start, end in ranges)


def _network(control: ControlNet) -> object:
    return control.control_weights if isinstance(control, ControlLora) else control.control_model


def hint_of(control: ControlBase, x: torch.Tensor, timestep: torch.Tensor) -> ControlBase:
    """A copy of `control` whose hint is ready for latents of x's shape: its `cond_hint`, an adapter's `control_input`.

    Made by the host's own code, of all the pictures.
    """
    probe = control.copy()
    if isinstance(control, T2IAdapter):
        probe.get_control(x, timestep, {}, 1, {})
        return probe
    probe.control_model, probe.manual_cast_dtype = control.control_model, control.manual_cast_dtype
    with contextlib.suppress(_HintReady):
        probe.get_control(x, timestep, _Stop(), 1, {})
    return probe


class Controls:
    """What a run's conds bring with them. `networks` are a recipe's part; conds name them by their place.

    Networks that earlier runs had with the same `model` and that still live stay among them.
    """

    def __init__(self, conds: Sequence[dict], model: torch.nn.Module):
        self.networks: list[dict] = []
        self._owners: list[object] = []
        self._reasons: dict[int, str | None] = {}
        self._ready: dict[int, tuple] = {}
        self._known: list[tuple[ControlBase, object]] = []
        kept = _sampled_with.setdefault(model, {})
        for reference, facts in list(kept.items()):
            if (network := reference()) is None:
                del kept[reference]
            else:
                self._take(network, facts)
        for cond in conds:
            for control in chain(cond.get("control")):
                self._reasons[id(control)] = self._add(control, kept)

    def reason(self, cond: dict) -> str | None:
        """Why the cond's ControlNets have to be computed in this process, in words for users."""
        if cond.get("control") is None:
            return None
        if cond.get("area") is not None:
            return lines.CONTROLNET_ON_AREA()
        unknown = lines.CONTROLNET_CHANGED_IN_RUN()
        return next(filter(None, (self._reasons.get(id(link), unknown) for link in chain(cond["control"]))), None)

    def refused(self, reasons: Sequence[str | None]) -> None:
        """Take in what a worker could not make, by the networks' places."""
        for owner, why in zip(self._owners, reasons):
            for control, network in self._known:
                if why and network is owner:
                    self._reasons[id(control)] = why

    def prepare(self, conds: Sequence[dict], x: torch.Tensor, timestep: torch.Tensor) -> None:
        """Make the hints ready for latents of x's shape, where that is not done."""
        for cond in conds:
            for control in chain(cond.get("control")):
                done = self._ready.get(id(control))
                if self.reason(cond) is None and (done is None or done[0] != x.shape):
                    self._ready[id(control)] = (x.shape, self._hint(control, x, timestep))

    def plain(self, control: ControlBase) -> list[dict]:
        """A chain as a worker makes it again, first link first."""
        return [self._link(link) for link in reversed(list(chain(control)))]

    # -- one link

    def _add(self, control: ControlBase, kept: dict[weakref.ref, dict]) -> str | None:
        if getattr(control, "extra_hooks", None) is not None:
            return lines.CONTROLNET_HOOKS()
        if type(control) is not T2IAdapter and CROSSING.get(type(control).__name__) is not type(control):
            return lines.CONTROLNET_OF_A_PACK(name=type(control).__name__)
        if replaced_methods(control) or not of_the_host(type(control).get_control):
            return lines.CONTROLNET_HAS_CODE()
        if type(control) is T2IAdapter:
            return None
        network = _network(control)
        around = None
        if isinstance(network, torch.nn.Module):
            around = control.control_model_wrapped
            if around.patches or around.object_patches or changed_methods(network):
                return lines.CONTROLNET_PATCHED()
        if not any(network is owner for owner in self._owners):
            facts = {
                "kind": type(control).__name__,
                "dtype": None if isinstance(control, ControlLora) else control.control_model.dtype,
                "average": bool(control.global_average_pooling),
            }
            if not self._take(network, facts, around):
                return lines.CONTROLNET_SPECIAL_WEIGHTS()
            if isinstance(network, torch.nn.Module):
                kept[weakref.ref(network)] = facts
        self._known.append((control, network))
        return None

    def _take(self, network: object, facts: dict, around: ModelPatcher | None = None) -> bool:
        """Put a network among those that cross, where its weights can."""
        weights = dict(network) if isinstance(network, dict) else weights_of(network, around)
        if not all(map(is_dense, weights.values())):
            return False
        self._owners.append(network)
        self.networks.append({**facts, "weights": weights})
        return True

    def _hint(self, control: ControlBase, x: torch.Tensor, timestep: torch.Tensor) -> object:
        probe = hint_of(control, x, timestep)
        if isinstance(control, T2IAdapter):
            return probe.control_input
        pictures = control.cond_hint_original.shape[0]
        if pictures not in (1, x.shape[0]):  # what of them a branch gets hangs on how many branches are in a batch
            self._reasons[id(control)] = lines.CONTROLNET_PICTURES()
        size = [side * control.compression_ratio for side in x.shape[2:4]]
        if list(probe.cond_hint.shape[2:4]) != size:  # a worker would make it anew
            self._reasons[id(control)] = lines.CONTROLNET_HINT_SIZE()
        return probe.cond_hint

    def _link(self, control: ControlBase) -> dict:
        link = {
            "hint": self._ready[id(control)][1],
            "network": None,
            "strength": float(control.strength),
            "strength_type": control.strength_type.name,
            "average": bool(control.global_average_pooling),
            "percents": tuple(control.timestep_percent_range),
            "arguments": {key: value for key, value in control.extra_args.items() if key not in OWN_ARGUMENTS},
        }
        if not isinstance(control, T2IAdapter):
            link["network"] = next(i for i, owner in enumerate(self._owners) if owner is _network(control))
        return link
