"""ControlNets in a worker, from the plain data that control.py made of them."""

from __future__ import annotations

import comfy.cldm.cldm
import comfy.cldm.mmdit
import comfy.controlnet
import comfy.model_management
import torch
from comfy.controlnet import ControlBase, ControlLora, ControlNet, StrengthType

from ...hybridiff_core import lines
from ...hybridiff_core.plan import shown
from .control import CROSSING
from .weights import is_dense, take_weights

FIELDS = {"kind": str, "weights": dict, "dtype": (torch.dtype, type(None)), "average": bool}


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
                raise ValueError(lines.WRONG_VALUE(what="a ControlNet", value=shown(network)))
            for name, kind in FIELDS.items():
                if not isinstance(network[name], kind):
                    raise ValueError(lines.WRONG_VALUE(what=f"a ControlNet's {name}", value=shown(network[name])))
            if network["kind"] not in CROSSING or not all(map(is_dense, network["weights"].values())):
                raise ValueError(lines.WRONG_VALUE(what="a ControlNet", value=shown(network["kind"])))
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
            return lines.CONTROLNET_UNKNOWN_FORM()
        take_weights(control.control_model, weights)
    except comfy.model_management.OOM_EXCEPTION:
        raise
    except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        return lines.CONTROLNET_UNKNOWN_FORM()
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
