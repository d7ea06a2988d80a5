"""The script that a worker process beside ComfyUI runs, by its path.

It sees the pack as a package of a neutral name, with ComfyUI's own `nodes` module unshadowed:
neither this folder nor the pack's root is on sys.path.
"""

import sys
import types
from pathlib import Path


def register_pack() -> None:
    """Make the pack importable as `hybridiff_pack`, without running its __init__.py."""
    root = Path(__file__).resolve().parent.parent.parent
    for name, folder in (("hybridiff_pack", root), ("hybridiff_pack.nodes", root / "nodes")):
        package = sys.modules[name] = types.ModuleType(name)
        package.__path__ = [str(folder)]


def enter(script: str = __file__) -> str:
    """Register the pack in a process that runs `script`, and take the script's own folder off sys.path.

    Returns the name by which the engine is imported.
    """
    if sys.path and Path(sys.path[0]).resolve() == Path(script).resolve().parent:  # not under -P, -I and ._pth files
        del sys.path[0]
    register_pack()
    return "hybridiff_pack.hybridiff_core"


def make_backend(start: dict):
    """ComfyUI's model, in a process that is ComfyUI itself from here on."""
    from hybridiff_pack.nodes.host.headless import enter as enter_comfyui

    remarks = enter_comfyui(start)
    from hybridiff_pack.nodes.host.backend import ComfyBackend

    return ComfyBackend(start, remarks)


if __name__ == "__main__":
    enter()

    from hybridiff_pack.hybridiff_core.workers.worker import serve

    serve(make_backend)
