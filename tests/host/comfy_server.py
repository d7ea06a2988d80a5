"""A real ComfyUI for tests: find it, start it with this pack, talk to it over its HTTP API.

COMFYUI_PATH is its checkout ("none" for none), COMFYUI_PYTHON the Python that runs it (if not set, that of the virtual
environment in the checkout, else this one). Without COMFYUI_PATH it is the newest that can run of ~/comfy/ComfyUI and
the folders beside it whose names begin alike (~/comfy/ComfyUI-0.33).

It runs on the CPU. HYBRIDIFF_TEST_FLAGS are the flags to start it with in place of `--cpu`: for a GPU `--force-fp32`,
with NVIDIA_TF32_OVERRIDE=0, since our limits are those of float32.
"""

from __future__ import annotations

import base64
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path

from hybridiff_core.demo import trained

from .families import FAMILIES

PACK = Path(__file__).resolve().parents[2]
MODELS = PACK / ".cache" / "host" / "models"
DEVICE_FLAGS = os.environ.get("HYBRIDIFF_TEST_FLAGS", "--cpu").split()


NEEDS = ("torch", "safetensors", "aiohttp", "yaml", "einops", "transformers", "PIL", "comfyui_frontend_package")
NO_COMFYUI = "no ComfyUI (COMFYUI_PATH=/path/to/ComfyUI sh dev/test.sh)"


class Unusable(SystemExit):
    """A ComfyUI was named and cannot be used; the text says why, and what to do."""


def find_comfyui() -> Path | None:
    """The checkout at COMFYUI_PATH, or the newest at comfy-cli's default place; None for none, or where none is wanted.

    Raises Unusable where COMFYUI_PATH or COMFYUI_PYTHON says otherwise.
    """
    given = {name: os.environ[name] for name in ("COMFYUI_PATH", "COMFYUI_PYTHON") if os.environ.get(name)}
    if given.get("COMFYUI_PATH") == "none":
        return None
    root = root_of()
    if root is None or (fault := fault_of(root)) is None:
        return root
    if given:
        raise Unusable(f"{', '.join(f'{name} is {value}' for name, value in given.items())}: {fault}")
    return next((other for other in installed() if fault_of(other) is None), None)


def installed() -> list[Path]:
    """The checkouts at comfy-cli's default place and beside it, the newest first."""
    roots = [path.parent for path in (Path.home() / "comfy").glob("ComfyUI*/main.py")]
    return sorted(roots, key=lambda root: (numbers_of(version_of(root)), root.name), reverse=True)


def version_of(root: Path) -> str:
    """The version of the ComfyUI there: "0.33.0"; empty where it does not say."""
    try:
        return (root / "comfyui_version.py").read_text().split('"')[-2]
    except (OSError, IndexError):
        return ""


