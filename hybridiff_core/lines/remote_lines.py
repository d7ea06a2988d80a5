"""Lines about other machines, which docs/REMOTE.md tells how to use."""

from .line import Group, Line

NOTHING_SHARED = Line(
    "{device} is not there: `python -m hybridiff_core share` does not run on this machine",
    "Other machines join the one that `share` runs on, and it tells ComfyUI who is there.",
    "Start it in ComfyUI's Python, and the command that it prints on the other machine: docs/REMOTE.md.",
    Group.SETTING,
)
NO_OTHER_MACHINE = Line(
    "no other machine has a GPU for this one",
    "No machine joined, or none with a GPU of ComfyUI's kind.",
    "Start `python -m hybridiff_core share` here and the command that it prints there: docs/REMOTE.md.",
    Group.SETTING,
)
NO_SUCH_MACHINE = Line(
    "no machine called {machine} joined",
    "The graph names a machine that has not joined since `share` was started.",
    "Start the `join` command there, or choose another device.",
    Group.SETTING,
)
MACHINE_OFF = Line(
    "{machine} is off, or cannot be reached",
    "The machine joined before and does not answer now.",
    "Switch it on; its `join` command connects again by itself while it runs.",
    Group.SETTING,
)
MACHINE_GONE = Line(
    "{machine} does not answer any more",
    "The machine was switched off, went to sleep, or its network connection is broken.",
    "See to the machine and the cable. It is used again once it is back.",
    Group.MEMORY,
)
REMOTE_ENDED = Line(
    "its process on {machine} ended",
    "The system ended it, most often for want of memory, or somebody did.",
    "Close other programs there, or use a smaller model or dtype.",
    Group.MEMORY,
)
PORTS_CLOSED = Line(
    "{machine} is there, but its worker cannot be reached ({error})",
    "Latents go by a connection of their own, to one of three ports of that machine: 6406 to 6408, if `join` was given "
    "no other. A firewall may be in the way.",
    "Open the ports that docs/REMOTE.md names, in both directions. Where another program has them, start `join` with "
    "another --port.",
    Group.SETTING,
)
DEVICE_NOT_THERE = Line(
    "{machine} has no {name} (it has: {here})",
    "The graph names a device that the other machine does not have.",
    "Choose one of its devices in the Hybridiff Devices node.",
    Group.SETTING,
)
DEVICE_HELD = Line(
    "{machine} did not start a process for {device}; another ComfyUI may have that device",
    "A device of another machine works for one ComfyUI at a time.",
    "Close the other ComfyUI, or wait until it lets the device go (ten idle minutes).",
    Group.MEMORY,
)
OTHER_PACK = Line(
    "{machine} is left out: it has another version of Hybridiff ({theirs}, here {own})",
    "Both machines have to speak the same, so they need the same version.",
    "Update Hybridiff on both machines, and start `join` there again.",
    Group.INSTALL,
)
OTHER_COMFYUI = Line(
    "{machine} has another version of ComfyUI ({theirs}, here {own})",
    "Another version may compute something else, or not know the model.",
    "Update ComfyUI on both machines, and start `join` there again.",
    Group.INSTALL,
)
NO_RAY = Line(
    "Ray, which other machines need, is not installed",
    "Workers on other machines are started and watched by Ray.",
    "pip install 'ray>=2.52' in ComfyUI's Python on each machine.",
    Group.INSTALL,
)
NO_CLUSTER = Line(
    "Ray cannot be reached ({reason})",
    "`share` runs, but Ray did not let this process in.",
    "Start `python -m hybridiff_core share` again; see that all machines have the same Python and Ray versions.",
    Group.FAULT,
)
NOT_BETWEEN_MACHINES = Line(
    "this is not done with a device of another machine",
    "What devices exchange within a forward is too much for a network.",
    "Report it: such work is not given to other machines.",
    Group.FAULT,
)
LINK_TOO_SLOW = Line(
    "{device} is left out: with the way there and back it takes {times:.1f} times as long as this process",
    "The network to that machine is slow, or the device is. It is measured in each run, and used only where it pays.",
    "Use a faster connection (a cable in the place of wireless), or a larger picture or batch.",
    Group.NOTHING,
)
CUT_STAYS_HERE = Line(
    "{device} is left out: a network is divided only within one machine",
    "In a pipeline devices exchange what lies between two blocks, which is too much for a network connection.",
    "Choose the mode auto, exact or predict for devices of other machines.",
    Group.SETTING,
)
FILE_NOT_THERE = Line(
    "{machine} has no file like {file} in its model folders",
    "A worker reads the model from its own machine. It knows the file by its size and samples of it, by any name.",
    "Copy the file into that machine's folder of the same kind, or set send_files in Hybridiff Devices.",
    Group.SETTING,
)
BEING_SENT = Line(
    "{file} is being sent to {machine}: {share:.0%}",
    "That machine has no file like it. The run does not wait for it.",
    "Nothing: a later run has that machine.",
    Group.NOTHING,
)
FILE_SENT = Line(
    "{file} was sent to {machine}, {gb:.2f} GB in {seconds:.0f} s: {place}",
    "It lies among that machine's models from now on, under a name of that machine's own.",
    "Nothing; it stands in the log. Delete it there when it is not wanted any more.",
    Group.NOTHING,
)
FILE_NOT_SENT = Line(
    "{file} was not sent to {machine}: {reason}",
    "The file could not be read here.",
    "Do what the reason says, or copy the file to that machine.",
    Group.FAULT,
)
NOT_SENT_KIND = Line(
    "{machine} has no file like {file}, and only files that end in {ending} are sent",
    "Other forms of files may have code in them.",
    "Copy the file into that machine's folder of the same kind.",
    Group.SETTING,
)
NO_ROOM_FOR_FILE = Line(
    "{machine} has no room for a file of {gb:.2f} GB ({free:.2f} GB are free)",
    "The file was to be sent there, as send_files in Hybridiff Devices says.",
    "Make room on that machine's disk.",
    Group.MEMORY,
)
FILE_NOT_KEPT = Line(
    "{machine} could not keep a file that was sent: {reason}",
    "That machine's system did not let Hybridiff write among its models.",
    "Do what the reason says, or copy the file to that machine.",
    Group.FAULT,
)
FILE_CAME_OTHERWISE = Line(
    "a file did not arrive at {machine} as it was sent",
    "It was changed here meanwhile, or there.",
    "Run again.",
    Group.FAULT,
)
DID_NOT_TAKE_FILE = Line(
    "it did not take a file",
    "The other machine is stuck, or the way to it.",
    "See to the machine and the connection.",
    Group.FAULT,
)
