"""`python -m hybridiff_core`; or the folder as a script, where Python does not look into the working folder."""

import sys

if __package__:
    from .cli import main
else:  # ComfyUI's portable Python takes modules from fixed folders alone
    import importlib.util
    from pathlib import Path

    core = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != core]
    spec = importlib.util.spec_from_file_location(
        "hybridiff_core", core / "__init__.py", submodule_search_locations=[str(core)]
    )
    sys.modules["hybridiff_core"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["hybridiff_core"])

    from hybridiff_core.cli import main

sys.exit(main())
