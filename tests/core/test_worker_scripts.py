"""The scripts that workers run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PACK = Path(__file__).resolve().parents[2]
SCRIPTS = ("nodes/host/worker.py", "hybridiff_core/demo/demo_worker.py")
TELL = "import atexit, sys\natexit.register(lambda: print('PATH', sys.path, file=sys.stderr))\n"


def path_after(script, tmp_path, *flags):
    """sys.path in a worker at its end; PYTHONPATH is `tmp_path`."""
    (tmp_path / "sitecustomize.py").write_text(TELL)
    done = subprocess.run(
        [sys.executable, *flags, PACK / script], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("PATH")]
    return line


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_scripts_own_folder_is_not_on_its_path_and_all_else_is(script, tmp_path):
    own = f"'{(PACK / script).parent}'"
    flags = [()] if sys.version_info < (3, 11) else [(), ("-P",)]
    for given in flags:  # with -P, Python does not put it there
        path = path_after(script, tmp_path, *given)
        assert own not in path and f"'{tmp_path}'" in path
