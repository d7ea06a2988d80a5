"""ControlNets and T2I adapters that a cond brings: as plain data, and from it again in a worker.

A network's weights cross once, with the model's recipe; its hint, made ready by the host's own code in this
process (a VAE may have a part in it), crosses with the conds. A worker computes the residuals where it
computes the branch. An adapter's features are the same in every step, so they cross in place of its network.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator, Sequence

import comfy.cldm.cldm
import comfy.cldm.mmdit
import comfy.controlnet
import comfy.model_management
import torch
from comfy.controlnet import ControlBase, ControlLora, ControlNet, StrengthType, T2IAdapter
from comfy.model_patcher import ModelPatcher

from ...hybridiff_core.plan import shown
from .foreign import changed_methods, of_the_host, replaced_methods

CROSSING = {
    cls.__name__: cls
    for cls in (ControlNet, comfy.controlnet.ControlNetSD35, comfy.controlnet.QwenFunControlNet, ControlLora)
}
FIELDS = {"kind": str, "weights": dict, "dtype": (torch.dtype, type(None)), "average": bool}
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
    """`control` and those before it, last first."""
    while control is not None:
        yield control
        control = control.previous_controlnet


def active(control: ControlBase | None, sigma: float) -> int:
    """How many of a chain are on at `sigma`, before the host's pre_run all of them."""
    ranges = [link.timestep_range or (float("inf"), 0.0) for link in chain(control)]
    return sum(bool(end <= sigma <= start) for start, end in ranges)


def _network(control: ControlNet) -> object:
    return control.control_weights if isinstance(control, ControlLora) else control.control_model


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
            return "a ControlNet on an area"
        unknown = "a ControlNet that was changed while sampling"
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
        if control.extra_hooks is not None:
            return "a ControlNet with hooks"
        if type(control) is not T2IAdapter and CROSSING.get(type(control).__name__) is not type(control):
            return f"a ControlNet of another pack ({type(control).__name__})"
        if replaced_methods(control) or not of_the_host(type(control).get_control):
            return "a ControlNet with code of another pack in it"
        if type(control) is T2IAdapter:
            return None
        network = _network(control)
        around = None
        if isinstance(network, torch.nn.Module):
            around = control.control_model_wrapped
            if around.patches or around.object_patches or changed_methods(network):
                return "a ControlNet that another pack changed"
        if not any(network is owner for owner in self._owners):
            facts = {
                "kind": type(control).__name__,
                "dtype": None if isinstance(control, ControlLora) else control.control_model.dtype,
                "average": bool(control.global_average_pooling),
            }
            if not self._take(network, facts, around):
                return "a ControlNet with weights of a special form"
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
        probe = control.copy()
        if isinstance(control, T2IAdapter):
            probe.get_control(x, timestep, {}, 1, {})
            return probe.control_input
        probe.control_model, probe.manual_cast_dtype = control.control_model, control.manual_cast_dtype
        with contextlib.suppress(_HintReady):
            probe.get_control(x, timestep, _Stop(), 1, {})
        pictures = control.cond_hint_original.shape[0]
        if pictures not in (1, x.shape[0]):  # what of them a branch gets hangs on how many branches are in a batch
            self._reasons[id(control)] = "a ControlNet with another number of pictures than the latent has"
        size = [side * control.compression_ratio for side in x.shape[2:4]]
        if list(probe.cond_hint.shape[2:4]) != size:  # a worker would make it anew
            self._reasons[id(control)] = "a ControlNet whose hint has another size than the latent"
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


def weights_of(network: torch.nn.Module, patcher: ModelPatcher | None = None, prefix: str = "") -> dict:
    """The state dict as it was loaded, with the module's own tensors, which stay the same objects from run to run.

    Patches of `patcher`'s clones may lie on the weights, until the host samples with another one; `prefix` is where
    `network` is in the patcher's model.
    """
    own = {**dict(network.named_parameters(remove_duplicate=False)), **dict(network.named_buffers())}
    whole = network if patcher is None else patcher.model
    loaded = [one.model for one in comfy.model_management.current_loaded_models]
    before = {}
    for one in (*loaded, patcher):
        if one is not None and one.model is whole:
            before |= {key: weight for key, (weight, _) in one.hook_backup.items()}
            before |= getattr(one, "backup_buffers", {})
            before |= {key: kept.weight for key, kept in one.backup.items()}
    return {key: before.get(prefix + key, own[key]) for key in network.state_dict() if key in own}


