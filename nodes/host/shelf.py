"""Where a worker puts model files that the ComfyUI of another machine sends: among this machine's own models.

What the sender says of a file decides neither its folder nor its name, and nothing that is there is written over.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import folder_paths
import torch

from ...hybridiff_core import lines
from ...hybridiff_core.plan import shown
from .files import found, stamp_of
from .loaders import CHECKPOINT, DIFFUSION_MODEL, lies_in

KINDS = {CHECKPOINT: "checkpoints", DIFFUSION_MODEL: "diffusion_models"}  # ComfyUI's names of their folders
OWN = "hybridiff"  # our folder in them
UNFINISHED = ".part"
FORSAKEN_S = 3600.0  # what nobody has written to for so long is left of a process that ended
SPARE = 1 << 30  # bytes that stay free on the disk
DIGEST = re.compile(r"[0-9a-f]{32}")
GB = 1e9


class Shelf:
    """The files of `machine`, this one: sought in `folders`, and put into its first folder of their kind."""

    def __init__(self, machine: str, folders: Sequence[str]):
        self.machine, self.folders = machine, folders
        self._incoming: Incoming | None = None

    def take(self, frame: dict, piece: Callable[[], torch.Tensor]) -> dict:
        """Answer a request about a file: whether one is there, or a part of one that comes. Raises ValueError."""
        try:
            match frame["part"]:
                case "seek":
                    _, size, digest = _described(frame)
                    return {"there": found("", (size, digest), self.folders) is not None}
                case "begin":
                    return self._begin(*_described(frame))
                case "piece":
                    data = piece()
                    if self._incoming is None:  # its beginning was refused
                        raise ValueError(lines.WRONG_VALUE(what="a piece of a file", value="of none"))
                    self._incoming.write(data)
                    return {}
                case "end":
                    incoming, self._incoming = self._incoming, None
                    return {"place": incoming.end(str(frame["whole"]))}
                case part:
                    raise ValueError(lines.WRONG_VALUE(what="a part of a file", value=shown(part)))
        except (OSError, Damaged) as error:
            self.forget()
            damaged = isinstance(error, Damaged)
            line = lines.FILE_CAME_OTHERWISE if damaged else lines.FILE_NOT_KEPT
            return {"refused": line(machine=self.machine, **({} if damaged else {"reason": error}))}

    def forget(self) -> None:
        """What was begun does not come any more."""
        if self._incoming:
            self._incoming.forget()
        self._incoming = None

    def _begin(self, kind: str, size: int, digest: str) -> dict:
        self.forget()
        folder = _folder(kind)
        if not lies_in(str(folder), self.folders):
            raise ValueError(lines.WORKER_FILE_OUTSIDE(path=folder))
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        free = shutil.disk_usage(folder).free
        if free < size + SPARE:
            return {"refused": lines.NO_ROOM_FOR_FILE(machine=self.machine, gb=size / GB, free=free / GB)}
        self._incoming = Incoming(folder, size, digest)
        return {}


class Damaged(Exception):
    """What came is not what was announced."""


class Incoming:
    """A file that comes; it has its name when all of it is here. The name is of its digest and chance."""

    def __init__(self, folder: Path, size: int, digest: str):
        self.size, self.digest = size, digest
        ending = f".safetensors{UNFINISHED}"
        descriptor, path = tempfile.mkstemp(prefix=f"sent-{digest[:12]}-", suffix=ending, dir=folder)
        self.path, self._file, self._whole = Path(path), open(descriptor, "wb"), hashlib.blake2b()  # noqa: SIM115
        self._written = 0

    def write(self, data: torch.Tensor) -> None:
        self._written += data.nbytes
        if self._written > self.size:
            raise Damaged
        self._whole.update(data.numpy())
        self._file.write(data.numpy())

    def end(self, whole: str) -> str:
        """Keep it; returns its folder and name. Raises Damaged where it is not what was sent."""
        self._file.close()
        try:
            if self._whole.hexdigest() != whole or stamp_of(str(self.path)) != (self.size, self.digest):
                raise Damaged
            kept = self.path.with_name(self.path.name.removesuffix(UNFINISHED))
            if kept.exists():
                raise FileExistsError(str(kept))
            self.path.rename(kept)
        except BaseException:
            self.forget()
            raise
        return "/".join(kept.parts[-3:])

    def forget(self) -> None:
        self._file.close()
        with contextlib.suppress(OSError):
            self.path.unlink()


def _described(frame: dict) -> tuple[str, int, str]:
    kind, size, digest = frame.get("kind"), frame.get("size"), frame.get("digest")
    if kind not in KINDS or type(size) is not int or size < 0 or not DIGEST.fullmatch(str(digest)):
        raise ValueError(lines.WRONG_VALUE(what="a model's file", value=shown([kind, size, digest])))
    return kind, size, digest


def _folder(kind: str) -> Path:
    """Ours in the host's folder for this kind: that of the same name, where there are several."""
    name = KINDS[kind]
    folders = folder_paths.get_folder_paths(name)
    named = [folder for folder in folders if os.path.basename(os.path.normpath(folder)) == name]
    return Path(os.path.abspath([*named, *folders][0])) / OWN


def _sweep(folder: Path) -> None:
    for path in folder.glob(f"sent-*{UNFINISHED}"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > FORSAKEN_S:
                path.unlink()
