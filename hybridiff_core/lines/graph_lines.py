"""Lines about the graph: why a run is not shared, by what its nodes do and its prompts bring."""

from .line import Group, Line

RAN_ON_ONE_DEVICE = Line(
    "ran on one device: {reason}",
    "The picture is right, and no other device helped.",
    "The reason is one of this list.",
    Group.SETTING,
)

# one branch

CFG_1 = Line(
    "at CFG 1 only one prompt is computed",
    "Above CFG 1 each step computes the prompt and the negative prompt, which two devices share. At CFG 1 "
    "there is one, shared by the images of a batch, or, in a transformer, by parts of the image; a U-Net with "
    "one image is not shared. 'close to it, faster' (auto, predict) still predicts some steps.",
    "Nothing, for a model that is made for CFG 1. With a U-Net, make several images at once (batch_size), or "
    "raise the CFG.",
    Group.SETTING,
)
ONE_PROMPT = Line(
    "there is only one prompt to compute, so there is nothing to share",
    "The network runs once a step: there is no negative prompt, or it is empty of conditioning.",
    "Connect a negative prompt; an empty text will do. Nothing, for a model that has none.",
    Group.SETTING,
)
ONE_PROMPT_AT_A_TIME = Line(
    "where only one prompt is active, there is nothing to share",
    "The prompts are limited to parts of the run (ConditioningSetTimestepRange) that hardly overlap.",
    "Let the negative prompt be active where the prompt is.",
    Group.SETTING,
)
BRANCHES_ONE_BY_ONE = Line(
    "a node asks for one prompt at a time, so there is nothing to share",
    "A guidance node (skip-layer guidance in its simple form, for example) asks for the prompts one after the other.",
    "Leave that node out, or use another that asks for both at once.",
    Group.ORDER,
)

# the order of the nodes, and code of other nodes

NOT_ASKED = Line(
    "a node computes the prompts in code of its own, so there is nothing to share",
    "It does not ask ComfyUI for them, so Hybridiff is not asked either.",
    "Leave that node out.",
    Group.ORDER,
)
WRAPPED_AFTER = Line(
    "a node after Hybridiff puts its code around the prompts' computation; put Hybridiff last on the model",
    "The node comes later on the model, or adds its code during the run.",
    "Put Hybridiff Model last, right before the sampler.",
    Group.ORDER,
)
MULTIGPU_SPLIT = Line(
    "ComfyUI's own MultiGPU CFG Split is on this model, so Hybridiff does nothing",
    "Both divide the prompts between devices.",
    "Remove one of the two nodes.",
    Group.ORDER,
)
NETWORK_WRAPPED = Line(
    "a node puts code of its own around the whole network, which a second process does not have",
    "A model function wrapper, such as an inference optimiser.",
    "Leave that node out.",
    Group.ORDER,
)
NETWORK_PATCHED = Line(
    "a node changes the network from inside ({patches})",
    "Attention patches, IPAdapter, FreeU and the like: their code is not in the second process.",
    "Leave that node out where speed counts more.",
    Group.ORDER,
)
ATTENTION_BY_A_NODE = Line(
    "a node chose this model's attention function, and no code is sent to a second process",
    "Sage attention by a node, Model Attention Backend and the like (optimized_attention_override).",
    "Leave that node out. Attention can be chosen for all processes: start ComfyUI with --use-sage-attention "
    "or the like.",
    Group.ORDER,
)
CODE_IN_NETWORK = Line(
    "a node runs code of its own inside the network ({names})",
    "EasyCache, torch.compile and the like: their code is not in the second process.",
    "Leave that node out where speed counts more.",
    Group.ORDER,
)
STATE_IN_NETWORK = Line(
    "a sampler keeps state inside the network ({name})",
    "An autoregressive sampler: each process would have a state of its own.",
    "Use another sampler.",
    Group.SETTING,
)
MODEL_REPLACED = Line(
    "a node replaced the model's {name}",
    "A node put an object or code of its own into the model, which the second process does not have.",
    "Leave that node out.",
    Group.ORDER,
)
MODEL_CODE_REPLACED = Line(
    "a node replaced the model's {name} by code of its own",
    "The second process has the original.",
    "Leave that node out.",
    Group.ORDER,
)
COMFYUI_REPLACED = Line(
    "a pack replaced ComfyUI's {name}",
    "The pack's own function is in the place of ComfyUI's; a worker has ComfyUI's.",
    "Disable that pack.",
    Group.ORDER,
)
MODEL_INJECTED = Line(
    "{names} changes the model while it runs",
    "An extension puts code into the model for the time of the run.",
    "Leave that node out.",
    Group.ORDER,
)
AN_EXTENSION = Line(
    "an extension",
    "It gives no name.",
    "See the line that it stands in.",
    Group.NOTHING,
)
WEIGHTS_WRAPPED = Line(
    "a node wraps the model's weights in code of its own",
    "A weight hook: its code is not in the second process.",
    "Leave that node out.",
    Group.ORDER,
)

