"""Lines about a run's steps: what the plan came to, and why steps are exact or a pipeline is left out."""

from .line import Group, Line

# what came of the plan

STEPS_PREDICTED = Line(
    "{count} of {steps} steps predicted",
    "Told from the steps before instead of computed, as the plan, or auto's tolerance, allowed.",
    "No fault. For KSampler's own picture choose 'same as KSampler', or the mode exact.",
    Group.NOTHING,
)
STEPS_ON_OLD_RESULTS = Line(
    "{count} of {steps} steps in the mode {mode}",
    "In these, devices worked on each other's results of a step before.",
    "No fault. For KSampler's own picture choose the mode exact.",
    Group.NOTHING,
)
NONE_PREDICTED = Line(
    "0 of {steps} steps predicted: {reason}",
    "Every step of the run was exact, for the reason given.",
    "Nothing: the picture is KSampler's.",
    Group.NOTHING,
)
ERRORS_TOO_LARGE = Line(
    "the best of them would be {times} times as far off as the tolerance of {tolerance} allows",
    "By the errors measured in the run, no step can be told well enough from those before it.",
    "Nothing: the picture is KSampler's. For more speed take more steps, or allow a larger tolerance.",
    Group.NOTHING,
)
ERRORS_NOT_NEAR = Line(
    "the sampler's steps are too far apart to predict one from those before it",
    "Predictions go by errors measured at nearly the same noise level, and there was none so near.",
    "Nothing: the picture is KSampler's. For more speed take more steps.",
    Group.NOTHING,
)
ERRORS_NOT_MEASURED = Line(
    "how far off they would be could not be measured",
    "It is measured in the first steps, and the conditioning changed, or there were too few.",
    "Nothing: the picture is KSampler's.",
    Group.NOTHING,
)
FURTHER_OFF = Line(
    "predicted steps changed the picture by {off}, as measured after them, and the tolerance is {tolerance}; "
    "from step {step} on every step is computed",
    "Errors grew faster than those before had shown, so nothing more was predicted in this run.",
    "If the picture is not close enough, choose 'same as KSampler', the mode exact, or a smaller tolerance.",
    Group.SETTING,
)
NO_SLOPE = Line(
    "with one prompt there is no difference to measure, so the middle begins at warmup_cap",
    "With CFG 1 the network runs once a step. The slope rule needs two prompts.",
    "No fault. To begin elsewhere, set warmup to fixed.",
    Group.NOTHING,
)

# every step is exact

SIGMAS_DO_NOT_FALL = Line(
    "the sigmas do not fall from step to step, so every step is exact",
    "Steps are predicted along a falling noise level; this schedule or sampler goes up again.",
    "Use another scheduler or sampler for more speed. The devices share every step all the same.",
    Group.SETTING,
)
CALLS_IN_TURN = Line(
    "a node computes the image or the prompts part by part, so every step is exact",
    "With tiles, regions and the like, one call does not follow from the one before, so nothing can be predicted.",
    "Nothing: the devices share every step. For more speed leave out the node with the tiles or regions.",
    Group.NOTHING,
)
CONTEXT_WINDOWS = Line(
    "with context windows each call sees another part of the latent, so every step is exact",
    "With context windows, one call does not follow from the one before, so nothing can be predicted.",
    "Nothing: the devices share every step.",
    Group.NOTHING,
)
RESAMPLED = Line(
    "a node changed the sampler or the sigmas after Hybridiff, so every step is exact",
    "What can be predicted depends on the sampler and its sigmas, and they are not those that were given.",
    "Give the sampler node the sigmas that it is to use, or leave out the node that changes them.",
    Group.ORDER,
)
TWO_MODELS = Line(
    "a guider mixes the results of two models, so every step is exact",
    "The guider puts two models' results together; only one of them is Hybridiff's.",
    "Nothing: one device computes the second model while the others compute the first.",
    Group.NOTHING,
)
SECOND_MODEL_STAYS = Line(
    "the guider's second model is computed here: {reason}",
    "A guider of two models asks each of them for one prompt. A worker can hold the second one.",
    "The reason tells. Load the second model with one of ComfyUI's own loaders.",
    Group.ORDER,
)

# no pipeline

