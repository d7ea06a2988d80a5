"""Lines about messages between processes. They stand in a worker's line, as the reason why it was given up."""

from .line import Group, Line

REPORT = "Nothing, once: the next run starts a new worker. Otherwise report it, with ComfyUI's log."

# frames and values

FRAME_TOO_LARGE = Line(
    "a frame announces {size} bytes, over the limit of {limit}",
    "What came is no message, or far too large a one. It is not read.",
    REPORT,
    Group.FAULT,
)
FRAME_TOO_DEEP = Line("a frame is nested too deeply", "What came is no message of this kind.", REPORT, Group.FAULT)
FRAME_NO_OBJECT = Line(
    "a frame holds {kind} instead of an object", "What came is no message of this kind.", REPORT, Group.FAULT
)
NO_SUCH_FORM = Line("no such form on the wire: {value}", "What came is no value that is sent.", REPORT, Group.FAULT)
NO_SUCH_VALUE = Line("no such value on the wire: {error}", "What came is no value that is sent.", REPORT, Group.FAULT)
VALUE_TOO_DEEP = Line(
    "a value on the wire is nested too deeply", "What came is no value that is sent.", REPORT, Group.FAULT
)
NO_SHAPE = Line("no shape and dtype: {value}", "A tensor was announced in no known form.", REPORT, Group.FAULT)
WRONG_VALUE = Line(
    "not {what}: {value}",
    "A worker was sent something else than what it makes a model or its prompts from. It does not use it.",
    REPORT,
    Group.FAULT,
)
UNKNOWN_REQUEST = Line(
    "unknown request {op}", "A worker was asked for something it does not know.", REPORT, Group.FAULT
)
UNKNOWN_STEP = Line(
    "unknown kind of step {kind}", "A worker was asked for something it does not know.", REPORT, Group.FAULT
)
INNER_SHAPE = Line(
    "the inner part's result does not have the expected shape",
    "The network gives another result in the worker than in this process.",
    "Choose the mode auto or predict, and report it.",
    Group.FAULT,
)
NO_INNER_PART = Line(
    "the network has no such inner part",
    "The network is another one in the worker than in this process.",
    "Choose the mode auto or predict, and report it.",
    Group.FAULT,
)

OTHER_TOKENS = Line(
    "the network has {found} tokens in a device's part where {expected} were expected",
    "The network does something with its tokens that is not seen when it is divided by them.",
    "Report it, with the workflow.",
    Group.FAULT,
)
NOT_DIVIDED = Line(
    "the network could not be divided by its tokens",
    "The network is another one in the worker than in this process.",
    "Report it, with the workflow.",
    Group.FAULT,
)

# tensors

MESSAGE_OVER_LIMIT = Line(
    "a message of {size} bytes is announced, over the limit of {limit}",
    "The latent is larger than what is sent in one piece.",
    "Use a smaller picture or batch.",
    Group.SETTING,
)
MESSAGE_OF_ANOTHER_SIZE = Line(
    "a message of {size} bytes came where {expected} were expected",
    "What came is not what was announced. It is not read.",
    REPORT,
    Group.FAULT,
)
NO_MESSAGE = Line("what came is not a message", "Something else came over the connection.", REPORT, Group.FAULT)
MEMORY_NOT_AS_TOLD = Line(
    "the shared memory is not of the {size} bytes that were announced",
    "What came is not the memory that was handed over. It is not used; tensors go by the connection.",
    REPORT,
    Group.FAULT,
)
OTHER_END_HUNG_UP = Line("the other end hung up", "The other process ended, or gave up.", REPORT, Group.FAULT)
OTHER_WORKER_GONE = Line("the other worker is gone", "A device of the pipeline failed.", REPORT, Group.MEMORY)
NOTHING_CAME = Line(
    "nothing came or went for {seconds:.0f} s",
    "The other process hangs, or is swapped to disk.",
    "Free memory. If it happens again, restart ComfyUI.",
    Group.MEMORY,
)

# who is at the other end

STRANGER_BETWEEN = Line(
    "another program connected in place of this one, {times} times in a row",
    "Windows makes the connection by a port for a moment, and another program was faster each time.",
    "Close programs that scan local ports.",
    Group.FAULT,
)
STRANGER_ANSWERED = Line(
    "another program answered: it does not know this run's token",
    "Another program is at the other end of the connection. It was refused.",
    "Close programs that scan local ports; otherwise report it.",
    Group.FAULT,
)
HUNG_UP_EARLY = Line(
    "the other end hung up before it showed that it knows this run's token",
    "The worker ended while it connected, or another program was there.",
    REPORT,
    Group.FAULT,
)
TOKEN_NOT_SHOWN = Line(
    "the other end did not show within {seconds:.0f} s that it knows this run's token",
    "The worker hangs while it connects, or another program was there.",
    REPORT,
    Group.FAULT,
)
OTHER_END_GONE = Line("the other end is gone ({error})", "The worker ended while it connected.", REPORT, Group.FAULT)
