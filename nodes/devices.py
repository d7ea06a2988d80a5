"""The devices node: which devices help."""

from __future__ import annotations

from comfy_api.latest import io

from ..hybridiff_core.plan import shown
from ..hybridiff_core.workers.devices import OTHERS, choices
from .plan import CATEGORY

DEVICES = io.Custom("HYBRIDIFF_DEVICES")
AUTO = ("auto",)
HERE, EVERYWHERE = "this machine", "this machine and others"


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
            ],
            outputs=[DEVICES.Output(display_name="devices")],
        )

    @classmethod
    def validate_inputs(cls, device: str | None) -> bool | str:
        # a workflow from another machine may name a GPU that is not here: the run then says so and does without.
        # None is a link, whose value is not there yet
        return device is None or _is_name(device) or f"device is {shown(device)}; use one of {', '.join(choices())}"

    @classmethod
    def execute(cls, device: str, where: str = HERE, devices: list[str] | None = None) -> io.NodeOutput:
        if not _is_name(device):
            raise ValueError(f"device is {shown(device)}; use one of {', '.join(choices())}")
        others = [OTHERS] if device == "auto" and where == EVERYWHERE else []
        return io.NodeOutput([*checked([] if devices is None else devices), device, *others])


def checked(devices: object) -> tuple[str, ...]:
    """The devices that came by a link. Raises ValueError where it is something else."""
    if not isinstance(devices, (list, tuple)) or not all(map(_is_name, devices)):
        raise ValueError(f"expected devices, got {shown(devices)}; connect the output of a Hybridiff Devices node")
    return tuple(devices)


def _is_name(device: object) -> bool:
    # it will stand in a line for users
    return isinstance(device, str) and device.isprintable() and len(device) <= 120
