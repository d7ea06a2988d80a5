"""The demo's trained weights, where they are: in the repository, not in what ComfyUI Manager installs."""

from __future__ import annotations

from pathlib import Path

import torch

from .sd3 import Decoder, SmallSD3

FOLDER = Path(__file__).resolve().parent.parent.parent / "training" / "weights"
NETWORK, AUTOENCODER = FOLDER / "emoji_dit.safetensors", FOLDER / "emoji_dit_vae.safetensors"
LATENT = (16, 16, 16)  # channels, height, width
SHIFT = 3.0


def is_here() -> bool:
    return NETWORK.is_file() and AUTOENCODER.is_file()


def network() -> SmallSD3:
    """The small SD3 transformer that draws emoji. Raises FileNotFoundError."""
    model = SmallSD3()
    model.load_state_dict(_weights(NETWORK))
    return model.eval()


def decoder() -> Decoder:
    """Latents of the network to pictures. Raises FileNotFoundError."""
    model = Decoder()
    names = {name: weight for name, weight in _weights(AUTOENCODER).items() if name.startswith("taesd_decoder.")}
    model.load_state_dict({name.removeprefix("taesd_decoder."): weight for name, weight in names.items()})
    return model.eval()


def sigmas(steps: int) -> torch.Tensor:
    """`steps` + 1 flow-matching times from 1 to 0, shifted as SD3's are."""
    t = torch.linspace(1, 0, steps + 1)
    return SHIFT * t / (1 + (SHIFT - 1) * t)


def _weights(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return {name: weight.float() for name, weight in load_file(path).items()}
