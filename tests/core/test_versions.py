"""The oldest ComfyUI: one figure in all places, and a line for users of an older one."""

import importlib.util
import re
from pathlib import Path

import pytest

PACK = Path(__file__).resolve().parents[2]


def root():
    """The pack's root as a plain module, as pytest imports it."""
    spec = importlib.util.spec_from_file_location("hybridiff_root", PACK / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_place_names_the_same_oldest_comfyui():
    oldest = root().OLDEST_COMFYUI
    assert re.fullmatch(r"\d+\.\d+\.\d+", oldest)
    assert f'\nrequires-comfyui = ">={oldest}"\n' in (PACK / "pyproject.toml").read_text()
    assert f"\nComfyUI {oldest.removesuffix('.0')} or newer" in (PACK / "README.md").read_text()


@pytest.mark.parametrize("version", ["0.15.1", "0.3.76", "0.9.2"])
def test_an_older_one_is_refused_in_words(version):
    line = f"Hybridiff needs ComfyUI 0.16.0 or newer, and this is {version}; update ComfyUI"
    with pytest.raises(RuntimeError, match=f"^{re.escape(line)}$"):
        root().refuse_older(version)


@pytest.mark.parametrize("version", ["0.16.0", "0.16.4", "0.29.0", "0.100.0", "1.0.0", "0.30.0-rc1"])
def test_the_oldest_and_newer_ones_are_taken(version):
    root().refuse_older(version)