def take_weights(network: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Make `weights` the network's own: all of them, and no others. Raises LookupError, RuntimeError."""
    own = network.state_dict()
    placed = {key: weight.to(own[key].device, own[key].dtype) for key, weight in weights.items()}
    network.load_state_dict(placed, assign=True)


def is_dense(tensor: object) -> bool:
    return type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.layout == torch.strided and not tensor.is_meta


# -- in a worker


class Features(ControlBase):
    """An adapter whose features are known."""

    def __init__(self, features: dict[str, list[torch.Tensor | None]]):
        super().__init__()
        self.features = features

    def get_control(self, x_noisy, t, cond, batched_number, transformer_options):
        """As the host's T2IAdapter.get_control answers."""
        before = self.previous_controlnet
        residuals = before and before.get_control(x_noisy, t, cond, batched_number, transformer_options)
        if not self.timestep_range[1] <= t[0] <= self.timestep_range[0]:
            return residuals
        own = {
            key: [
                None if feature is None
                else comfy.controlnet.broadcast_image_to(feature, x_noisy.shape[0], batched_number).clone()
                for feature in features
            ]
            for key, features in self.features.items()
        }  # fmt: skip
        return self.control_merge(own, residuals, x_noisy.dtype)


class Networks:
    """The ControlNets of a worker's last recipe; one that is known by its tensors is kept."""

    def __init__(self) -> None:
        self.made: list[ControlNet | str] = []
        self._by_tensors: dict[tuple, ControlNet | str] = {}
        self._held: list[dict] = []  # so that no other tensor comes to have the id of one of theirs

    def make(self, networks: list) -> list[str | None]:
        """Make the networks of a recipe; gives why not for each, None where it is made. Raises ValueError."""
        for network in networks:
            if not isinstance(network, dict) or network.keys() != FIELDS.keys():
                raise ValueError(f"not a ControlNet: {shown(network)}")
            for name, kind in FIELDS.items():
                if not isinstance(network[name], kind):
                    raise ValueError(f"not a ControlNet's {name}: {shown(network[name])}")
            if network["kind"] not in CROSSING or not all(map(is_dense, network["weights"].values())):
                raise ValueError(f"not a ControlNet: {shown(network['kind'])}")
        keys = [tuple(map(id, network["weights"].values())) for network in networks]
        known, self._by_tensors = self._by_tensors, {}
        for key, network in zip(keys, networks):
            self._by_tensors[key] = known[key] if key in known else _build(network)
        self._held = [network["weights"] for network in networks]
        self.made = [self._by_tensors[key] for key in keys]
        return [made if isinstance(made, str) else None for made in self.made]

    def chain(self, links: list[dict]) -> ControlBase:
        """The chain that Controls.plain gave."""
        last = None
        for link in links:
            if link["network"] is None:
                control = Features(link["hint"])
            else:
                control = self.made[link["network"]].copy()
                control.cond_hint = control.cond_hint_original = link["hint"]
                control.latent_format = None  # the hint is encoded already
            control.strength, control.strength_type = link["strength"], StrengthType[link["strength_type"]]
            control.global_average_pooling = link["average"]
            control.timestep_percent_range = link["percents"]
            control.extra_args = dict(link["arguments"])
            control.set_previous_controlnet(last)
            last = control
        return last


def _build(network: dict) -> ControlNet | str:
    """The host's ControlNet, or why there is none."""
    kind, weights, dtype = network["kind"], network["weights"], network["dtype"]
    options = {"dtype": dtype, "global_average_pooling": network["average"]}
    if kind == "ControlLora":
        return ControlLora(weights, network["average"])
    try:
        if "zero_convs.0.0.weight" in weights:
            control = _like_a_unet(weights, options)
        elif "joint_blocks.0.x_block.attn.qkv.weight" in weights:
            control = _like_sd3(weights, options)
        else:
            control = comfy.controlnet.load_controlnet_state_dict(dict(weights), model_options=options)
        if type(control) is not CROSSING[kind] or control.control_model.dtype != dtype:
            return "a ControlNet of a form that a worker does not know"
        take_weights(control.control_model, weights)
    except comfy.model_management.OOM_EXCEPTION:
        raise
    except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        return "a ControlNet of a form that a worker does not know"
    return control


def _like_a_unet(weights: dict, options: dict) -> ControlNet:
    """One that is like a U-Net's first half; the host's loader knows a union one by its file's names alone."""
    config, operations, load_device, dtype, cast, device = comfy.controlnet.controlnet_config(dict(weights), options)
    shape = {key: value for key, value in config.unet_config.items() if key != "out_channels"}
    shape |= {"operations": operations, "dtype": dtype, "device": device}
    shape["hint_channels"] = weights["input_hint_block.0.weight"].shape[1]
    if "task_embedding" in weights:
        shape["union_controlnet_num_control_type"] = weights["task_embedding"].shape[0]
    model = comfy.cldm.cldm.ControlNet(**shape)
    return ControlNet(model, options["global_average_pooling"], load_device=load_device, manual_cast_dtype=cast)


def _like_sd3(weights: dict, options: dict) -> ControlNet:
    """One that is like SD3's first blocks; the host's loader knows it by its file's names alone."""
    config, operations, load_device, dtype, cast, device = comfy.controlnet.controlnet_config(dict(weights), options)
    model = comfy.cldm.mmdit.ControlNet(
        num_blocks=len({key.split(".")[1] for key in weights if key.startswith("joint_blocks.")}),
        control_latent_channels=weights["pos_embed_input.proj.weight"].shape[1],
        operations=operations, device=device, dtype=dtype, **config.unet_config,
    )  # fmt: skip
    return ControlNet(model, compression_ratio=1, load_device=load_device, manual_cast_dtype=cast)
