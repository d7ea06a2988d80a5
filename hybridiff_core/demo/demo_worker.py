"""The script that the demo's worker process runs, by its path."""

import importlib.util
import sys
from pathlib import Path

if __name__ == "__main__":
    own = Path(__file__).resolve().parent
    if sys.path and Path(sys.path[0]).resolve() == own:  # not under -P, -I and ._pth files
        del sys.path[0]
    core = Path(__file__).resolve().parent.parent
    spec = importlib.util.spec_from_file_location(
        "hybridiff_core", core / "__init__.py", submodule_search_locations=[str(core)]
    )
    sys.modules["hybridiff_core"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["hybridiff_core"])

    from hybridiff_core.demo.demo_backend import DemoBackend
    from hybridiff_core.workers.worker import serve

    serve(DemoBackend)
