"""What ComfyUI Manager installs: the repository's files without those that .comfyignore names, and no others."""

from __future__ import annotations

import shutil
import subprocess
import zipfile

import pytest

from .comfy_server import PACK, Comfy
from .conftest import Bench
from .test_exact import LIMIT, assert_shared
from .test_schema import GOLDEN

LEFT_OUT = (
    "tests", "benchmarks", "training", "dev", "docs", "assets", ".ci", ".github", ".cache", "CONTRIBUTING.md",
)  # fmt: skip


def published() -> list[str]:
    """As the registry's tool packs it: what git knows, without what .comfyignore names (folders and files)."""
    known = subprocess.run(["git", "ls-files"], cwd=PACK, capture_output=True, text=True, check=True).stdout.split("\n")
    ignored = [line.strip() for line in (PACK / ".comfyignore").read_text().splitlines() if line.strip()]
    # as in .gitignore a name that does not begin with / would be left out of every folder, web/docs with docs
    assert not [line for line in ignored if "*" in line or line[0] != "/"], "more than names: pack by pathspec"
    rules = [line.strip("/") for line in ignored]
    kept = [name for name in known if name and (PACK / name).exists()]
    return [name for name in kept if not any(name == rule or name.startswith(f"{rule}/") for rule in rules)]


def test_it_is_small_and_has_nothing_of_ours_alone():
    names = published()
    assert not [name for name in names if name.split("/")[0] in LEFT_OUT]
    assert sum((PACK / name).stat().st_size for name in names) < 3e6
    assert {"__init__.py", "pyproject.toml", "requirements.txt", "LICENSE", "README.md"} <= set(names)
    assert "web/docs/HybridiffKSampler.md" in names


@pytest.fixture(scope="module")
def installed(comfyui_root, comfy, tmp_path_factory):  # `comfy` makes the models
    folder = tmp_path_factory.mktemp("published")
    with zipfile.ZipFile(folder / "node.zip", "w") as packed:
        for name in published():
            packed.write(PACK / name, name)
    with zipfile.ZipFile(folder / "node.zip") as packed:
        packed.extractall(folder / "pack")
    server = Comfy(comfyui_root, folder / "base", pack=folder / "pack")
    yield server
    server.stop()
    shutil.rmtree(folder / "pack")


def test_the_installed_pack_has_its_nodes_pages_and_workflows(installed):
    infos = installed.get("/object_info")
    assert {name for name in infos if name.startswith("Hybridiff")} == set(GOLDEN)
    templates = installed.get("/workflow_templates")
    assert set(templates["hybridiff"]) == {path.stem for path in (PACK / "workflows").glob("*.json")}
    assert [path for path in installed.get("/extensions") if "hybridiff/" in path]
    assert "IMPORT FAILED" not in installed.log.read_text()


def test_the_installed_pack_samples_on_two_devices(installed):
    difference, report = Bench(installed, "sd3").compare()
    assert difference <= LIMIT
    assert_shared(report)