def numbers_of(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def why_none() -> str:
    """Why find_comfyui gave None, with the command that would change it."""
    fault = fault_of(root) if os.environ.get("COMFYUI_PATH") != "none" and (root := root_of()) else None
    return f"the ComfyUI at {root} cannot run: {fault}" if fault else NO_COMFYUI


def root_of() -> Path | None:
    """Where the checkout is, or should be by COMFYUI_PATH."""
    if given := os.environ.get("COMFYUI_PATH"):
        return Path(given).expanduser().absolute()
    if os.environ.get("COMFYUI_PYTHON"):
        return Path.home() / "comfy" / "ComfyUI"
    return next(iter(installed()), None)


@functools.cache
def fault_of(root: Path) -> str | None:
    """What keeps the checkout from running, and what to do about it."""
    if not root.is_dir():
        return f"there is no folder {root}; set COMFYUI_PATH to the folder that has ComfyUI's main.py"
    if not (root / "main.py").is_file():
        return f"{root} has no main.py; set COMFYUI_PATH to the folder that has ComfyUI's main.py"
    python, way_out = python_of(root), "set COMFYUI_PYTHON to the Python that runs this ComfyUI"
    script = f"import importlib.util as u; print(*[name for name in {NEEDS} if u.find_spec(name) is None])"
    try:
        done = subprocess.run([python, "-c", script], capture_output=True, text=True, timeout=60)
    except OSError as error:
        return f"its Python cannot be started ({python}: {error.strerror}); {way_out}"
    if done.returncode:
        return f"its Python cannot be used ({python}: {done.stderr.strip()[-200:]}); {way_out}"
    if missing := done.stdout.split():
        return f"its Python, {python}, has no {', '.join(missing)}; {way_out}"
    return None


def python_of(root: Path) -> str:
    """The Python that runs this ComfyUI: COMFYUI_PYTHON, its own virtual environment's, else this one."""
    if given := os.environ.get("COMFYUI_PYTHON"):
        return shutil.which(Path(given).expanduser()) or given
    places = [root / folder / name for folder in (".venv", "venv") for name in ("bin/python", "Scripts/python.exe")]
    return next((str(path) for path in places if path.exists()), sys.executable)


def make_models(root: Path) -> None:
    """Make the test models where they are not there yet, and put the demo's trained ones beside them."""
    for weights, kind in ((trained.NETWORK, "diffusion_models"), (trained.AUTOENCODER, "vae")):
        (MODELS / kind).mkdir(parents=True, exist_ok=True)
        if not (MODELS / kind / weights.name).is_symlink():
            (MODELS / kind / weights.name).symlink_to(weights)
    script = PACK / "tests" / "host" / "make_models.py"
    if not (MODELS / "checkpoints" / "sd15_narrow.safetensors").is_file():  # the last that is made
        subprocess.run([python_of(root), str(script), str(root), str(MODELS)], check=True)


def make_controls(root: Path, size: str = "small") -> None:
    """Make the ControlNets where they are not there yet: those for small models, or the "large" ones."""
    last = {"small": "sd15_narrow_lora", "large": "sd15_t2i"}[size]
    if not (MODELS / "controlnet" / f"{last}.safetensors").is_file():
        script = PACK / "tests" / "host" / "make_controls.py"
        subprocess.run([python_of(root), str(script), str(root), str(MODELS), size], check=True)


def make_loaders(root: Path) -> None:
    """Make the files of other loaders where they are not there yet."""
    if not (MODELS / "style_models" / "loaders_redux.safetensors").is_file():  # the last that is made
        make_models(root)
        script = PACK / "tests" / "host" / "make_loaders.py"
        subprocess.run([python_of(root), str(script), str(root), str(MODELS)], check=True)


class Refused(Exception):
    """The server did not take or not finish a prompt; the text is its answer."""


class Comfy:
    """A running server. `base` is its folder of models, nodes and output.

    `packs` are files or folders of further nodes; with `paid`, nodes for paid services are there too.
    """

    def __init__(
        self,
        root: Path,
        base: Path,
        threads: int = 1,
        flags: tuple[str, ...] = (),
        models: Path = MODELS,
        pack: Path = PACK,
        packs: Iterable[Path] = (),
        paid: bool = False,
        **environment: str,
    ):
        self.base = base
        (base / "custom_nodes").mkdir(parents=True, exist_ok=True)
        (base / "custom_nodes" / "hybridiff").symlink_to(pack, target_is_directory=True)
        (base / "custom_nodes" / "hybridiff_tests").symlink_to(PACK / "tests" / "host" / "pack")
        for other in packs:
            if other.is_dir():
                (base / "custom_nodes" / other.name).symlink_to(other, target_is_directory=True)
            else:
                shutil.copy(other, base / "custom_nodes" / f"by_graph_{other.name}")
        (base / "models").symlink_to(models, target_is_directory=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.log = base / "server.log"
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # tests in the background: the server would not hear it
            signal.signal(signal.SIGINT, signal.default_int_handler)
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [
                    python_of(root), str(root / "main.py"), "--listen", "127.0.0.1", "--port", str(self.port),
                    "--base-directory", str(base), "--database-url", "sqlite:///:memory:",
                    *(() if paid else ("--disable-api-nodes",)), *DEVICE_FLAGS, *flags,
                ],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=base,
                env={
                    **os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads),
                    "HYBRIDIFF_WAIT": "1",  # from the first step on, a worker has its part
                    **environment,
                },
            )  # fmt: skip
        self.wait_until_up()

    def wait_until_up(self) -> None:
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

    def post(self, path: str, body: dict, limit_s: float = 60):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=limit_s) as answer:
                text = answer.read()
                return json.loads(text) if text else {}
        except urllib.error.HTTPError as error:
            raise Refused(error.read().decode()) from error

    def make_family(self, name: str) -> str:
        """The name of a family's model file (families.py), which the server makes if it is not there yet."""
        family = FAMILIES[name]
        file = f"{family.stem(name)}.safetensors"
        if not (MODELS / family.kind / file).is_file():
            self.post(f"/tests/family/{name}", {}, limit_s=600)
        return file

    def queue(self, graph: dict, client: str | None = None, **extra) -> str:
        """Queue a prompt; `client` is the browser tab (Events) that hears of it, `extra` the page's other data."""
        body = {
            "prompt": graph,
            **({"client_id": client} if client else {}),
            **({"extra_data": extra} if extra else {}),
        }
        return self.post("/prompt", body)["prompt_id"]

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
        """End the server, and wait for it: not long, for it takes its time (test_end.py is about that)."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(3)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Events:
    """A browser tab: what the server tells it over its websocket, as (time.monotonic(), type, data).

    A preview is of the type "preview", its data the bytes of the picture, and of no prompt.
    """

    def __init__(self, comfy: Comfy, client: str):
        self.client = client
        self.seen: list[tuple[float, str, dict]] = []
        self._changed = threading.Condition()
        self._socket = socket.create_connection(("127.0.0.1", comfy.port))
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET /ws?clientId={client} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self._incoming = self._socket.makefile("rb")
        while self._incoming.readline().strip():
            pass  # the answer's head
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while len(head := self._incoming.read(2)) == 2:
            size = head[1] & 127
            if size > 125:
                size = int.from_bytes(self._incoming.read(2 if size == 126 else 8), "big")
            body = self._incoming.read(size)
            message = json.loads(body) if head[0] & 15 == 1 else {"type": "preview", "data": {"picture": body}}
            with self._changed:
                self.seen.append((time.monotonic(), message["type"], message["data"]))
                self._changed.notify_all()

    def of(self, prompt: str | None, kind: str) -> list[tuple[float, dict]]:
        """When events of this type came for `prompt`, and what they said."""
        return [(at, data) for at, type_, data in self.seen if type_ == kind and data.get("prompt_id") == prompt]

    def wait(self, found: Callable[[], object], limit_s: float = 60.0) -> bool:
        """Wait until `found` is true of what was seen; False where it is not in time."""
        with self._changed:
            return bool(self._changed.wait_for(found, limit_s))

    def wait_for_step(self, prompt: str, step: int, limit_s: float = 120.0) -> None:
        """Wait until a sampler of `prompt` has done `step` steps."""
        if not self.wait(lambda: any(data["value"] >= step for _, data in self.of(prompt, "progress")), limit_s):
            raise TimeoutError(f"step {step} was not reached within {limit_s:.0f} s")

    def end_of(self, prompt: str, limit_s: float = 60.0) -> float:
        """When `prompt` was over, however it ended."""

        def last() -> list:
            return [at for at, data in self.of(prompt, "executing") if data["node"] is None]

        if not self.wait(last, limit_s):
            raise TimeoutError(f"the prompt was not over within {limit_s:.0f} s")
        return last()[0]

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class Graph:
    """A prompt in the API's format, written node by node."""

    def __init__(self) -> None:
        self.nodes: dict[str, dict] = {}

    def add(self, kind: str, **inputs) -> list:
        """Add a node; returns its first output, to be given to other nodes' inputs."""
        name = str(len(self.nodes) + 1)
        self.nodes[name] = {"class_type": kind, "inputs": inputs}
        return [name, 0]