PIPELINE_LEFT_OUT = Line(
    "{reason}; the pipeline was left out",
    "The plan asks for a pipeline, which this run cannot have. The devices share exact steps instead.",
    "Choose the mode auto or predict, or do what the reason says.",
    Group.SETTING,
)
PART_STAYS_HERE = Line(
    "a part of the conditioning cannot be sent to another device",
    "GLIGEN boxes, hooks or another pack's ControlNet have code that a second process does not have.",
    "Choose the mode auto or predict.",
    Group.SETTING,
)
CONTROLNET_NEEDS_ALL = Line(
    "a ControlNet needs the whole input, and in a pipeline a device has a part of the network only",
    "A pipeline cannot compute a ControlNet.",
    "Choose the mode auto, predict or exact with a ControlNet.",
    Group.SETTING,
)
PAPER_NEEDS_TWO = Line(
    "the mode paper is for two devices, one prompt and one negative prompt; this run has {devices} devices "
    "and {conds} prompts",
    "The published method has two devices, one for each prompt.",
    "Choose two devices and CFG above 1, or the mode pipeline.",
    Group.SETTING,
)
NO_INNER_DEVICE = Line(
    "{devices} devices for {branches} prompts leave none for the inner part of the network",
    "In a pipeline a device beside each prompt's own computes an inner part.",
    "Add a Hybridiff Devices node, or choose the mode auto.",
    Group.SETTING,
)
CANNOT_BE_CUT = Line(
    "the network cannot be divided: {reason}",
    "A pipeline divides the network between devices, and this one has no place where that is possible.",
    "Choose the mode auto or predict for this model.",
    Group.SETTING,
)
TOO_FEW_BLOCKS = Line(
    "the network's {blocks} blocks are too few for {devices} devices",
    "Each device of a pipeline needs at least one block.",
    "Choose fewer devices, or the mode auto.",
    Group.SETTING,
)
NO_BLOCKS = Line(
    "its blocks cannot be reached from outside",
    "The network does not call ComfyUI's hooks at each block, or has no blocks.",
    "Choose the mode auto or predict for this model.",
    Group.SETTING,
)
HALVES_DIFFER = Line(
    "its halves are not alike",
    "A U-Net is cut so that each connection across it stays on one device; this one has unequal halves.",
    "Choose the mode auto or predict for this model.",
    Group.SETTING,
)
OLD_COMFYUI_HIDES_BLOCKS = Line(
    "this ComfyUI does not show all of a U-Net's blocks; 0.20 and newer ones do",
    "Older versions call no hook at some of a U-Net's blocks.",
    "Update ComfyUI.",
    Group.INSTALL,
)
LATER_BLOCKS_READ_EARLIER = Line(
    "its later blocks need more of the earlier ones than their result",
    "What goes between the blocks is more than the image and the text.",
    "Choose the mode auto or predict for this model.",
    Group.SETTING,
)
BLOCKS_PASS_MORE = Line(
    "its blocks pass on something else than tensors",
    "Only tensors are sent between devices.",
    "Choose the mode auto or predict for this model.",
    Group.SETTING,
)
UNKNOWN_BLOCKS = Line(
    "it has blocks of an unknown kind ({kinds})",
    "Where this U-Net can be cut is not known.",
    "Choose the mode auto or predict for this model.",
    Group.SETTING,
)
NEVER_RUN_WHOLE = Line(
    "the network's {kind} never ran whole, so what it changes is not known",
    "A pipeline begins after some exact steps, and there were none.",
    "Report it, with the workflow.",
    Group.FAULT,
)
UNEVEN_LATENT = Line(
    "the latent's sides are not multiples of {factor}",
    "The U-Net then resizes in a way that cannot be divided.",
    "Choose a width and a height that are multiples of 64.",
    Group.SETTING,
)

# the summary in the log

SUMMARY_ALONE = Line(
    "one device, {calls} model calls{kinds}",
    "The end of a run in the log: no other device helped. Another line says why.",
    "See the other line.",
    Group.NOTHING,
)
SUMMARY_SHARED = Line(
    "{shared} of {calls} model calls{kinds} shared by {devices}: {own_ms:.0f} ms computing here, "
    "{wait_ms:.1f} ms waiting, {kib:.0f} KiB a call",
    "The end of a run in the log.",
    "No fault. Long waiting means that another device is slower.",
    Group.NOTHING,
)
ITEMS_MISSING = Line(
    "of images {first} to {end} of a batch of {batch}, prompt {branch} was not computed exactly once; this is "
    "a fault in Hybridiff",
    "The run stopped, for its picture would be wrong.",
    "Report it, with the workflow.",
    Group.FAULT,
)
BRANCHES_MISSING = Line(
    "prompts {found} were computed, not all that were asked for; this is a fault in Hybridiff",
    "The run stopped, for its picture would be wrong.",
    "Report it, with the workflow.",
    Group.FAULT,
)
