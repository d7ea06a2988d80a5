"""The packs whose nodes a worker is to run: found in its own folders, loaded as the host loads them.

A pack is told by its name alone, and the name only compared with what lies in the folders.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import logging
import os
import sys
import time
from collections.abc import Iterator

import comfy.model_management
import folder_paths
import nodes

from ...hybridiff_core import lines
from ...hybridiff_core.plan import shown

try:
    import hook_breaker_ac10a0 as kept  # the functions of its own that the host protects from packs
except ImportError:  # older releases
    kept = None

log = logging.getLogger("hybridiff.worker")

CORE, EXTRAS, CUSTOM = "nodes", "comfy_extras.", "custom_nodes."
CODE = (".py", ".pyd", ".so")
UNUSED = {"test", "tests"}  # folders of a pack
PRESTARTUP = "prestartup_script.py"


class Packs:
    """Those that this process has loaded. `machine` is this one's name, where ComfyUI's process is on another one."""

    def __init__(self, loop: asyncio.AbstractEventLoop, machine: str | None = None):
        self.loop, self.machine = loop, machine
        self._loaded: set[str] = set()
        self.all_extras = False
        # as the host does where it loads packs (nodes.py, init_external_custom_nodes)
        sys.path.insert(0, os.path.join(_root(), "comfy"))
        if hasattr(nodes, "init_public_apis"):
            loop.run_until_complete(nodes.init_public_apis())
        if kept:
            kept.save_functions()

    def load(
        self, classes: dict[str, str], since: float | None, versions: dict[str, str] | None = None
    ) -> dict[str, float]:
        """Have each of `classes` in the host's table, from the module named there; gives the seconds of new ones.

        Raises ValueError, in words for users, where a pack is not here, has no such class, or is not the one that
        ComfyUI has: loaded `since` (in seconds since the epoch) on this machine, or on another one, whose clock says
        nothing here, of these `versions`.
        """
        took = {}
        # ComfyUI's own first: packs' classes do not take the place of those
        for module in sorted(set(classes.values()), key=lambda module: (module.startswith(CUSTOM), module)):
            if module != CORE and module not in self._loaded:
                started = time.perf_counter()
                self._load(module, since, (versions or {}).get(module))
                self._loaded.add(module)
                if module.startswith(CUSTOM):
                    took[module.removeprefix(CUSTOM)] = round(time.perf_counter() - started, 3)
        for kind, module in classes.items():
            cls = nodes.NODE_CLASS_MAPPINGS.get(kind)
            if cls is None or (getattr(cls, "RELATIVE_PYTHON_MODULE", None) or CORE) != module:
                raise ValueError(lines.PACK_WITHOUT_CLASS(pack=_name(module), node=kind))
        return took

    def load_extras(self) -> None:
        """All of ComfyUI's own: nodes of a pack may come to use them."""
        self.all_extras = True
        for path in _listed(os.path.join(_root(), EXTRAS.strip("."))):
            module = EXTRAS + nodes.get_module_name(path)
            if os.path.basename(path).startswith("nodes_") and module not in self._loaded:
                try:
                    self._load(module, None)
                    self._loaded.add(module)
                except ValueError as error:
                    log.info("%s", error)

    def _load(self, module: str, since: float | None, version: str | None = None) -> None:
        parent = module.split(".", 1)[0] if "." in module else ""
        if f"{parent}." not in (EXTRAS, CUSTOM):
            raise ValueError(lines.WRONG_VALUE(what="a pack", value=shown(module)))
        of_extras = f"{parent}." == EXTRAS
        path = _path_of(module)
        if path is None and self.machine:
            raise ValueError(lines.PACK_NOT_ON_MACHINE(machine=self.machine, pack=_name(module)))
        if path is None:
            raise ValueError(lines.PACK_NOT_THERE(pack=_name(module)))
        if since is not None and _newest(path) > since:
            raise ValueError(lines.PACK_CHANGED(pack=_name(module)))
        if self.machine and not of_extras and _version(path) != version:
            raise ValueError(lines.PACK_OF_ANOTHER_VERSION(machine=self.machine, pack=_name(module)))
        told = Told()
        logging.getLogger().addHandler(told)
        try:
            if not of_extras:
                _prestart(path)
            known = set() if of_extras else set(nodes.NODE_CLASS_MAPPINGS)
            done = self.loop.run_until_complete(nodes.load_custom_node(path, known, module_parent=parent))
        except (Exception, SystemExit) as error:  # a pack may do anything
            log.warning("%s failed", path, exc_info=True)
            done, told.error = False, error
        finally:
            logging.getLogger().removeHandler(told)
            _as_the_host_left_it()
        if not done:
            raise ValueError(lines.PACK_NOT_LOADED(pack=_name(module), reason=told.words()))


