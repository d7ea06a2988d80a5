"""A real ComfyUI for tests: find it, start it with this pack, talk to it over its HTTP API."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

PACK = Path(__file__).resolve().parents[2]
MODELS = PACK / ".cache" / "host" / "models"


def find_comfyui() -> Path | None:
    """The checkout at COMFYUI_PATH, or at comfy-cli's default place; None where there is none."""
    root = Path(os.environ.get("COMFYUI_PATH") or Path.home() / "comfy" / "ComfyUI")
    return root if (root / "main.py").is_file() else None


def python_of(root: Path) -> str:
    """The Python of ComfyUI's own virtual environment, else this one."""
    for path in (root / ".venv" / "bin" / "python", root / ".venv" / "Scripts" / "python.exe"):
        if path.exists():
            return str(path)
    return sys.executable


def make_models(root: Path) -> None:
    """Make the test models where they are not there yet."""
    script = PACK / "tests" / "host" / "make_models.py"
    if not (MODELS / "checkpoints" / "sd15_random.safetensors").is_file():
        subprocess.run([python_of(root), str(script), str(root), str(MODELS)], check=True)


class Refused(Exception):
    """The server did not take or not finish a prompt; the text is its answer."""


class Comfy:
    """A running server. `base` is its folder of models, nodes and output."""

    def __init__(self, root: Path, base: Path, threads: int = 1, flags: tuple[str, ...] = ()):
        self.base = base
        (base / "custom_nodes").mkdir(parents=True)
        (base / "custom_nodes" / "hybridiff").symlink_to(PACK, target_is_directory=True)
        (base / "custom_nodes" / "hybridiff_tests").symlink_to(PACK / "tests" / "host" / "pack")
        (base / "models").symlink_to(MODELS, target_is_directory=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.log = base / "server.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [
                    python_of(root), str(root / "main.py"), "--cpu", "--listen", "127.0.0.1", "--port", str(self.port),
                    "--base-directory", str(base), "--disable-api-nodes", "--database-url", "sqlite:///:memory:",
                    *flags,
                ],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=base,
                env={**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)},
            )  # fmt: skip
        self._wait_until_up()

    def _wait_until_up(self) -> None:
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"ComfyUI ended at its start:\n{self.tail()}")
            try:
                self.get("/system_stats")
                return
            except OSError:
                time.sleep(0.3)
        raise RuntimeError(f"ComfyUI did not come up:\n{self.tail()}")

    def tail(self, characters: int = 4000) -> str:
        return self.log.read_text(errors="replace")[-characters:]

    def get(self, path: str):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as answer:
            return json.load(answer)

    def post(self, path: str, body: dict):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read()
                return json.loads(text) if text else {}
        except urllib.error.HTTPError as error:
            raise Refused(error.read().decode()) from error

    def queue(self, graph: dict) -> str:
        return self.post("/prompt", {"prompt": graph})["prompt_id"]

    def wait(self, prompt: str, limit_s: float = 600.0) -> dict:
        """A prompt's history entry once it is finished. Raises Refused on its failure."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            history = self.get(f"/history/{prompt}")
            if prompt in history:
                entry = history[prompt]
                if entry["status"]["status_str"] != "success":
                    raise Refused(json.dumps(entry["status"]["messages"]))
                return entry
            if self.process.poll() is not None:
                raise RuntimeError(f"ComfyUI ended:\n{self.tail()}")
            time.sleep(0.05)
        raise TimeoutError(f"the prompt did not finish within {limit_s:.0f} s:\n{self.tail()}")

    def run(self, graph: dict, limit_s: float = 600.0) -> dict:
        return self.wait(self.queue(graph), limit_s)["outputs"]

    def stop(self) -> None:
        """End the server, and wait for it."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Graph:
    """A prompt in the API's format, written node by node."""

    def __init__(self) -> None:
        self.nodes: dict[str, dict] = {}

    def add(self, kind: str, **inputs) -> list:
        """Add a node; returns its first output, to be given to other nodes' inputs."""
        name = str(len(self.nodes) + 1)
        self.nodes[name] = {"class_type": kind, "inputs": inputs}
        return [name, 0]
