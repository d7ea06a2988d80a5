"""The words for why something is not shared, made in ComfyUI's own Python."""

from __future__ import annotations

import json
import subprocess

from .comfy_server import PACK, python_of

INSIDE = "a node runs code of its own inside the network"


def test_reasons_are_plain_words(comfyui_root):
    script = PACK / "tests" / "host" / "reasons.py"
    done = subprocess.run(
        [python_of(comfyui_root), str(script), str(comfyui_root)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-3000:]
    every = "every prompt has something that cannot be sent to another device:"
    hooks = "a LoRA or other change on the prompt (hooks)"
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "no key": f"{INSIDE} (on_pre_run)",
        "a class": f"{INSIDE} (on_pre_run)",
        "a pack's name": f"{INSIDE} (on_pre_run: their_pack)",
        "a name and none": f"{INSIDE} (on_pre_run: their_pack)",
        "one reason": f"{every} {hooks}",
        "two reasons": f"{every} {hooks}, a ControlNet with hooks",
        "three reasons": f"{every} GLIGEN boxes, {hooks}, a ControlNet on an area",
        "no reason": f"{every} a default prompt",
    }
