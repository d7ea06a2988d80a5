"""ComfyUI's settings as plain data: what its command line said, what was changed since, and PyTorch's.

All of them cross, so that a worker does what ComfyUI's process does; but for those that say where and how a process
runs, which are a worker's own.
"""

from __future__ import annotations

import enum
import logging

import comfy.cli_args

from ...hybridiff_core import lines
from ...hybridiff_core.plan import shown
from ...hybridiff_core.workers import torch_settings

log = logging.getLogger("hybridiff.worker")

# a worker's own: one device, no other packs, no listening, no files, nothing on a screen
OWN = {
    "cuda_device": None,
    "default_device": None,
    "disable_all_custom_nodes": True,
    "whitelist_custom_nodes": [],
    "enable_manager": False,
    "enable_manager_legacy_ui": False,
    "listen": "",
    "auto_launch": False,
    "enable_assets": False,
    "disable_assets_autoscan": True,
    "database_url": "sqlite:///:memory:",
    "log_stdout": False,
    "debug_hang": False,
    "list_feature_flags": False,
    "quick_test_for_ci": False,
}
# where a machine's files are: not another machine's to say
FOLDERS = (
    "base_directory", "output_directory", "temp_directory", "input_directory", "user_directory", "models_directory",
    "extra_model_paths_config", "front_end_root",
)  # fmt: skip
# by the device that a worker is given
BY_DEVICE = ("cpu", "directml")
# a worker has these as ComfyUI has them without a command line; the first changes with every prompt
DEFAULTS = ("preview_method", "verbose")


class NotPlain(Exception):
    """A value that has no plain form."""


def read() -> dict:
    """What of a run's settings can change between two runs, as plain data."""
    return {"args": read_args(), "torch": torch_settings.read()}


def lay(told: dict, device: str) -> None:
    """Make what `read` gave this process's settings. Raises ValueError."""
    if not isinstance(told, dict) or told.keys() != {"args", "torch"}:
        raise ValueError(lines.WRONG_VALUE(what="the settings", value=shown(told)))
    lay_args(told["args"], device)
    torch_settings.lay(told["torch"])


def read_args() -> dict:
    """ComfyUI's parsed settings, as JSON. What packs put there that has no plain form is left out."""
    plain = {}
    for name, value in vars(comfy.cli_args.args).items():
        if name in OWN or name in DEFAULTS:
            continue
        try:
            plain[name] = _to_plain(value)
        except NotPlain as error:
            log.debug("the setting %s stays here: it has no plain form (%s)", name, error)
    return plain


def lay_args(plain: dict, device: str) -> None:
    """Make what `read_args` gave this process's settings, for a worker on `device`. Raises ValueError."""
    if not isinstance(plain, dict):
        raise ValueError(lines.WRONG_VALUE(what="the settings", value=shown(plain)))
    args = comfy.cli_args.args
    own = {name: value for name, value in OWN.items() if hasattr(args, name)}
    told = {name: value for name, value in plain.items() if name not in (*OWN, *BY_DEVICE, *DEFAULTS)}
    for name, value in told.items():
        if not isinstance(name, str) or not name.isidentifier() or name.startswith("_"):
            raise ValueError(lines.WRONG_VALUE(what="a setting's name", value=shown(name)))
        try:
            setattr(args, name, _from_plain(value))
        except NotPlain as error:
            log.debug("the setting %s stays as it is: not known here (%s)", name, error)
    for name, value in own.items():
        setattr(args, name, value)
    args.cpu = device == "cpu"
    args.directml = plain.get("directml") if device.startswith("privateuseone") else None


def _to_plain(value: object) -> object:
    if isinstance(value, enum.Enum):
        return {"enum": type(value).__name__, "value": _to_plain(value.value)}
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) in (list, tuple):
        return [_to_plain(item) for item in value]
    if type(value) in (set, frozenset):
        # an item that is not plain is a pack's; the host asks only for its own
        items = [plain for item in value if (plain := _or_none(item)) is not None]
        return {"set": sorted(items, key=repr)}
    raise NotPlain(type(value).__name__)


def _or_none(item: object) -> object:
    try:
        return _to_plain(item)
    except NotPlain as error:
        log.debug("a part of a setting stays here: it has no plain form (%s)", error)
        return None


def _from_plain(value: object) -> object:
    match value:
        case {"enum": str(name), "value": of}:
            kind = vars(comfy.cli_args).get(name)
            if isinstance(kind, type) and issubclass(kind, enum.Enum) and of in [member.value for member in kind]:
                return kind(of)
            raise NotPlain(shown(value))
        case {"set": list(items)}:
            values = [_from_plain(item) for item in items]
            if all(isinstance(item, (bool, int, float, str, enum.Enum, type(None))) for item in values):
                return set(values)
        case list(items):
            return [_from_plain(item) for item in items]
        case None | bool() | int() | float() | str():
            return value
    raise NotPlain(shown(value))
