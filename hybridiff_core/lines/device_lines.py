"""Lines about devices: which there are, and which help."""

from .line import Group, Line

NO_SECOND_GPU = Line(
    "no second GPU was found on this machine; a Hybridiff Devices node can choose one",
    "The machine has one GPU or none, or the driver does not show the others.",
    "Nothing, with one GPU: auto still predicts steps. Otherwise see whether nvidia-smi lists the other one.",
    Group.SETTING,
)
GPU_CANNOT_BE_OPENED = Line(
    "the GPU {name} cannot be opened ({error}), so it is left out",
    "The driver lists it but does not answer for it: it was lost, or this user may not use it.",
    "See what nvidia-smi says of it; often the machine must be restarted.",
    Group.MEMORY,
)
DEVICE_NOT_HERE = Line(
    "the device {name} is not on this machine (here are: {here})",
    "The workflow names a GPU of another machine, or one that was taken out.",
    "Choose another in the Hybridiff Devices node.",
    Group.SETTING,
)
NO_DEVICE_CHOSEN = Line(
    "no device was chosen to help",
    "The list of devices is empty.",
    "Connect a Hybridiff Devices node, or none for all other GPUs.",
    Group.SETTING,
)
DEVICE_BUSY = Line(
    "the worker on {device} is busy with another sampling",
    "Two samplers run at once, and a worker serves one of them.",
    "Nothing: this run did without that device.",
    Group.NOTHING,
)
PRECISIONS_DIFFER = Line(
    "{device} computes in {its}, this process in {own}: the picture can differ slightly from one device's",
    "The two devices support different number formats.",
    "Choose a dtype in the loader that both have, or start ComfyUI with a flag such as --fp16-unet.",
    Group.SETTING,
)
ROUNDS_OTHERWISE = Line(
    "{device} has no part: a LoRA lies on 8-bit or 4-bit weights, and one of the two devices has dynamic VRAM and the "
    "other not, so they would round these weights differently",
    "ComfyUI rounds such weights by chance, with a seed that differs between its two ways of loading a model.",
    "Start ComfyUI with --disable-dynamic-vram, or load the model in another dtype.",
    Group.SETTING,
)
SET_ASIDE = Line(
    "the worker on {device} failed to start {times} times in a row, so this device is set aside until ComfyUI is "
    "restarted or the Hybridiff Devices node is changed",
    "The lines of the runs before say why it failed.",
    "Do what those lines say, then restart ComfyUI or change the Hybridiff Devices node.",
    Group.MEMORY,
)
PART_DONE_HERE = Line(
    "{reason}; this process does its part",
    "A worker did not start or could not load the model, so this process computes alone.",
    "Do what the reason says. The next run tries again.",
    Group.MEMORY,
)
PART_DONE_NEXT = Line(
    "{reason}; the next device does its part",
    "A worker did not start or could not load the model; another device helps in its place.",
    "Do what the reason says. The next run tries again.",
    Group.MEMORY,
)
PART_WAS_DONE_HERE = Line(
    "{reason}; this process did its part",
    "A worker could not be given the prompts of this run.",
    "Do what the reason says.",
    Group.SETTING,
)
