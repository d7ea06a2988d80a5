"""What a worker makes of recipes that are not what this pack writes, in ComfyUI's own Python."""

from __future__ import annotations

import json
import os
import subprocess

from .comfy_server import MODELS, PACK, make_models, python_of

COUNT = 4000


def test_a_changed_recipe_is_a_model_or_a_refusal(comfyui_root):
    make_models(comfyui_root)
    script = PACK / "tests" / "host" / "recipes.py"
    done = subprocess.run(
        [python_of(comfyui_root), str(script), str(comfyui_root), str(MODELS), str(COUNT)],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    came = json.loads(done.stdout.splitlines()[-1])
    assert sum(came.values()) == COUNT
    assert came["recipe made"] > COUNT / 20 and came["recipe ValueError"] > COUNT / 20, came
