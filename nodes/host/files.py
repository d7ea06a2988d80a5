"""A model's file on another machine: known by its size and samples of what is in it, wherever it lies there."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import PurePath, PurePosixPath

from ...hybridiff_core import lines
from ...hybridiff_core.workers.bringing import ModelFile
from .loaders import CHECKPOINT, DIFFUSION_MODEL, lies_in, model_folders

ENDS = 1 << 20  # of the file's beginning, where a safetensors file has its names and sizes, and of its end
SAMPLES, SAMPLE = 64, 4096


def portable(recipe: dict) -> dict:
    """The recipe for another machine: a file named from the model folder on, known by what is in it; packs likewise.

    Raises OSError where a file cannot be read, ValueError where a pack is not what was loaded any more.
    """
    if graph := recipe["graph"]:
        from .packs import CUSTOM, version_of  # the host's executor comes with it

        custom = {module for module in graph["classes"].values() if module.startswith(CUSTOM)}
        versions = {module: version_of(module, graph["since"]) for module in sorted(custom)}
        return {**recipe, "graph": {**graph, "since": None, "versions": versions}}
    if recipe["loader"] not in (CHECKPOINT, DIFFUSION_MODEL):
        return recipe
    path = recipe["path"]
    folder = max((one for one in model_folders() if lies_in(path, [one])), key=len)
    return {**recipe, "path": PurePath(os.path.relpath(path, folder)).as_posix(), "stamp": stamp_of(path)}


def to_send(recipe: dict) -> ModelFile | None:
    """The file that the recipe's model is read from, where there is one. Raises OSError."""
    if recipe["loader"] not in (CHECKPOINT, DIFFUSION_MODEL):
        return None
    path = recipe["path"]
    return ModelFile(path, os.path.basename(path), recipe["loader"], stamp_of(path))


def located(recipe: dict, folders: Sequence[str], machine: str) -> dict:
    """Undo `portable` on `machine`, with its own `folders`. Raises FileNotFoundError, and ValueError for no recipe."""
    if recipe.get("loader") not in (CHECKPOINT, DIFFUSION_MODEL):
        return recipe
    name, stamp = recipe.get("path"), recipe.get("stamp")
    if not isinstance(name, str) or not isinstance(stamp, tuple) or len(stamp) != 2 or not isinstance(stamp[0], int):
        raise ValueError(lines.WRONG_VALUE(what="a file on another machine", value=f"{name}, {stamp}"[:80]))
    if path := found(name, stamp, folders):
        return {**recipe, "path": path}
    raise FileNotFoundError(lines.FILE_NOT_THERE(machine=machine, file=PurePosixPath(name).name[:80]))


def found(name: str, stamp: tuple[int, str], folders: Sequence[str]) -> str | None:
    """The file of this stamp in `folders`, looked for under `name` first; None where there is none."""
    return next((path for path in _candidates(name, stamp[0], folders) if stamp_of(path) == stamp), None)


def stamp_of(path: str) -> tuple[int, str]:
    """The file's size and a digest of samples. Raises OSError."""
    status = os.stat(path)
    return _stamp(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _stamp(path: str, size: int, _: int) -> tuple[int, str]:
    digest = hashlib.blake2b(digest_size=16)
    spans = [(0, ENDS), *((size * part // SAMPLES, SAMPLE) for part in range(SAMPLES)), (max(0, size - ENDS), ENDS)]
    with open(path, "rb") as file:
        for start, length in spans:
            file.seek(start)
            digest.update(file.read(length))
    return size, digest.hexdigest()


def _candidates(name: str, size: int, folders: Sequence[str]) -> Iterator[str]:
    """Files of `size` in `folders`: those called `name` first."""
    for folder in folders:
        path = os.path.abspath(os.path.join(folder, name))
        if lies_in(path, [folder]) and os.path.isfile(path) and os.path.getsize(path) == size:
            yield path
    for folder in folders:
        for root, _, files in os.walk(folder):
            for file in files:
                path = os.path.join(root, file)
                if os.path.isfile(path) and os.path.getsize(path) == size:
                    yield path
