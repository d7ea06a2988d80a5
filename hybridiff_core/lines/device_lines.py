"""Lines about devices: which there are, and which help."""

from .line import Group, Line

NO_SECOND_GPU = Line(
    "no second GPU was found on this machine",
    "The machine has one GPU or none, or the driver does not show the others.",
    "Nothing, with one GPU. Otherwise see whether nvidia-smi lists the other one, and "
    "whether HIP_VISIBLE_DEVICES or ZE_AFFINITY_MASK hides it. `python -m hybridiff_core devices` says what it finds.",
    Group.SETTING,
)
AUTO_ON_CPU = Line(
    "this process computes on the CPU, so auto takes no GPU; a Hybridiff Devices node can choose one",
    "ComfyUI was started with --cpu. The two would round differently, and the GPU may be meant for something else.",
    "Choose a GPU in the Hybridiff Devices node, or start ComfyUI without --cpu.",
    Group.SETTING,
)
OWN_GPU_UNKNOWN = Line(
    "auto takes no GPU, for it cannot tell which of them is ComfyUI's own ({device}); a Hybridiff Devices "
    "node can choose one",
    "An old PyTorch, a GPU divided by MIG, or ONEAPI_DEVICE_SELECTOR: the helper could be ComfyUI's own GPU.",
    "Choose the other GPU in the Hybridiff Devices node, or install nvidia-ml-py and a newer PyTorch.",
    Group.SETTING,
)
NOT_BY_AUTO = Line(
    "auto leaves out {device}: {reason}; a Hybridiff Devices node can choose it all the same",
    "auto takes only GPUs that nobody else seems to need, and that can help with a model of ComfyUI's own GPU.",
    "Choose it in the Hybridiff Devices node if it should help.",
    Group.SETTING,
)
GPU_IS_DIVIDED = Line(
    "it is divided into several by the driver (MIG)",
    "To CUDA each instance is a GPU, and one of them may be ComfyUI's own.",
    "Choose it in the Hybridiff Devices node: a worker gets its first instance.",
    Group.SETTING,
)
GPU_IS_HIDDEN = Line(
    "it is hidden from ComfyUI",
    "ComfyUI was started with --cuda-device or CUDA_VISIBLE_DEVICES, perhaps because another program has that GPU.",
    "Choose it in the Hybridiff Devices node, or start ComfyUI without them.",
    Group.SETTING,
)
GPU_IS_TOO_OLD = Line(
    "this PyTorch was not built for it ({what})",
    "PyTorch has no code for GPUs of this age.",
    "Install a PyTorch that supports it, or use another GPU.",
    Group.INSTALL,
)
GPU_IS_INTEGRATED = Line(
    "it is the processor's own graphics",
    "Integrated graphics are many times slower than a card, and use the processor's memory.",
    "Nothing.",
    Group.NOTHING,
)
GPU_IS_SMALL = Line(
    "it has {has} GB of memory, ComfyUI's own has {own}",
    "A model for ComfyUI's own GPU would hardly fit.",
    "Choose it in the Hybridiff Devices node if the model is small.",
    Group.SETTING,
)
GPU_IS_USED = Line(
    "other programs hold {size} GB of its memory",
    "A language model, a game or another ComfyUI is on it.",
    "Close that program, or choose the GPU in the Hybridiff Devices node.",
    Group.MEMORY,
)
GPU_COMPUTES = Line(
    "another program keeps it busy ({percent} %)",
    "A game, a renderer or another program computes on it.",
    "Close that program, or choose the GPU in the Hybridiff Devices node.",
    Group.MEMORY,
)
ANOTHER_GPU = Line(
    "its process got another GPU than the one it was meant to have",
    "The driver, or a variable of the environment, numbers the GPUs in another way than this process was shown.",
    "Unset variables such as CUDA_VISIBLE_DEVICES, and report it with what `python -m hybridiff_core devices` prints.",
    Group.FAULT,
)
OWN_GPU_CHOSEN = Line(
    "{device} is ComfyUI's own GPU: a worker there loads the model a second time, and is no faster",
    "The Hybridiff Devices node names the GPU on which ComfyUI itself computes.",
    "Choose another GPU, or auto.",
    Group.SETTING,
)
CHOSEN_TWICE = Line(
    "{device} is chosen {count} times: each of its workers loads the model",
    "Several Hybridiff Devices nodes name the same GPU.",
    "Remove all but one of them.",
    Group.SETTING,
)
AUTO_TWICE = Line(
    "auto is chosen {count} times; each GPU has one worker all the same",
    "Several Hybridiff Devices nodes are set to auto, and one is enough for all GPUs.",
    "Remove all but one of them.",
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
    "Connect a Hybridiff Devices node. With none connected, all other GPUs that are free and fit help.",
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
    "{device} is left out: a LoRA lies on 8-bit or 4-bit weights, and one of the two devices has dynamic VRAM "
    "and the other not, so they would round these weights differently",
    "ComfyUI rounds such weights by chance, with a seed that differs between its two ways of loading a model.",
    "Start ComfyUI with --disable-dynamic-vram, or load the model in another dtype.",
    Group.SETTING,
)
SET_ASIDE = Line(
    "the worker on {device} failed in {times} runs in a row, so this device is set aside until ComfyUI is restarted "
    "or other devices are chosen",
    "It did not start, or could not compute: the lines of the runs before say why.",
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
