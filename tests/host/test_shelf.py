"""Where a worker puts files that another machine sends, in ComfyUI's own Python."""

from __future__ import annotations

import json
import os
import re
import subprocess

from .comfy_server import PACK, python_of

SENT = re.compile(r"hybridiff/sent-[0-9a-f]{12}-\w+\.safetensors")


def test_what_comes_is_checked_and_nothing_is_written_over(comfyui_root, tmp_path):
    done = subprocess.run(
        [python_of(comfyui_root), str(PACK / "tests" / "host" / "shelves.py"), str(comfyui_root), str(tmp_path)],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for case in ("changed on the way", "too much", "too little"):
        assert found[case]["told"] == {"refused": "a file did not arrive at pc-b as it was sent"}, case
    assert found["no room"]["told"]["refused"].startswith("pc-b has no room for a file of 0.00 GB")
    for case in ("a folder", "a size", "a digest"):
        assert "a model's file" in found[case]["told"]["error"], case
    for case in list(found)[:7]:
        assert found[case]["lie"] == ["mine.safetensors"], case
    kept, own = found["right"]["lie"]
    assert SENT.fullmatch(kept) and own == "mine.safetensors" and found["right"]["same"] == [kept]
    assert found["right"]["told"] == {"place": f"checkpoints/{kept}"}
    assert found["there"] == {"there": True}
    assert len(found["again"]["same"]) == 2 and kept in found["again"]["lie"]  # beside it, never over it
