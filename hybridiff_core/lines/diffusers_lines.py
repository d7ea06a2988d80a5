"""Lines about diffusers pipelines."""

from .line import Group, Line

UNKNOWN_PIPELINE = Line(
    "the pipeline is a {kind}; {known} can be accelerated",
    "accelerate() does not know how this pipeline denoises.",
    "Use one of the pipelines named.",
    Group.SETTING,
)
UNKNOWN_NETWORK = Line(
    "the network is a {kind}; use one of {known}, not compiled",
    "A worker could not make the same network.",
    "Load the pipeline with its own network, and leave out torch.compile().",
    Group.SETTING,
)
NETWORK_COMPILED = Line(
    "the network is compiled, so its calls cannot be shared; leave out its compile()",
    "Compiled calls do not come by Hybridiff.",
    "Leave out compile().",
    Group.SETTING,
)
AUTOCAST = Line(
    "the pipeline runs under autocast",
    "A worker would compute in another number format.",
    "Load the pipeline with torch_dtype in the place of autocast.",
    Group.SETTING,
)
TIMESTEPS_DO_NOT_FALL = Line(
    "the timesteps do not fall, so every step is exact",
    "Steps are predicted along a falling noise level; these timesteps go up again.",
    "Use the scheduler's own timesteps for more speed. The devices share every step all the same.",
    Group.SETTING,
)
NETWORK_EXCHANGED = Line(
    "ran without Hybridiff: the pipeline's network is another one now; accelerate it again",
    "The pipeline was given another network after accelerate().",
    "Call accelerate() again.",
    Group.ORDER,
)
UNKNOWN_ATTENTION = Line(
    "the network's attention is computed by {name}",
    "An attention processor of another library, such as IP-Adapter's: its code is not in the second process.",
    "Use the network's own attention processors.",
    Group.SETTING,
)
LORA_BESIDE_WEIGHTS = Line(
    "a LoRA lies beside the network's weights; pipe.fuse_lora() and then pipe.unload_lora_weights() "
    "make it a part of them",
    "PEFT puts its own code into the network.",
    "Call the two.",
    Group.ORDER,
)
MODULE_HAS_CODE = Line(
    "{name} was given code of its own (a hook, offloading, a cache)",
    "The code is not in the second process.",
    "Leave out sequential offloading, caches and hooks on the network.",
    Group.SETTING,
)
FREEU = Line(
    "FreeU changes the network's skip connections",
    "Its settings lie in the network and are not sent.",
    "Call pipe.disable_freeu().",
    Group.SETTING,
)
QUANTIZED = Line(
    "{name} is quantized, or not in memory (sequential offloading)",
    "Only plain tensors are sent.",
    "Load the network without quantization and sequential offloading.",
    Group.SETTING,
)
INFERENCE_TENSOR = Line(
    "{name} was made in inference mode, where changes to it cannot be noticed",
    "Whether a worker's copy is still right could not be told.",
    "Load the pipeline outside torch.inference_mode().",
    Group.ORDER,
)
NETWORK_NOT_KNOWN = Line(
    "{kind} is not one of {known}",
    "A worker was asked for a network that it does not make.",
    "Report it.",
    Group.FAULT,
)
WEIGHT_MISSING = Line(
    "{name} is not among the network's weights",
    "A worker was sent a network without all of its weights.",
    "Report it.",
    Group.FAULT,
)
NOT_WITH_DIFFUSERS = Line(
    "with diffusers, only the prompts of a step are shared",
    "Batches and tokens are divided in ComfyUI only.",
    "Nothing: the picture is right.",
    Group.NOTHING,
)
