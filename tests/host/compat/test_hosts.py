"""ComfyUI's versions: this one, and others.

The others are those in the folders that HYBRIDIFF_OLDER_COMFYUI names (as PATH does); without it those beside this one
that can run (installed() in comfy_server.py).
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from ..comfy_server import PACK, Comfy, fault_of, find_comfyui, installed, make_models, version_of
from ..conftest import Bench
from ..test_exact import LIMIT, assert_shared
from ..test_stages import sampled, works

MISSING = "no other ComfyUI (HYBRIDIFF_OLDER_COMFYUI=/folder:/folder sh dev/test.sh --all)"
STAGE = {"steps": 8, "start_step": 5, "parallel_steps": 2}
UNET_SHOWN = (0, 20)  # the first version whose hook shows all of a U-Net's blocks
FAMILIES = {"sd3": "SD3", "sd15": "SD 1.5"}


def others() -> list[Path]:
    """The ComfyUIs of further rows."""
    if named := os.environ.get("HYBRIDIFF_OLDER_COMFYUI"):
        return [Path(folder) for folder in named.split(os.pathsep) if folder]
    if os.environ.get("COMFYUI_PYTHON"):  # made for one of them
        return []
    this = find_comfyui()
    return [root for root in installed() if this is not None and root != this and fault_of(root) is None]


OLDER = others()


def is_too_old(version: str) -> bool:
    spec = importlib.util.spec_from_file_location("hybridiff_root", PACK / "__init__.py")
    pack = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pack)
    try:
        pack.refuse_older(version)
    except RuntimeError:
        return True
    return False


@pytest.fixture
def start(comfyui_root, tmp_path):
    """Starts an older ComfyUI."""
    make_models(comfyui_root)
    servers = []

    def start(root: Path) -> Comfy:
        servers.append(Comfy(root, tmp_path / "base"))
        return servers[0]

    yield start
    for server in servers:
        server.stop()


def fill(row, comfy: Comfy, version: str) -> None:
    """A U-Net from a checkpoint and a transformer, exact and as a pipeline of two devices."""
    shows_unets = tuple(map(int, version.split(".")[:2])) >= UNET_SHOWN
    found, stages = [], []
    for family, name in FAMILIES.items():
        side = Bench(comfy, family, size=8)
        side.settings["steps"] = 3
        difference, report = side.compare()
        assert_shared(report)
        found.append((difference, report))
        staged, report = sampled(Bench(comfy, family, size=8), "pipeline", **STAGE)
        cuts = [line for line in report["lines"] if "the network cannot be divided" in line]
        assert bool(cuts) == (family == "sd15" and not shows_unets), report["lines"]
        if cuts:
            assert works(report) == ["exact"] * 8 and staged <= LIMIT
        else:
            assert works(report) == ["exact"] * 5 + ["alternating"] * 2 + ["exact"] and 0 < staged < 0.5
        stages.append(f"{name}: left out: {cuts[0]}" if cuts else f"{name}: on, {staged:.0e}")
    row.compared(*max(found, key=lambda pair: pair[0]))
    row.cell("stage", "; ".join(stages))


@pytest.mark.full
def test_this_version(comfy, comfyui_root, row):
    version = version_of(comfyui_root)
    row.of("Hosts", f"ComfyUI {version}")
    fill(row, comfy, version)


@pytest.mark.full
@pytest.mark.parametrize("root", OLDER or [None], ids=str)
def test_an_older_version(start, root, request):
    if root is None:
        pytest.skip(MISSING)
    row = request.getfixturevalue("row")
    version = version_of(root)
    row.of("Hosts", f"ComfyUI {version}")
    comfy = start(root)
    if not is_too_old(version):
        fill(row, comfy, version)
        return
    log = comfy.log.read_text()
    (line,) = [line for line in log.splitlines() if "Hybridiff needs ComfyUI" in line]
    assert f"or newer, and this is {version}; update ComfyUI" in line
    assert "hybridiff/__init__.py" not in log  # no traceback of ours
    assert not [name for name in comfy.get("/object_info") if name.startswith("Hybridiff")]
    row.left_out(line[line.index("Hybridiff needs ComfyUI") :])