def version_of(module: str, since: float) -> str:
    """What tells the pack that this process loaded from others: a digest of its code.

    Raises ValueError where it is not on the disk any more as it was `since`, in seconds since the epoch.
    """
    path = _path_of(module)
    if path is None or _newest(path) > since:
        raise ValueError((lines.PACK_CHANGED if path else lines.PACK_NOT_THERE)(pack=_name(module)))
    return _version(path)


def _path_of(module: str) -> str | None:
    """The file or folder that the host would load under this name; None where there is none."""
    parent, name = module.split(".", 1)
    of_extras = f"{parent}." == EXTRAS
    folders = [os.path.join(_root(), parent)] if of_extras else folder_paths.get_folder_paths(parent)
    return next((path for folder in folders for path in _listed(folder) if nodes.get_module_name(path) == name), None)


def _as_the_host_left_it() -> None:
    """What the host sets right after it has loaded packs (main.py, start_comfyui)."""
    if set_again := getattr(comfy.model_management, "set_cudnn_benchmark", None):
        set_again()
    if kept:
        kept.restore_functions()


class Told(logging.Handler):
    """The error of which the host only logs that a pack could not be imported."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.error: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        self.error = sys.exc_info()[1] or self.error

    def words(self) -> str:
        if self.error is None:
            return lines.PACK_WITHOUT_NODES()
        return f"{type(self.error).__name__}: {self.error}".splitlines()[0][:200]


def _prestart(path: str) -> None:
    """What the host runs of a pack before anything else (main.py, execute_prestartup_script)."""
    script = os.path.join(path, PRESTARTUP)
    if not os.path.isfile(script):
        return
    spec = importlib.util.spec_from_file_location(os.path.splitext(script)[0], script)
    try:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    except Exception:
        log.warning("%s failed", script, exc_info=True)


def _listed(folder: str) -> Iterator[str]:
    """What the host would load from `folder`."""
    with os.scandir(os.path.realpath(folder)) as entries:
        names = sorted(entry.name for entry in entries)
    for name in names:
        path = os.path.join(folder, name)
        if name == "__pycache__" or name.endswith(".disabled"):
            continue
        if os.path.isdir(path) or name.endswith(".py"):
            yield path


def _newest(path: str) -> float:
    """When the newest file of code in a pack was changed, in seconds since the epoch."""
    return max(map(_changed_at, _files(path)), default=0.0)


def _version(path: str) -> str:
    """A digest of a pack's Python files, whatever a system does to the ends of their lines.

    Not of its tests, which a copy from a registry may lack.
    """
    root, digest = os.path.realpath(path), hashlib.blake2b(digest_size=16)
    named = {os.path.relpath(file, root).replace(os.sep, "/"): file for file in _files(path) if file.endswith(".py")}
    for name, file in sorted(named.items()):
        if not UNUSED.intersection(name.split("/")[:-1]):
            with open(file, "rb") as code:
                digest.update(name.encode() + b"\0" + code.read().replace(b"\r\n", b"\n") + b"\0")
    return digest.hexdigest()


def _files(path: str) -> list[str]:
    """A pack's files of code."""
    files = [os.path.realpath(path)] if os.path.isfile(path) else []
    for folder, folders, names in os.walk(os.path.realpath(path)):
        folders[:] = [name for name in folders if name not in ("__pycache__", ".git", "node_modules")]
        files += [os.path.join(folder, name) for name in names if name.endswith(CODE)]
    return files


def _changed_at(file: str) -> float:
    try:
        return os.stat(file).st_mtime
    except OSError:
        return 0.0


def _name(module: str) -> str:
    return module.removeprefix(CUSTOM)


def _root() -> str:
    return os.path.dirname(os.path.dirname(os.path.abspath(comfy.model_management.__file__)))
