"""The script that a worker process beside a diffusers pipeline runs, by its path."""

import importlib.util
import sys
from pathlib import Path


def enter() -> str:
    """Make the engine importable without its folder on sys.path; returns its name."""
    own = Path(__file__).resolve().parent
    if sys.path and Path(sys.path[0]).resolve() == own:  # not under -P, -I and ._pth files
        del sys.path[0]
    spec = importlib.util.spec_from_file_location(
        "hybridiff_core", own.parent / "__init__.py", submodule_search_locations=[str(own.parent)]
    )
    sys.modules["hybridiff_core"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["hybridiff_core"])
    return "hybridiff_core"


def make_backend(start: dict):
    from hybridiff_core.diffusers.diffusers_backend import DiffusersBackend

    return DiffusersBackend(start)


if __name__ == "__main__":
    enter()

    from hybridiff_core.workers.worker import serve

    serve(make_backend)
