"""Lines about workers: how one was lost, and what became of the run."""

from .line import Group, Line

WORKER_OUT = Line(
    "the worker on {device} is out: {reason}",
    "The worker failed. The next run starts a new one; after two runs in a row the device is set aside.",
    "Do what the reason says.",
    Group.MEMORY,
)
GROUP_OUT = Line(
    "the devices that work together with {device} are out: {reason}",
    "A device of a pipeline failed.",
    "Do what the reason says. The next run starts a new worker.",
    Group.MEMORY,
)
TOOK_OVER = Line(
    "{reason}; this process took over and finished the picture",
    "A worker failed in the run; the picture is right.",
    "Do what the reason says. The next run starts a new worker.",
    Group.MEMORY,
)
REST_IN_WHOLE_STEPS = Line(
    "{reason}; the rest was computed in whole steps",
    "A device of a pipeline failed; the others went on without the pipeline.",
    "Do what the reason says. The next run starts a new worker.",
    Group.MEMORY,
)

# a worker beside this process

JOINED = Line(
    "{device} joined at step {step} of {steps}, when it was ready",
    "A run does not wait for a worker that is being started, or is given its model.",
    "Nothing: in the next run it helps from the first step on.",
    Group.NOTHING,
)
NOT_READY = Line(
    "{device} was not ready before the run's end",
    "A run does not wait for a worker that is being started, or is given its model. This one was over before.",
    "Nothing: the next run has it.",
    Group.NOTHING,
)
DEVICE_SLOWER = Line(
    "{device} takes {times:.1f} times as long as the fastest device, and gets less work for that",
    "The devices are unlike, or another program uses one of them.",
    "Nothing, or close what else runs on that device.",
    Group.NOTHING,
)
SHARED_BY_ROWS = Line(
    "{devices} devices, by images of the batch: about {times:.1f}x as fast as one (estimated)",
    "Each device computed some of the batch's images. By steps alone and together, in this run or one before.",
    "No fault.",
    Group.NOTHING,
)
SHARED_BY_TOKENS = Line(
    "{devices} devices, by parts of the image: about {times:.1f}x as fast as one (estimated)",
    "Each device computed a part of the image's tokens. By steps alone and together, in this run or one before.",
    "No fault.",
    Group.NOTHING,
)
SHARED_BY_ROWS_AND_TOKENS = Line(
    "{devices} devices, by images of the batch and parts of them: about {times:.1f}x as fast as one (estimated)",
    "Each device computed as many of the batch's images, and a part of those left over. By steps alone and together, "
    "in this run or one before.",
    "No fault.",
    Group.NOTHING,
)
DIVIDING_IS_SLOWER = Line(
    "dividing a step among the devices takes {times:.1f} times as long here (measured)",
    "The picture is small, or the way between the devices slow: what they must tell each other takes longer than what "
    "it saves. It was measured.",
    "Nothing: the picture is right, and it was made the faster way.",
    Group.NOTHING,
)
DIVIDING_WOULD_BE_SLOWER = Line(
    "dividing the image would take {times:.1f} times as long here (estimated)",
    "The picture is small, so what devices must tell each other takes longer than what it saves.",
    "Nothing: it was made the faster way.",
    Group.NOTHING,
)
AND_UNDIVIDED = Line(
    "{reason}; {why}",
    "There is one prompt a step, and its image was not divided among devices.",
    "See the two reasons.",
    Group.NOTHING,
)
ONE_IMAGE = Line(
    "the batch has one image",
    "There are no others that another device could compute.",
    "No fault.",
    Group.NOTHING,
)
NOT_BY_TOKENS = Line(
    "the image is not divided in this run: {reason}",
    "A divided forward broke off, and no device was lost by it.",
    "Nothing: the picture is right.",
    Group.NOTHING,
)
TOKENS_NOT_NUMBERS = Line(
    "{device} is left out: its part of the result had values that are not numbers, and this process's own had none",
    "The device computes wrongly, or in a format that is too narrow for this model.",
    "Nothing: the picture is right. If it happens again, start ComfyUI with another --fp... setting, or check the "
    "device.",
    Group.FAULT,
)
ROWS_DIFFER = Line(
    "the images of the batch are not shared: by itself one came out differently (off by {off:.2%})",
    "Its images are not independent in this model, or a node's conditioning is for the whole batch. The first such "
    "step is compared with the whole one.",
    "Nothing: the picture is right.",
    Group.NOTHING,
)
PROMPTS_DIFFER = Line(
    "the prompts of a step are not shared: by itself one came out differently (off by {off:.2%})",
    "The model makes something of both prompts together, or rounds so coarsely, as int8 does, that the order of sums "
    "shows. The first such step is compared with the whole one.",
    "Nothing: the picture is right. Mode auto shares them where the difference is within its tolerance.",
    Group.NOTHING,
)
TOKENS_DIFFER = Line(
    "the image is not divided: that made another picture (off by {off:.2%})",
    "The model does something with the image's tokens that is not known here. The first such step is compared with the "
    "whole one.",
    "Report it, with the workflow. The picture is right.",
    Group.FAULT,
)
TOO_SLOW = Line(
    "{device} is left out: it takes {times:.1f} times as long as this process, which is faster alone",
    "A prompt cannot be divided between two devices, and this one would only be waited for.",
    "Nothing, or close what else runs on that device. Some runs later it is measured again.",
    Group.NOTHING,
)
SHARING_LOST_TIME = Line(
    "{device} is left out: a step took {shared:.0f} ms with it and {alone:.0f} ms without",
    "The devices share memory or a processor, or the way to that one is slow.",
    "Nothing, or close what else runs on that device. Some runs later it is measured again.",
    Group.NOTHING,
)
STILL_TOO_SLOW = Line(
    "{device} is left out: it was {times:.1f} times as slow in a run before",
    "What was measured then holds for some runs; the device is not even loaded.",
    "Nothing: it is measured again some runs later. Restart ComfyUI to have it measured at once.",
    Group.NOTHING,
)
ANOTHER_PICTURE = Line(
    "{device} is left out: it made another picture (off by {off:.2%})",
    "Each device's first results are compared with those of ComfyUI's process. This one computes with another network: "
    "a node changed the model in a way that a worker does not see, or the device computes wrongly.",
    "Nothing: the picture is right. To use the device, leave out the node that changes the model.",
    Group.ORDER,
)

