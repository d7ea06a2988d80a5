"""Why a process crashed, from what it wrote last."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Sequence

# as Python's faulthandler writes them
FATAL = re.compile(r"(Fatal\sPython\serror|Windows\sfatal\sexception): ")
CURRENT, FRAME = ("Current thread ", "Stack ("), re.compile(r'\s+File "(?:.*[\\/])?(.+)", line (\d+) in (.+)')
BESIDE = re.compile(r"(Extension modules:|Thread 0x|Current thread 0x|Stack \(|\s+File |\s*<no Python frame>)")
FRAMES, LONGEST = 3, 200
# statuses of a process that was asked to end, and of one that the system or somebody killed
ASKED_TO_END = {-signal.SIGINT, -signal.SIGTERM, -getattr(signal, "SIGHUP", signal.SIGTERM)}
KILLED = -getattr(signal, "SIGKILL", signal.SIGTERM)
# of Windows' statuses: the lowest of a fault, abort()'s, and those of Ctrl-C and of want of memory
FAULTS, ABORTED, NO_FAULTS = 0xC0000000, 3, {0xC000013A, 0xC0000017, 0xC000012D}


def crashed(status: int | None) -> bool:
    """Whether a process of this exit status ended by its own code; not where the system or somebody ended it."""
    if sys.platform == "win32":
        return status is not None and (status >= FAULTS or status == ABORTED) and status not in NO_FAULTS
    return status is not None and status < 0 and status not in ASKED_TO_END | {KILLED}


def last_said(tail: Sequence[str], crash: bool) -> str:
    """The last line that says something; of a crash what it was, and the functions in which it came."""
    fatal = next((line for line in reversed(tail) if crash and FATAL.match(line)), None)
    if fatal is None:
        plain = [line for line in tail if not BESIDE.match(line)]
        return plain[-1][:LONGEST] if plain else ""
    start = next((number for number, line in enumerate(tail) if line.startswith(CURRENT)), len(tail))
    frames = [found for line in tail[start + 1 :] if (found := FRAME.match(line))][:FRAMES]
    where = ", ".join(f"{name} ({file}:{line})" for file, line, name in (frame.groups() for frame in frames))
    return f"{fatal} in {where}"[:LONGEST] if where else fatal[:LONGEST]
