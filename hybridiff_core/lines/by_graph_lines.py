"""Lines about models that a worker makes by the nodes of the graph: why it may not, and how it failed."""

from .line import Group, Line

# why the nodes are not run in a worker

AND_NOT_BY_GRAPH = Line(
    "{reason}; and a worker cannot run the nodes that made the model: {why}",
    "A worker does not have the first by itself, and running the graph's nodes there is no way out for the second.",
    "See the second reason.",
    Group.ORDER,
)
OTHER_PACKS_OFF = Line(
    "Hybridiff Devices has other_packs off, and nodes of {packs} are in it",
    "Their code is then not run in a worker.",
    "Set other_packs to run their nodes in the worker too.",
    Group.SETTING,
)
CHANGED_AFTER_ITS_NODE = Line(
    "the model was changed after its node ran ({what})",
    "A node behind Hybridiff Model, or code that runs while sampling, put something into the model. "
    "Running the graph's nodes again would not give it.",
    "Put Hybridiff Model last, right before the sampler, or leave that node out.",
    Group.ORDER,
)
ADDED_WHILE_SAMPLING = Line(
    "a node's code adds to the model while it samples ({what})",
    "EasyCache, for one, puts a memory of its own into each run. A second process would have another one.",
    "Leave that node out for two devices.",
    Group.ORDER,
)
GRAPH_NOT_PLAIN = Line(
    "{node} was given something other than numbers and text",
    "A node that builds others, a loop for one, gave it an object. Only numbers and text are sent, and no code.",
    "Leave that node out, or accept one device.",
    Group.ORDER,
)
NODE_NOT_KNOWN = Line(
    "it is not known which pack {node} is from",
    "The node's class was put into ComfyUI by other means than a pack's folder.",
    "Leave that node out, or accept one device.",
    Group.ORDER,
)
SAMPLER_BEFORE_MODEL = Line(
    "{node} is among them",
    "The model hangs on the result of another Hybridiff node, which a worker would have to compute once more.",
    "Use KSampler there.",
    Group.ORDER,
)
OUTPUT_NODE_BEFORE_MODEL = Line(
    "{node} is among them, and it saves or shows something",
    "Run once more, it would save a second time.",
    "Take the model from the node before it.",
    Group.ORDER,
)
PAID_NODE_BEFORE_MODEL = Line(
    "{node} is among them, and it calls a paid service",
    "Run once more, it would have to be paid twice.",
    "Save its result, and load it in the place of the node.",
    Group.ORDER,
)
NEVER_THE_SAME = Line(
    "{node} is among them, and it gives another result each time",
    "In a worker it would give another one than in ComfyUI.",
    "Leave that node out, or fix what it chooses.",
    Group.ORDER,
)

# what the code in the model does

KEEPS_FROM_CALL_TO_CALL = Line(
    "{name} keeps something from step to step",
    "A cache between steps, TeaCache for one. On two devices each would keep something else, and the picture would "
    "be another one.",
    "Leave that node out for two devices: which is faster, a second device or the cache, the report's times show.",
    Group.ORDER,
)
DRAWS_RANDOM_NUMBERS = Line(
    "{name} draws random numbers inside the network",
    "HyperTile and token merging, for example. Another device would draw others, and the picture would be another one.",
    "Leave that node out for two devices.",
    Group.ORDER,
)
BRANCHES_TOGETHER = Line(
    "{name} gives something else where each prompt is computed by itself (off by {off:.2%})",
    "It takes a mean over all that ComfyUI computes at once, both prompts of a step. Two devices compute one each, and "
    "the picture would be another one; so it would be where ComfyUI itself has no room for both at once.",
    "Leave that node out for two devices.",
    Group.ORDER,
)
ANOTHER_EACH_TIME = Line(
    "{name} gives something else each time",
    "ComfyUI's own process gets two results for the same input, so no second device can give the same picture.",
    "Leave that node out for two devices.",
    Group.ORDER,
)
RANDOM_FROM_CALL_TO_CALL = Line(
    "{device} is left out: the network gives something else each time",
    "ComfyUI's own process gets two results for the same input, so they cannot be compared with a worker's.",
    "Leave out the node that makes it so.",
    Group.ORDER,
)
NOT_CUT_WITH_CODE = Line(
    "a node has code of its own inside the network, so the network is not divided",
    "Modes that divide the network know only the networks themselves. All steps are exact.",
    "Leave that node out, or use the modes exact, predict or auto.",
    Group.ORDER,
)
BATCH_WITH_CODE = Line(
    "a node's code inside the network",
    "It may look at the whole batch.",
    "Nothing: the prompts are shared.",
    Group.NOTHING,
)

