"""Which models a worker keeps, in ComfyUI's own Python."""

from __future__ import annotations

import json
import os
import subprocess

from .comfy_server import MODELS, PACK, make_models, python_of


def test_models_in_turn_are_kept_as_memory_allows(comfyui_root):
    make_models(comfyui_root)
    script = PACK / "tests" / "host" / "kitchens.py"
    done = subprocess.run(
        [python_of(comfyui_root), str(script), str(comfyui_root), str(MODELS)],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    first = [True, True, False, False, False, False]
    assert found["files"] == {"anew": first, "living": 2, "after": 0}
    assert found["weights"] == {"anew": first, "living": 2, "after": 0}
    assert found["no memory"] == {"anew": [True] * 4, "living": 1, "after": 0}
    # in turn with the larger, the smaller finds room beside it, and the larger does not
    assert found["memory for the smaller"] == {"anew": [True, True, False, False], "living": 2, "after": 0}
    assert found["more than are kept"]["living"] == found["more than are kept"]["kept"] == 4
