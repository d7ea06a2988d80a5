"""Lines about the model: why another process cannot make the same one."""

from .line import Group, Line

# how it was loaded

PATCHER_OF_A_PACK = Line(
    "another pack's code is around the model ({name})",
    "GGUF and other loaders bring a model patcher of their own.",
    "Use ComfyUI's own loaders, with safetensors.",
    Group.INSTALL,
)
LOADED_AS_A_CLASS_OF_A_PACK = Line(
    "the model comes from a loader that is not known here, and it is of another pack's class",
    "The second process has ComfyUI's classes only.",
    "Use ComfyUI's own loaders.",
    Group.INSTALL,
)
LOADED_IN_A_SPECIAL_FORM = Line(
    "the model comes from a loader that is not known here, and its weights have a special form (GGUF and the like)",
    "Such weights can be neither read nor sent.",
    "Use ComfyUI's own loaders, with safetensors.",
    Group.INSTALL,
)
LOADED_WITH_CODE = Line(
    "the model comes from a loader that is not known here, and it has code of another pack in it",
    "The loader brings operations or parts of a network of its own.",
    "Use ComfyUI's own loaders.",
    Group.INSTALL,
)
LOADED_WITH_MORE_WEIGHTS = Line(
    "the model comes from a loader that is not known here, and it has weights beside the network's",
    "From the network's weights alone the same model cannot be made.",
    "Use ComfyUI's own loaders.",
    Group.INSTALL,
)
LOADED_KIND_UNCLEAR = Line(
    "the model comes from a loader that is not known here, and its weights do not tell its kind",
    "From the weights alone another model would be made.",
    "Use ComfyUI's own loaders.",
    Group.INSTALL,
)

# its file

FILE_OUTSIDE_FOLDERS = Line(
    "the model's file {file} is outside ComfyUI's model folders; "
    "move it there, or name its folder in extra_model_paths.yaml",
    "A worker reads models only from there.",
    "Move the file, or name its folder.",
    Group.INSTALL,
)
FILE_CHANGED = Line(
    "the model's file {file} was changed after it was loaded; load it again",
    "A worker would read other weights than ComfyUI holds.",
    "Empty ComfyUI's cache (Unload Models and Execution Cache) or restart it, so that the loader runs again.",
    Group.INSTALL,
)
WORKER_FILE_OUTSIDE = Line(
    "the model file {path} is outside ComfyUI's model folders",
    "A worker reads models only from there.",
    "Move the file, or name its folder in extra_model_paths.yaml.",
    Group.INSTALL,
)
WORKER_FILE_GONE = Line(
    "the model file {path} is not there for the worker",
    "The file was moved or deleted after ComfyUI loaded it.",
    "Put it back, or choose another in the loader.",
    Group.INSTALL,
)
WEIGHTS_MAKE_NO_MODEL = Line(
    "no model can be made from the weights: {kind}",
    "ComfyUI's own loader does not take them in the second process.",
    "Use ComfyUI's own loader for this model.",
    Group.INSTALL,
)
WEIGHTS_MAKE_ANOTHER_MODEL = Line(
    "the model made from the weights is of another kind than ComfyUI's",
    "The second process made another kind of network of the same weights.",
    "Use ComfyUI's own loader for this model.",
    Group.INSTALL,
)

# what was laid over it

WEIGHT_CHANGE_HAS_CODE = Line(
    "the weight change on {key} has code in it (a model merge, for example)",
    "Merged models are made by code that is not sent.",
    "Save the merged model (ModelSave) and load the file.",
    Group.SETTING,
)
UNKNOWN_SAMPLING = Line(
    "the model's sampling is of a class that is not known here ({name})",
    "A node with a noise schedule of its own.",
    "Use one of ComfyUI's ModelSampling nodes.",
    Group.SETTING,
)

# things that cannot be sent

OBJECT_CANNOT_CROSS = Line(
    "{where} is an object ({kind}) that cannot be sent to a second process",
    "Only numbers, text and tensors are sent, and no code.",
    "Leave out the node that put it there.",
    Group.ORDER,
)
CODE_CANNOT_CROSS = Line(
    "a node put code of its own into {where}, and it is not in the second process",
    "Only numbers, text and tensors are sent, and no code.",
    "Leave out that node.",
    Group.ORDER,
)
TENSOR_CANNOT_CROSS = Line(
    "{where} is a tensor of the special kind {kind}",
    "Quantized, sparse and meta tensors are not sent.",
    "Use the model as plain safetensors, or leave out the node that made the tensor.",
    Group.INSTALL,
)
DTYPE_CANNOT_CROSS = Line(
    "{where} has the dtype {dtype}",
    "Tensors of this type are not sent.",
    "Leave out the node that made it.",
    Group.ORDER,
)
TOO_LARGE_TO_SEND = Line(
    "a message of {size} bytes is over the limit of {limit}",
    "The prompts or options are too large to be sent.",
    "Use fewer or shorter prompts.",
    Group.SETTING,
)
