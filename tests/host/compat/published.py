"""Other packs as their authors published them: HYBRIDIFF_PACKS names the folder that holds them, each by its own name.

Where one is not there its rows are skipped; nothing of them is in this repository. What they need of Python is
installed for COMFYUI_PYTHON.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ..comfy_server import MODELS, PACK, Comfy, make_controls, make_models, python_of

FOLDER = os.environ.get("HYBRIDIFF_PACKS")
STAND_INS = PACK / "tests" / "host" / "stand_ins"
MISSING = "no {pack} (HYBRIDIFF_PACKS=/folder/of/packs sh dev/test.sh --all)"
NAMES = (
    "ComfyUI-GGUF", "ComfyUI-KJNodes", "ComfyUI_IPAdapter_plus", "ComfyUI-Advanced-ControlNet", "ComfyUI-TeaCache",
    "Comfy-WaveSpeed", "RES4LYF", "sd-perturbed-attention", "ComfyUI-LTXVideo",
)  # fmt: skip


def present() -> list[Path]:
    """The folders of those that are here."""
    return [path for name in NAMES if FOLDER and (path := Path(FOLDER) / name).is_dir()]


def needs(pack: str) -> pytest.MarkDecorator:
    """Skips a test where the pack is not here."""
    absent = pack not in [path.name for path in present()]
    return pytest.mark.skipif(absent, reason=MISSING.format(pack=pack))


def start(root: Path, base: Path) -> Comfy:
    """A server with all of them, and with what stands in for kernels that need a GPU."""
    if not present():
        pytest.skip(MISSING.format(pack="other packs"))
    make_models(root)
    make_controls(root)
    make_ipadapter()
    ways = [str(STAND_INS), *filter(None, [os.environ.get("PYTHONPATH")])]
    return Comfy(root, base, packs=present(), PYTHONPATH=os.pathsep.join(ways))


def make_gguf(root: Path, model: str, architecture: str) -> None:
    """GGUF files of `model`, ARCHITECTURE_KIND.gguf, where they are not there yet."""
    folder = MODELS / "diffusion_models"
    if not (folder / f"{architecture}_Q4_0.gguf").is_file():  # the last that is made
        script = PACK / "tests" / "host" / "make_gguf.py"
        command = [python_of(root), str(script), str(folder / model), architecture, str(folder)]
        subprocess.run(command, check=True)


def make_ipadapter() -> None:
    """An IPAdapter in SD 1.5's layout for the tests' small picture encoder, of seeded random weights."""
    file = MODELS / "ipadapter" / "sd15_narrow.safetensors"
    if file.is_file():
        return
    generator = torch.Generator().manual_seed(4)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) / shape[-1] ** 0.5

    tensors = {
        "image_proj.proj.weight": random(4 * 768, 48), "image_proj.proj.bias": random(4 * 768),
        "image_proj.norm.weight": torch.ones(768), "image_proj.norm.bias": torch.zeros(768),
    }  # fmt: skip
    for number in range(1, 32, 2):
        tensors |= {f"ip_adapter.{number}.to_{part}_ip.weight": random(320, 768) for part in "kv"}
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, file)


def why_not_loaded(comfy: Comfy, pack: str) -> str:
    """What the host says of a pack that it could not import."""
    (line,) = [line for line in comfy.log.read_text(errors="replace").splitlines() if f"/{pack} module for" in line]
    return line.partition("custom nodes: ")[2].partition(" (/")[0]
