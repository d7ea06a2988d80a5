"""Workers of this process's earlier self.

ComfyUI-Manager restarts ComfyUI by os.execv: the process goes on as another program, and a worker
that ends on that stays its child, a zombie, until somebody asks for its status. The workers' pids
are kept in an environment variable, the one thing of a Python program that outlives execv.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading

VARIABLE = "HYBRIDIFF_WORKERS"
KEPT = 64  # pids of long ago are of workers whose end was seen

_lock = threading.Lock()


def remember(pid: int) -> None:
    """Keep the pid of a worker just started."""
    with _lock:
        os.environ[VARIABLE] = " ".join([*os.environ.get(VARIABLE, "").split(), str(pid)][-KEPT:])


def reap() -> None:
    """Take leave of the workers that were noted before an execv, each when it ends. Does not wait."""
    noted = os.environ.pop(VARIABLE, "").split()
    if sys.platform == "win32":  # there execv starts a new process, which has no children yet
        return
    for pid in noted:
        threading.Thread(target=_wait, args=(int(pid),), name=f"hybridiff-reap-{pid}", daemon=True).start()


def _wait(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):  # seen off already, or another process's
        os.waitpid(pid, 0)
