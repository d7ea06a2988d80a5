"""For worker scripts that are run by their path, from this folder: the core without the pack around it."""

import importlib.util
import sys
from pathlib import Path


def register() -> None:
    """Make the core importable as `hybridiff_core`."""
    core = Path(__file__).resolve().parents[2] / "hybridiff_core"
    spec = importlib.util.spec_from_file_location(
        "hybridiff_core", core / "__init__.py", submodule_search_locations=[str(core)]
    )
    sys.modules["hybridiff_core"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["hybridiff_core"])
