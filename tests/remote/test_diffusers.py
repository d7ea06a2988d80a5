"""diffusers' pipelines with another machine's device: two machines that are both this one."""

from __future__ import annotations

import importlib.util
import json
import sys

import pytest

from .network import cluster

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (pip install ray)"),
    pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="no diffusers (pip install diffusers)"),
    pytest.mark.skipif(sys.platform != "linux", reason="addresses as 127.0.0.2 are Linux's"),
]


def test_a_pipeline_is_shared_with_another_machine():
    with cluster(None, port=7199) as (here, *_):
        run = here.start("tests/remote/in_diffusers.py")
        run.wait_for("ready", 120)

        def ask(**case) -> dict:
            printed = len(run.printed)
            run.say(json.dumps(case))
            return json.loads(run.wait_for("told {", 180, printed).removeprefix("told "))

        for name in ("sdxl", "sd3"):
            found = ask(name=name)
            assert found["off"] <= 1e-5 and found["shared"] == found["steps"] and not found["lines"], found
            assert found["devices"][1] == "pc-b: cpu" and not found["ray"]
        found = ask(name="sd3", guidance_scale=1.0)  # one branch is not divided between machines
        assert found["off"] <= 1e-5 and found["shared"] == 0
        found = ask(name="sd3", mode="pipeline")  # nor is a network cut
        assert found["off"] <= 1e-5 and any("divided only within one machine" in line for line in found["lines"]), found
        run.process.stdin.close()
        run.wait_for("over", 30)
