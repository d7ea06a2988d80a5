"""The other machines, as `share` last saw them: a small file that ComfyUI reads, and the labels that Ray carries.

ComfyUI's process asks nothing over the network. `share` runs beside it, asks Ray every two seconds, and writes here
what it was told, in a folder that only this user may read: the cluster's token is in it.
"""

from __future__ import annotations

import contextlib
import functools
import getpass
import hashlib
import json
import os
import re
import secrets
import stat
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from .. import __version__

STALE_S = 12.0  # `share` writes every two seconds
PACK = Path(__file__).resolve().parents[2]
DEVICE = re.compile(r"(?:cuda|xpu):\d+|cpu")
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,38}[A-Za-z0-9])?")
LABEL = "hybridiff-"
TOKEN = re.compile(r"[0-9a-f]{48}")


@dataclass(frozen=True)
class Device:
    """A device of another machine: "cuda:0", its card's name ("" for a processor), gigabytes."""

    name: str
    model: str = ""
    gigabytes: int = 0

    @property
    def title(self) -> str:
        """As the machine's own list has it: "cuda:0 (RTX 3090, 24 GB)"."""
        return f"{self.name} ({self.model}, {self.gigabytes} GB)" if self.model else self.name


@dataclass(frozen=True)
class Machine:
    """A machine that joined. `node` is Ray's name for it, `pack` and `comfyui` are versions."""

    name: str
    node: str
    alive: bool
    pack: str = ""
    comfyui: str = ""
    devices: tuple[Device, ...] = ()


@dataclass(frozen=True)
class Cluster:
    """What a worker's bridge connects to, and who is there."""

    address: str
    node_ip: str
    token: str
    machines: tuple[Machine, ...] = ()


@functools.cache
def pack_version() -> str:
    """The version of this pack with a digest of its code: two machines that differ in it speak different wires."""
    digest = hashlib.blake2b(digest_size=4)
    for folder in ("hybridiff_core", "nodes"):
        for path in sorted((PACK / folder).rglob("*.py")):
            digest.update(path.relative_to(PACK).as_posix().encode())
            digest.update(path.read_bytes().replace(b"\r\n", b"\n"))
    return f"{__version__}-{digest.hexdigest()}"


# -- labels: Ray's are short words


def to_labels(machine: Machine) -> dict[str, str]:
    """What Ray is told of a machine that joins."""
    told = {"name": machine.name, "pack": machine.pack, "comfyui": machine.comfyui}
    for device in machine.devices:
        key = device.name.replace(":", "-")
        told[f"gpu-{key}"] = re.sub(r"[^A-Za-z0-9.-]+", "_", device.model).strip("_.-")[:60]
        told[f"gb-{key}"] = str(device.gigabytes)
    return {LABEL + key: value for key, value in told.items()}


def from_labels(node: str, alive: bool, labels: Mapping[str, str]) -> Machine | None:
    """The machine behind one of Ray's nodes; None for one that has no worker to give."""
    told = {key.removeprefix(LABEL): str(value) for key, value in labels.items() if key.startswith(LABEL)}
    if not NAME.fullmatch(told.get("name", "")):
        return None
    devices = []
    for key, model in sorted(told.items()):
        name = key.removeprefix("gpu-").replace("-", ":")
        if key.startswith("gpu-") and DEVICE.fullmatch(name):
            size = told.get(key.replace("gpu-", "gb-", 1), "")
            devices.append(Device(name, model.replace("_", " "), int(size) if size.isdecimal() else 0))
    return Machine(told["name"], node, alive, told.get("pack", ""), told.get("comfyui", ""), tuple(devices))


def resource(device: str) -> str:
    """Ray's name for a device of which a machine has one: who holds it has the device alone."""
    return LABEL + device.replace(":", "-")


# -- the file


def folder() -> Path:
    """Where `share` writes; on Unix with this user's name, for the folder for temporary files is everybody's."""
    return Path(tempfile.gettempdir()) / f"hybridiff-{re.sub(r'[^A-Za-z0-9]', '_', getpass.getuser())}"


def _own_folder() -> Path:
    path = folder()
    path.mkdir(mode=0o700, exist_ok=True)
    if not _is_ours(path):
        raise PermissionError(f"{path} belongs to somebody else or can be read by others")
    return path


def write(cluster: Cluster) -> None:
    """Raises OSError where the folder is another user's."""
    path = _own_folder()
    told = {**asdict(cluster), "at": time.monotonic()}
    new = path / f"cluster.{os.getpid()}"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        json.dump(told, file)
    os.replace(new, path / "cluster.json")


def kept_token() -> str:
    """The token of the last `share`, so that machines come back to a new one; a new token where there is none."""
    path = _own_folder() / "token"
    with contextlib.suppress(OSError):
        if TOKEN.fullmatch(token := path.read_text(encoding="ascii")):
            return token
    token = secrets.token_hex(24)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
        file.write(token)
    return token


def forget() -> None:
    """`share` ends."""
    with contextlib.suppress(OSError):
        (folder() / "cluster.json").unlink()


def read() -> Cluster | None:
    """The cluster of the `share` that runs on this machine, or None. Asks nobody; raises nothing."""
    try:
        path = folder()
        if not _is_ours(path):
            return None
        told = json.loads((path / "cluster.json").read_text(encoding="utf-8"))
        if not 0 <= time.monotonic() - told.pop("at") < STALE_S:
            return None
        found = [{**one, "devices": tuple(Device(**d) for d in one["devices"])} for one in told.pop("machines")]
        return Cluster(**told, machines=tuple(Machine(**one) for one in found))
    except (OSError, ValueError, TypeError, LookupError, AttributeError, KeyError):
        return None


def _is_ours(path: Path) -> bool:
    if not hasattr(os, "getuid"):
        return path.is_dir()
    status = path.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077
