"""What Ray imports on a machine that joined, by this name: the folder of this file is on that machine's Python path.

Nothing but a name crosses, so the code that runs there is that machine's own. Standard library only, for torch may not
be imported before the worker's GPU is chosen.
"""

import importlib
import json
import os
import runpy
import threading
from pathlib import Path

CORE = Path(__file__).resolve().parents[2]
# by what Pool calls them; each has `enter`, which makes the engine importable and names it, and `make_backend`
SCRIPTS = {
    "comfy": CORE.parent / "nodes" / "host" / "worker.py",
    "demo": CORE / "demo" / "demo_worker.py",
    "diffusers": CORE / "diffusers" / "diffusers_worker.py",
}
FORSAKEN_S = 20  # nothing was heard of ComfyUI for so long: it is gone, or the way to it


class RemoteWorker:
    """A Ray actor: one device's worker, which is asked by a connection of its own (connection.py)."""

    def __init__(self) -> None:
        self._desk = None
        self._heard = True
        threading.Thread(target=self._end_when_forsaken, name="forsaken", daemon=True).start()

    def start(self, order: bytes) -> bytes:
        """Be the worker that `order` describes, in JSON; returns what it tells of itself."""
        order = json.loads(order)
        here = json.loads(os.environ["HYBRIDIFF_HERE"])
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)  # Ray's, for an actor without a GPU of Ray's
        os.environ.update(here["devices"][order["there"]])
        script = runpy.run_path(str(SCRIPTS[order["script"]]), run_name="hybridiff_worker_script")
        engine = script["enter"]()
        desk = importlib.import_module(f"{engine}.remote.desk")
        self._desk = desk.Desk(script["make_backend"], order, here)
        return json.dumps(self._desk.ready).encode()

    def open(self, key: bytes) -> bytes:
        """Listen for who knows `key`; the address and the port, in JSON."""
        return json.dumps(self._desk.open(key)).encode()

    def serve(self) -> None:
        """Do what comes by the connection, as long as it lasts."""
        self._desk.serve()

    def ping(self) -> bytes:
        self._heard = True
        return b""

    def _end_when_forsaken(self) -> None:
        silent = 0
        wait = threading.Event().wait
        while silent < FORSAKEN_S:  # counted, for a machine may have slept in between
            wait(1.0)
            silent, self._heard = 0 if self._heard else silent + 1, False
        os._exit(0)
