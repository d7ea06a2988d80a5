"""Networks that a node changed behind the patcher's back: never shared wrongly (hybridiff_core/handshake.py)."""

import pytest

from ..tiers import full_but
from .comfy_server import Comfy, make_models

HOWS = [
    "class of a block",
    "class of the network",
    "part of a block",
    "method of a class",
    "attention of a module",
    "weights",
]


@pytest.fixture(scope="module")
def comfy(comfyui_root, tmp_path_factory):
    """A server of this file's own: what is changed is changed for all that use it."""
    make_models(comfyui_root)
    server = Comfy(comfyui_root, tmp_path_factory.mktemp("handshake") / "base")
    yield server
    server.stop()


def compare(bench, how: str) -> tuple[float, dict]:
    side = bench("sd3")
    side.model = side.graph.add("TestSilentChange", model=side.model, how=how)
    return side.compare()


@pytest.mark.parametrize("how", full_but(HOWS, "class of a block", "weights"))
def test_a_changed_network_is_noticed_whether_it_is_new_or_known(bench, how):
    for _ in range(2):
        compare(bench, "none")
        off, report = compare(bench, "none")
        assert off <= 1e-5 and not report["lines"] and report["shared_calls"] == report["calls"]
        off, report = compare(bench, how)
        assert off <= 1e-5
        assert report["shared_calls"] == 0 and "another picture" in report["lines"][0]
