"""Draw captions with the trained files, through ComfyUI's own nodes. Run by ComfyUI's own Python.

python training/check.py COMFYUI_ROOT WEIGHTS GRID_FOLDER

Loads with UNETLoader, VAELoader and CheckpointLoaderSimple, samples with KSampler and decodes with VAEDecode; writes
a grid per model with the captions, in order, next to it.
"""

import argparse
import time
from pathlib import Path

import torch
from data import load, place, sheet
from host import use_comfyui
from text import conditioning
from torch.nn.functional import interpolate
from train import SIDE

SHOWN = [
    "red heart", "blue heart", "cat", "dog face", "pizza", "rocket", "red apple", "green apple",
    "sun with face", "grinning face", "smiling face with sunglasses", "ghost", "frog", "panda", "penguin", "unicorn",
    "rose", "sunflower", "evergreen tree", "cactus", "strawberry", "banana", "hamburger", "birthday cake",
    "airplane", "sailboat", "rainbow", "umbrella", "guitar", "octopus", "butterfly", "snowman",
]  # fmt: skip


def load_models(weights: Path) -> dict:
    """Model and autoencoder of each kind, as the host's loader nodes give them."""
    import folder_paths
    import nodes

    for kind in ("diffusion_models", "vae", "checkpoints"):
        folder_paths.add_model_folder_path(kind, str(weights.resolve()))
    loaded = {}
    if (weights / "emoji_dit.safetensors").exists():
        model = nodes.UNETLoader().load_unet("emoji_dit.safetensors", "default")[0]
        loaded["dit"] = model, nodes.VAELoader().load_vae("emoji_dit_vae.safetensors")[0], (16, SIDE["dit"] // 8)
    if (weights / "emoji_unet.safetensors").exists():
        model, _, vae = nodes.CheckpointLoaderSimple().load_checkpoint("emoji_unet.safetensors")[:3]
        loaded["unet"] = model, vae, (4, SIDE["unet"] // 8)
    return loaded


def draw(loaded: tuple, caption: str, seed: int, steps: int, cfg: float) -> torch.Tensor:
    """One picture (3, h, w)."""
    import nodes

    model, vae, (channels, side) = loaded
    empty = {"samples": torch.zeros(1, channels, side, side)}
    pair = conditioning(caption), conditioning("")
    (latent,) = nodes.KSampler().sample(model, seed, steps, cfg, "euler", "normal", *pair, empty)
    return nodes.VAEDecode().decode(vae, latent)[0][0].movedim(-1, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("root", help="the ComfyUI checkout")
    parser.add_argument("weights", type=Path)
    parser.add_argument("grids", type=Path)
    parser.add_argument("--models", nargs="+", default=["dit", "unet"])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cfg", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=32, help="how many of the 32 shown captions; a multiple of 8")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    use_comfyui(args.root, args.threads)
    import comfy.utils

    comfy.utils.set_progress_bar_enabled(False)
    pictures, held_out = load()
    groups = {"": SHOWN[: args.count], "_held_out": list(held_out)[: args.count]}
    args.grids.mkdir(parents=True, exist_ok=True)
    for name, loaded in load_models(args.weights).items():
        if name not in args.models:
            continue
        for suffix, captions in groups.items():
            start = time.monotonic()
            drawn = torch.stack(
                [draw(loaded, caption, args.seed + i, args.steps, args.cfg) for i, caption in enumerate(captions)]
            )
            true = torch.stack([place((pictures | held_out)[caption], 0.96, 0, 0) for caption in captions])
            true = interpolate(true, size=drawn.shape[2:], mode="bilinear", antialias=True)
            print(f"{name}{suffix}: {len(captions)} pictures in {time.monotonic() - start:.0f} s", flush=True)
            rows = torch.stack([true, drawn.clamp(0, 1)]).unflatten(1, (-1, 8)).transpose(0, 1).flatten(0, 2)
            sheet(rows, 8).save(args.grids / f"{name}{suffix}.png")
            (args.grids / f"{name}{suffix}.txt").write_text(
                "Rows in pairs: the font's picture, then the model's.\n"
                + "".join(", ".join(captions[i : i + 8]) + "\n" for i in range(0, len(captions), 8))
            )


if __name__ == "__main__":
    main()
