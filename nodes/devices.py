"""The devices node: which devices help."""

from __future__ import annotations

from dataclasses import dataclass

from comfy_api.latest import io

from ..hybridiff_core.plan import shown
from ..hybridiff_core.workers.devices import OTHERS, choices
from .plan import CATEGORY

DEVICES = io.Custom("HYBRIDIFF_DEVICES")
HERE, EVERYWHERE = "this machine", "this machine and others"
OTHER_PACKS = ("run their nodes in the worker too", "off")


@dataclass(frozen=True)
class Devices:
    """What goes from Hybridiff Devices nodes to the others: device names, and what the user allows.

    That is whether workers may run other packs' nodes, and whether other machines are sent model files.
    """

    names: tuple[str, ...] = ("auto",)
    other_packs: bool = True
    send_files: bool = False


class HybridiffDevices(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HybridiffDevices",
            display_name="Hybridiff Devices",
            category=CATEGORY,
            description="Adds one device that helps ComfyUI's own. Chain several of these nodes for several devices.",
            search_aliases=["multigpu", "gpu", "parallel"],
            inputs=[
                io.Combo.Input(
                    "device",
                    options=choices(),
                    default="auto",
                    tooltip="auto: this machine's other GPUs, except hidden, busy, small and unsupported ones. same: a "
                    "second process on ComfyUI's own device (for tests; no faster on a GPU). cpu: a process on the "
                    "processor, far slower than a GPU. cuda:0, cuda:1, ...: that GPU, also where auto leaves it out. "
                    "Different kinds of devices round differently. pc-b: cuda:0: that GPU of a machine that joined.",
                ),
                io.Combo.Input(
                    "where",
                    options=[HERE, EVERYWHERE],
                    default=HERE,
                    optional=True,
                    tooltip="Where auto looks for GPUs. Others are machines on which Hybridiff's join command runs "
                    "(docs/REMOTE.md); a device there is used only where it saves time.",
                ),
                DEVICES.Input(
                    "devices",
                    optional=True,
                    tooltip="Devices that other Hybridiff Devices nodes chose; this node adds one more.",
                ),
                io.Combo.Input(
                    "other_packs",
                    options=list(OTHER_PACKS),
                    default=OTHER_PACKS[0],
                    optional=True,
                    advanced=True,
                    tooltip="Models that nodes of other packs loaded or patched: the device's process runs the same "
                    "nodes, once, to make the same model. off: such a model is sampled on one device.",
                ),
                io.Boolean.Input(
                    "send_files",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="A device of another machine whose ComfyUI has no file like the model's: send the file "
                    "there, once, in the background. It is kept among that machine's models.",
                ),
            ],
            outputs=[DEVICES.Output(display_name="devices")],
        )

    @classmethod
    def validate_inputs(cls, device: str | None) -> bool | str:
        # a workflow from another machine may name a GPU that is not here: the run then says so and does without.
        # None is a link, whose value is not there yet
        return device is None or _is_name(device) or f"device is {shown(device)}; use one of {', '.join(choices())}"

    @classmethod
    def execute(
        cls,
        device: str,
        where: str = HERE,
        devices: Devices | None = None,
        other_packs: str = OTHER_PACKS[0],
        send_files: bool = False,
    ) -> io.NodeOutput:
        if not _is_name(device):
            raise ValueError(f"device is {shown(device)}; use one of {', '.join(choices())}")
        for name, value, known in (("where", where, (HERE, EVERYWHERE)), ("other_packs", other_packs, OTHER_PACKS)):
            if value not in known:  # by a link
                raise ValueError(f"{name} is {shown(value)}; use one of {', '.join(known)}")
        before = Devices(()) if devices is None else checked(devices)
        others = (OTHERS,) if device == "auto" and where == EVERYWHERE else ()
        allowed = before.other_packs and other_packs == OTHER_PACKS[0]
        return io.NodeOutput(
            Devices((*before.names, device, *others), allowed, before.send_files or send_files is True)
        )


def checked(devices: object) -> Devices:
    """The devices that came by a link; the default ones for none. Raises ValueError where it is something else."""
    if devices is None:
        return Devices()
    if isinstance(devices, (list, tuple)) and all(map(_is_name, devices)):
        return Devices(tuple(devices))
    if not isinstance(devices, Devices):
        raise ValueError(f"expected devices, got {shown(devices)}; connect the output of a Hybridiff Devices node")
    return devices


def _is_name(device: object) -> bool:
    # it will stand in a line for users
    return isinstance(device, str) and device.isprintable() and len(device) <= 120
