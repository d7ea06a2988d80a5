"""The script of a process that asks Ray which machines there are."""

import importlib.util
import sys
from pathlib import Path

if __name__ == "__main__":
    own = Path(__file__).resolve().parent
    if sys.path and Path(sys.path[0]).resolve() == own:  # not under -P, -I and ._pth files
        del sys.path[0]
    spec = importlib.util.spec_from_file_location(
        "hybridiff_core", own.parent / "__init__.py", submodule_search_locations=[str(own.parent)]
    )
    sys.modules["hybridiff_core"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["hybridiff_core"])

    from hybridiff_core.remote.watching import serve

    serve()