# in the worker

MADE_BY_GRAPH = Line(
    "{device} ran the nodes that made the model, {seconds:.1f} s: {ran}; packs loaded for it: {packs}",
    "A worker made a model by the graph's own nodes. Only what was changed since is run again.",
    "No fault; it stands in the log.",
    Group.NOTHING,
)

PACK_NOT_THERE = Line(
    "the pack {pack} is not in the custom_nodes folders",
    "ComfyUI loaded it from somewhere else, or it was removed.",
    "Restart ComfyUI.",
    Group.INSTALL,
)
PACK_CHANGED = Line(
    "the pack {pack} was changed after ComfyUI was started",
    "ComfyUI has its old code, a worker would have the new one.",
    "Restart ComfyUI.",
    Group.INSTALL,
)
PACK_NOT_ON_MACHINE = Line(
    "{machine} does not have the pack {pack}",
    "A node of it made or patched the model, and its code is not sent.",
    "Install the pack there in the same version, and start `join` there again.",
    Group.INSTALL,
)
PACK_OF_ANOTHER_VERSION = Line(
    "{machine} has another version of the pack {pack}",
    "The Python files of the pack are not the same there, and may compute something else.",
    "Update the pack on both machines, restart ComfyUI, and start `join` there again.",
    Group.INSTALL,
)
PACK_NOT_LOADED = Line(
    "the pack {pack} could not be loaded: {reason}",
    "It can be loaded only once on this machine, or it asks for something that a worker does not have.",
    "Nothing: the picture is right. Tell the pack's authors, or set other_packs to off.",
    Group.INSTALL,
)
PACK_WITHOUT_NODES = Line(
    "it has no nodes",
    "ComfyUI found none in it.",
    "See the line that it stands in.",
    Group.NOTHING,
)
PACK_WITHOUT_CLASS = Line(
    "the pack {pack} has no node {node} there",
    "It has other nodes in a second process, or another pack took the name.",
    "Restart ComfyUI; or set other_packs to off.",
    Group.INSTALL,
)
NODE_TITLE = Line(
    "{kind} (node {id})",
    "A node by its class and number.",
    "See the line that it stands in.",
    Group.NOTHING,
)
NODE_FAILED = Line(
    "{node} failed there: {reason}",
    "The node ran in ComfyUI, and not in the second process.",
    "Nothing: the picture is right. Tell the node's authors, or set other_packs to off.",
    Group.INSTALL,
)
NODE_FAILED_ELSEWHERE = Line(
    "{node} failed on {machine}: {reason}",
    "The node ran in ComfyUI, and not on the other machine. Files that it loads may be missing there.",
    "See that what it loads is there too, under the same name; start `join` there again.",
    Group.INSTALL,
)
SEVERAL_MODELS = Line(
    "the nodes give {count} models",
    "A list of models, sampled one after the other: which one a run is for does not show.",
    "Use one model for each sampler.",
    Group.SETTING,
)
GRAPH_WITHOUT_MODEL = Line(
    "the nodes gave no model there",
    "They were stopped by a switch, or gave something else.",
    "Leave that node out, or accept one device.",
    Group.ORDER,
)
