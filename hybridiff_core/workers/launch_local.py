"""Start a worker process on this machine: the only place that starts one.

What is run is fixed here: this Python, one of our own scripts, no arguments. Nothing that a
user typed reaches the command line; all a worker is told comes through its standard input, which
is also its death pipe: when this process ends, however it ends, the worker reads end-of-file. Of the
environment it gets all but what looks like a secret.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import re
import socket
import subprocess  # nosec B404
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import psutil

from .. import lines
from .crash import ASKED_TO_END, crashed, last_said
from .devices import Place
from .frames import FramePipe
from .reap import remember
from .shared import Segment
from .sockets import hand_over

log = logging.getLogger("hybridiff")

PACK = Path(__file__).resolve().parents[2]
SCRIPTS = {
    "comfy": PACK / "nodes" / "host" / "worker.py",
    "demo": PACK / "hybridiff_core" / "demo" / "demo_worker.py",
    "diffusers": PACK / "hybridiff_core" / "diffusers" / "diffusers_worker.py",
    "bridge": PACK / "hybridiff_core" / "remote" / "bridge.py",
    "node": PACK / "hybridiff_core" / "remote" / "node.py",
    "lookout": PACK / "hybridiff_core" / "remote" / "lookout.py",
}
LOG_LINE_LIMIT = 8192
# what a variable's name or value looks like that is somebody's secret
SECRET = ("TOKEN", "SECRET", "PASSW", "_KEY", "APIKEY", "CREDENTIAL", "COOKIE", "AUTH")
WITH_PASSWORD = re.compile(r"://[^/@\s]+@")  # an address with a name or password in it
# glibc's malloc keeps what a forward gave back for the next one, which would wait for each page of it anew (mallopt(3))
KEEP_HEAP = {"MALLOC_TRIM_THRESHOLD_": str(1 << 30), "MALLOC_MMAP_THRESHOLD_": str(32 << 20)}


def environment(of: Mapping[str, str]) -> dict[str, str]:
    """What of an environment a worker is given: all but what looks like a secret.

    Compilers, kernels and drivers read variables of their own, more than a list could name.
    """
    return {
        name: value
        for name, value in of.items()
        if not any(word in name.upper() for word in SECRET) and not WITH_PASSWORD.search(value)
    }


class WorkerProcess:
    """A started worker: its frames, the last lines it logged, its end."""

    def __init__(self, script: str, place: Place):
        windows = sys.platform == "win32"
        flags = subprocess.CREATE_NO_WINDOW if windows else 0
        keeps = place.device == "cpu" or script == "bridge"
        # the way by which sockets are handed to the worker
        self._way, inherited = (None, None) if windows else socket.socketpair()
        # a constant script, no arguments, no shell: SECURITY.md
        self._process = subprocess.Popen(  # nosec B603
            [sys.executable, *(["-s"] if sys.flags.no_user_site else []), str(SCRIPTS[script])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**(KEEP_HEAP if keeps else {}), **environment(os.environ), **place.visibility},
            creationflags=flags,
            # Ctrl-C in ComfyUI's console is ComfyUI's to handle; the worker follows by its death pipe
            start_new_session=not windows,
            **({} if windows else {"pass_fds": (inherited.fileno(),)}),
        )
        self.pid = self._process.pid
        remember(self.pid)
        # what the worker must be told first
        self.hello = {} if windows else {"way": inherited.fileno()}
        if inherited:
            inherited.close()
        self._done: object = None
        self.pipe = FramePipe(self._process.stdout, self._process.stdin)
        self.tail: collections.deque[str] = collections.deque(maxlen=40)
        self._label = place.label
        self.elsewhere = False  # what it is asked for is done on another machine
        self._logging = threading.Thread(target=self._forward_log, name="hybridiff-worker-log", daemon=True)
        self._logging.start()

    def _forward_log(self) -> None:
        for line in iter(lambda: self._process.stderr.readline(LOG_LINE_LIMIT), b""):
            text = line.decode(errors="replace").rstrip()
            if text:
                self.tail.append(text)
                log.debug("worker on %s: %s", self._label, text)

    def last_words(self, within_s: float) -> str | None:
        """How it ended, and the last line it logged; None where it does not end `within_s` seconds."""
        try:
            status = self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            return None
        self._logging.join(timeout=1.0)
        last = last_said(list(self.tail), crashed(status))
        how = lines.KILLED(signal=-status) if status < 0 else lines.ENDED(status=status)
        return lines.LAST_WORDS(how=how, said=last) if last else how

    def alive(self) -> bool:
        return self._process.poll() is None

    def crashed(self) -> bool:
        """Whether code in it ended it: not the system, nor somebody."""
        return crashed(self._process.poll())

    def ended_from_outside(self) -> bool:
        """Whether somebody asked it to end; SIGKILL is most often the system's, for want of RAM."""
        return self._process.poll() in ASKED_TO_END

    def hand(self, end: socket.socket, pid: int) -> dict:
        """Give the worker, which says that it is process `pid`, a socket; returns what it must be told for it."""
        return hand_over(end, self._way, pid)

    def hand_memory(self, segment: Segment) -> dict:
        """Give the worker shared memory; returns what it must be told for it. Raises OSError."""
        return segment.hand_over(self._way)

    def has_moved(self) -> bool:
        """Whether it has computed, read or written anything since this was last asked, or waits for a disk.

        Of one whose work is done on another machine that says nothing: then never.
        """
        if self.elsewhere:
            return False
        done, waits = [], False
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self.pid)
            # in a virtual environment on Windows, Python's program only starts another one
            others = process.children(recursive=True) if sys.platform == "win32" else []
            for one in [process, *others]:
                done.append(one.cpu_times()[:2])
                waits = waits or one.status() == psutil.STATUS_DISK_SLEEP
                if hasattr(one, "io_counters"):
                    done.append(one.io_counters()[:4])
        before, self._done = self._done, done
        return waits or done != before

    def is_stopped(self) -> bool:
        """Whether the system holds it: by a signal, a debugger, or suspended. Never of one that waits its turn."""
        with contextlib.suppress(psutil.Error):
            return psutil.Process(self.pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
        return False

    def stop(self, grace_s: float = 2.0) -> None:
        """End it: by closing its standard input, then SIGTERM, then SIGKILL; at once by the last without grace."""
        # without grace it is killed first: a full pipe's writer would hold its lock
        for end in (self._close_input, self._process.terminate, self._process.kill)[0 if grace_s else 2 :]:
            end()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace_s or 2.0)
                break
        self._close_input()
        if self._way:
            self._way.close()

    def _close_input(self) -> None:
        with contextlib.suppress(OSError):
            self._process.stdin.close()