# how a worker ended

KILLED = Line(
    "it was killed by signal {signal}",
    "Signal 9 on Linux is most often the system, because RAM ran out. A worker holds the model a second time.",
    "Close other programs, or use a smaller model or dtype.",
    Group.MEMORY,
)
ENDED = Line(
    "it ended with status {status}",
    "The worker's process came to an end of its own.",
    "Read the last line it logged, which follows; start ComfyUI with --verbose DEBUG for all it logged.",
    Group.FAULT,
)
LAST_WORDS = Line(
    "{how}: {said}",
    "The last line that the worker logged.",
    "Search for it; most often it is the driver's or PyTorch's.",
    Group.FAULT,
)
OUT_OF_MEMORY = Line(
    "its device has too little free memory",
    "A worker holds the model a second time, on its own device.",
    "Close other programs on that GPU, use a smaller model or dtype, or start ComfyUI with --lowvram.",
    Group.MEMORY,
)
WORKER_ERROR = Line(
    "{kind}: {words}",
    "An error in the worker that has no line of its own.",
    "Search for it. If it is none of PyTorch's errors, report it.",
    Group.FAULT,
)
STARTED_IN_PART = Line(
    "the worker could not run ComfyUI's own start-up ({reason}); it computes without dynamic VRAM",
    "A worker is started as ComfyUI is, without its server. This ComfyUI is packaged in another way, or a module that "
    "it needs failed in the worker.",
    "If the reason names a missing package, install it for ComfyUI's Python; otherwise report it.",
    Group.INSTALL,
)
COMPUTATION_FAILED = Line(
    "its computation failed",
    "The worker could not say why in time.",
    "Report it, with ComfyUI's log (--verbose DEBUG).",
    Group.FAULT,
)
NOT_NUMBERS = Line(
    "its result has values that are not numbers",
    "The worker's result has NaN or infinity where its input had none: a number format that is too small, or a fault "
    "of the device.",
    "Choose another dtype in the loader (bf16 or fp32 in the place of fp16).",
    Group.SETTING,
)
STUCK = Line(
    "it has not moved for {seconds:.0f} s",
    "The worker's process neither computes nor reads: a driver that hangs, or a stopped process.",
    "If it happens again, restart ComfyUI and look at the GPU's driver.",
    Group.MEMORY,
)
CLOSED = Line(
    "it was closed",
    "The worker was ended here, at ComfyUI's end or after ten idle minutes.",
    "Nothing: the next run starts a new one.",
    Group.NOTHING,
)

# memory, asked before a start

LOADED_IN_PART = Line(
    "{device} has {free} GB of its memory free, this model needs {needs}: it is loaded in part, and slower for that",
    "What does not fit is read from RAM in every step.",
    "Close other programs on that GPU, or use a smaller model or dtype.",
    Group.MEMORY,
)
TOO_LITTLE_ON_DEVICE = Line(
    "{device} is left out: {free} GB of its memory are free, this model needs {needs}",
    "What is left is not enough to compute at all, or the model (of a diffusers pipeline) cannot be loaded in part.",
    "Close other programs on that GPU, or use a smaller model or dtype.",
    Group.MEMORY,
)
TOO_LITTLE_RAM = Line(
    "{device} is left out: {free} GB of RAM are free, its worker needs {needs}",
    "A worker holds the model a second time. With more than there is, the system would end it, or ComfyUI.",
    "Close other programs, or use a smaller model or dtype.",
    Group.MEMORY,
)

