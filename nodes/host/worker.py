"""The script that a worker process beside ComfyUI runs, by its path.

It sees the pack as a package of a neutral name, with ComfyUI's own `nodes` module unshadowed:
neither this folder nor the pack's root is on sys.path.
"""

import sys
import types
from pathlib import Path


def _register(name: str, folder: Path) -> None:
    """Make `folder` importable as `name` without running its __init__.py."""
    package = types.ModuleType(name)
    package.__path__ = [str(folder)]
    sys.modules[name] = package


if __name__ == "__main__":
    own = Path(__file__).resolve().parent
    if sys.path and Path(sys.path[0]).resolve() == own:  # not under -P, -I and ._pth files
        del sys.path[0]
    root = Path(__file__).resolve().parent.parent.parent
    _register("hybridiff_pack", root)
    _register("hybridiff_pack.nodes", root / "nodes")

    from hybridiff_pack.hybridiff_core.workers.worker import serve

    def make_backend(start: dict):
        from hybridiff_pack.nodes.host.headless import enter

        remarks = enter(start)
        from hybridiff_pack.nodes.host.backend import ComfyBackend

        return ComfyBackend(start, remarks)

    serve(make_backend)
