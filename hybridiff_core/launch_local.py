"""Start a worker process on this machine: the only place that starts one.

What is run is fixed here: this Python, one of our own two scripts, no arguments. Nothing that a
user typed reaches the command line; all a worker is told comes through its standard input, which
is also its death pipe: when this process ends, however it ends, the worker reads end-of-file.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

from .devices import Place
from .wire import FramePipe

log = logging.getLogger("hybridiff")

PACK = Path(__file__).resolve().parent.parent
SCRIPTS = {
    "comfy": PACK / "nodes" / "host" / "worker.py",
    "demo": PACK / "hybridiff_core" / "demo" / "worker.py",
}


class WorkerProcess:
    """A started worker: its frames, the last lines it logged, its end."""

    def __init__(self, script: str, place: Place):
        flags = subprocess.CREATE_NO_WINDOW if sys.platform == "win32" else 0
        self._process = subprocess.Popen(
            [sys.executable, *(["-s"] if sys.flags.no_user_site else []), str(SCRIPTS[script])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **place.visibility},
            creationflags=flags,
            # Ctrl-C in ComfyUI's console is ComfyUI's to handle; the worker follows by its death pipe
            start_new_session=sys.platform != "win32",
        )
        self.pid = self._process.pid
        self.pipe = FramePipe(self._process.stdout, self._process.stdin)
        self._tail: collections.deque[str] = collections.deque(maxlen=40)
        self._label = place.label
        self._logging = threading.Thread(target=self._forward_log, name="hybridiff-worker-log", daemon=True)
        self._logging.start()

    def _forward_log(self) -> None:
        for line in iter(self._process.stderr.readline, b""):
            text = line.decode(errors="replace").rstrip()
            if text:
                self._tail.append(text)
                log.debug("worker on %s: %s", self._label, text)

    def last_words(self, within_s: float) -> str | None:
        """How it ended, and the last line it logged; None where it does not end `within_s` seconds."""
        try:
            status = self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            return None
        self._logging.join(timeout=1.0)
        last = self._tail[-1] if self._tail else ""
        how = f"it was killed by signal {-status}" if status < 0 else f"it ended with status {status}"
        return f"{how}{': ' + last if last else ''}"

    def alive(self) -> bool:
        return self._process.poll() is None

    def stop(self, grace_s: float = 2.0) -> None:
        """End it: close its standard input, then SIGTERM, then SIGKILL."""
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        for end in (lambda: None, self._process.terminate, self._process.kill):
            end()
            try:
                self._process.wait(grace_s)
                return
            except subprocess.TimeoutExpired:
                continue