# too late

TOO_LATE = Line(
    "{what} within {seconds:.0f} s",
    "The worker was too slow: memory that is swapped to disk, a slow disk, or a device that others use.",
    "Free memory, and close other programs on that device.",
    Group.MEMORY,
)
DID_NOT_START = Line(
    "it did not start",
    "Starting a worker imports PyTorch and ComfyUI once more.",
    "See the rest of the line.",
    Group.MEMORY,
)
DID_NOT_CONNECT = Line(
    "it did not connect",
    "The worker started and did not take up its connection.",
    "See the rest of the line.",
    Group.MEMORY,
)
DID_NOT_CONNECT_TO_ANOTHER = Line(
    "it did not connect to another worker",
    "In a pipeline workers send each other results.",
    "See the rest of the line.",
    Group.MEMORY,
)
DID_NOT_LOAD = Line(
    "it did not load the model",
    "A worker reads the model a second time.",
    "See the rest of the line.",
    Group.MEMORY,
)
DID_NOT_ANSWER = Line(
    "it did not answer a step",
    "The worker took far longer than for the steps before.",
    "See the rest of the line.",
    Group.MEMORY,
)
DID_NOT_TELL_TIMES = Line(
    "it did not tell its times",
    "A pipeline is cut by how long each block takes on each device.",
    "See the rest of the line.",
    Group.MEMORY,
)
DID_NOT_TELL_INNER = Line(
    "it did not announce its part of the results",
    "A pipeline goes on from the inner results of the steps before.",
    "See the rest of the line.",
    Group.MEMORY,
)
DID_NOT_SEND_INNER = Line(
    "it did not send its part of the results",
    "A pipeline goes on from the inner results of the steps before.",
    "See the rest of the line.",
    Group.MEMORY,
)
DID_NOT_FINISH = Line(
    "it did not finish what it was asked before",
    "The worker is still busy with something older.",
    "Nothing, once: the next run starts a new one. Otherwise free memory on that device.",
    Group.MEMORY,
)

# the connection

CONNECTION_BROKE = Line(
    "its connection broke ({error})",
    "The worker ended, or another program interferes with its connection.",
    "Nothing, once: the next run starts a new one. Otherwise see whether a security program stops ComfyUI's Python.",
    Group.FAULT,
)
FAILED_BY_CONNECTION = Line(
    "{what}: {reason}",
    "The worker's connection broke while something was waited for.",
    "See the rest of the line.",
    Group.FAULT,
)
CANNOT_BE_CONNECTED = Line(
    "it cannot be given a connection ({error})",
    "The system refused to hand a socket to the worker.",
    "See whether a security program stops ComfyUI's Python; otherwise report it.",
    Group.FAULT,
)
NO_WAY_TO_ANOTHER = Line(
    "it has no connection to another worker ({error})",
    "In a pipeline workers send each other results, and the system refused them a socket.",
    "See whether a security program stops ComfyUI's Python; otherwise report it.",
    Group.FAULT,
)
PIPE_CLOSED = Line(
    "its pipe is closed",
    "The worker's process is there, but nothing more can be said to it.",
    "Nothing, once: the next run starts a new one. Otherwise report it.",
    Group.FAULT,
)
PIPE_BROKE = Line(
    "its pipe is closed ({error})",
    "The worker's process is there, but nothing more can be said to it.",
    "Nothing, once: the next run starts a new one. Otherwise report it.",
    Group.FAULT,
)

# answers that cannot be right

UNREADABLE = Line(
    "it sent something unreadable ({error})",
    "What came from the worker is no message of its kind, so nothing of it is used.",
    "Report it, with ComfyUI's log.",
    Group.FAULT,
)
INNER_UNREADABLE = Line(
    "it announced its part of the results in no known form ({error})",
    "What came from the worker is no message of its kind, so nothing of it is used.",
    "Report it, with ComfyUI's log.",
    Group.FAULT,
)
WRONG_STEP = Line(
    "it answered step {given} instead of {asked}",
    "An answer came in another order, so nothing of it is used.",
    "Report it, with ComfyUI's log.",
    Group.FAULT,
)
WRONG_HEAD = Line(
    "its answer begins with numbers that cannot be right ({numbers})",
    "What came from the worker is not as it should be, so nothing of it is used.",
    "Report it, with ComfyUI's log.",
    Group.FAULT,
)
FAILURES_UNASKED = Line(
    "it reported {limit} failures that nobody asked about",
    "The worker reports failures of steps that it was not given.",
    "Report it, with ComfyUI's log.",
    Group.FAULT,
)
UNKNOWN_FRAME = Line(
    "it sent an unknown message: {frame}",
    "The worker sent a message of no known kind.",
    "Report it, with ComfyUI's log.",
    Group.FAULT,
)