# what is connected

NOT_A_MODEL = Line(
    "expected a diffusion model, got {what}; connect the MODEL output of a model loader",
    "The run cannot begin.",
    "Connect a model.",
    Group.SETTING,
)
LATENT_MISFIT = Line(
    "the latent has {channels} channels, and this model takes {takes}",
    "The latent was made for another kind of model.",
    "Use the empty latent node or the VAE of this model.",
    Group.SETTING,
)
LATENT_MISFIT_STOPS = Line(
    "{reason}; use an empty latent or a VAE made for this model",
    "The run stopped, for the model cannot take the latent.",
    "Use the empty latent node or the VAE of this model.",
    Group.SETTING,
)

# prompts that cannot be sent

NOTHING_CROSSES = Line(
    "every prompt has something that cannot be sent to another device: {what}",
    "These are computed in ComfyUI's own process, so nothing is left to share.",
    "Leave them out, or accept one device.",
    Group.SETTING,
)
GLIGEN = Line(
    "GLIGEN boxes",
    "They bring a model of their own, which the second process does not have.",
    "Leave them out, or accept one device.",
    Group.SETTING,
)
PROMPT_HOOKS = Line(
    "a LoRA or other change on the prompt (hooks)",
    "Hooks change the model within a run, by code that the second process does not have.",
    "Load the LoRA on the model instead, with a LoRA loader.",
    Group.SETTING,
)
DEFAULT_PROMPT = Line(
    "a default prompt",
    "What it covers is known only where all of a branch's prompts are computed together.",
    "Leave the default prompt out, or accept one device.",
    Group.SETTING,
)
CONTROLNET_ON_AREA = Line(
    "a ControlNet on an area",
    "Its hint is cut to the area in ComfyUI's process.",
    "Use a mask in the place of the area.",
    Group.SETTING,
)
CONTROLNET_CHANGED_IN_RUN = Line(
    "a ControlNet that was changed while sampling",
    "A node exchanges it within the run.",
    "Leave that node out.",
    Group.ORDER,
)
CONTROLNET_HOOKS = Line(
    "a ControlNet with hooks",
    "Hooks are code that the second process does not have.",
    "Leave the hooks out.",
    Group.SETTING,
)
CONTROLNET_OF_A_PACK = Line(
    "a ControlNet of another pack ({name})",
    "Its code is not in the second process.",
    "Use ComfyUI's own ControlNet loader and Apply ControlNet.",
    Group.SETTING,
)
CONTROLNET_HAS_CODE = Line(
    "a ControlNet with code of another pack in it",
    "The code is not in the second process.",
    "Use ComfyUI's own ControlNet nodes.",
    Group.SETTING,
)
CONTROLNET_PATCHED = Line(
    "a ControlNet that another pack changed",
    "Its weights or methods are not those that were loaded.",
    "Leave out the node that changes it.",
    Group.ORDER,
)
CONTROLNET_SPECIAL_WEIGHTS = Line(
    "a ControlNet with weights of a special form",
    "Quantized weights and the like are not sent.",
    "Use the ControlNet as plain safetensors.",
    Group.INSTALL,
)
CONTROLNET_PICTURES = Line(
    "a ControlNet with another number of pictures than the latent has",
    "Which picture belongs to which branch then depends on how they are batched.",
    "Give it one picture, or as many as the batch has.",
    Group.SETTING,
)
BATCH_OF_FRAMES = Line(
    "a model whose batch is the frames of one video",
    "Its network mixes the frames with each other.",
    "Nothing: its prompts are shared.",
    Group.NOTHING,
)
BATCH_OF_HALVES = Line(
    "a network that takes the two halves of its batch for pairs",
    "It exchanges the batch's halves, so an image by itself would come out as another one.",
    "Nothing: its prompts are shared.",
    Group.NOTHING,
)
BATCH_IN_WINDOWS = Line(
    "context windows, which may divide the batch themselves",
    "Which part of the latent a call is of, then differs from call to call.",
    "Nothing: the prompts are shared.",
    Group.NOTHING,
)
BATCH_UNCLEAR = Line(
    "the value {name}: which part of it belongs to which image is not known",
    "It may be another one for each image of the batch.",
    "Nothing: the prompts are shared.",
    Group.NOTHING,
)
CONTROLNET_HINT_SIZE = Line(
    "a ControlNet whose hint has another size than the latent",
    "The second process would resize it once more.",
    "Give it a picture of the image's size.",
    Group.SETTING,
)
CONTROLNET_UNKNOWN_FORM = Line(
    "a ControlNet of a kind that a worker cannot make again",
    "From its weights alone the same network could not be made.",
    "Use another file of this ControlNet, or accept one device.",
    Group.INSTALL,
)
