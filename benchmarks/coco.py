"""How close the modes' pictures are to one device's, on COCO's captions: FID, LPIPS, PSNR, as in the paper's Table 1.

    python benchmarks/coco.py --captions captions_val2014.json --images val2014 --checkpoint sd_xl_base_1.0.safetensors
        --out FOLDER [--count 5000] [--steps 50] [--cfg 5] [--sampler ddim] [--size 1024] [--modes exact predict]
        [--json FILE]

Pictures that are in FOLDER already are not made again, so a run that was stopped continues where it was. FID and
LPIPS need `pip install torchmetrics[image]` in ComfyUI's Python. With --demo the small trained model of training/
draws in place of the checkpoint's, from names of emoji.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import time
from pathlib import Path

PACK = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PACK))
from benchmarks.block import Column, heading, keep, table  # noqa: E402
from benchmarks.inside import enter_comfyui  # noqa: E402
from tests.host.comfy_server import find_comfyui, python_of  # noqa: E402

SEED = 0
STOCK = "stock"
PLANS = {
    "exact": {"mode": "exact"},
    "auto": {},
    "predict": {"mode": "predict"},
    "pipeline": {"mode": "pipeline"},
    "paper": {"mode": "paper", "preset": "SDXL (paper)"},
}
INSTALL = "pip install torchmetrics[image]"
# the paper's own: two RTX 3090, 1024 pixels, 50 steps; latency, FID, LPIPS and PSNR against one device's pictures
PUBLISHED = [
    {"what": "the paper's, SDXL, k=5", "fid_stock": 4.100, "lpips": 0.107, "psnr": 26.64, "speed_up": 2.31},
    {"what": "the paper's, SD3, k=5", "fid_stock": 1.878, "lpips": 0.046, "psnr": 27.88, "speed_up": 2.07},
]


def number(key: str, digits: int):
    return lambda row: "-" if row.get(key) is None else f"{row[key]:.{digits}f}"


COLUMNS: list[Column] = [
    ("pictures of", lambda row: row["what"]),
    ("number", lambda row: row.get("count", "-")),
    ("s a picture", number("seconds", 2)),
    ("speed-up", number("speed_up", 2)),
    ("FID to COCO", number("fid_coco", 3)),
    ("FID to stock", number("fid_stock", 3)),
    ("LPIPS", number("lpips", 4)),
    ("PSNR, dB", number("psnr", 2)),
    ("SSIM", number("ssim", 4)),
]


def render(block: dict) -> str:
    """The Markdown of a kept block, with the paper's figures below ours."""
    rows = [row for row in block["rows"] if "what" in row]
    notes = [row["line"] for row in block["rows"] if "line" in row]
    return "\n\n".join([block["heading"], table([*rows, *PUBLISHED], COLUMNS), *notes])


def captions(path: Path, count: int) -> list[tuple[int, str, str]]:
    """Number, caption and picture's file of so many of COCO's pictures, each with its first caption; chosen by SEED."""
    told = json.loads(path.read_text())
    files = {image["id"]: image["file_name"] for image in told["images"]}
    first: dict[int, str] = {}
    for annotation in sorted(told["annotations"], key=lambda annotation: annotation["id"]):
        first.setdefault(annotation["image_id"], annotation["caption"].strip())
    chosen = sorted(number for number in first if number in files)
    random.Random(SEED).shuffle(chosen)
    return [(number, first[number], files[number]) for number in chosen[:count]]


class Painter:
    """Draws captions: the checkpoint's model, text encoder and VAE, or the demo's."""

    def __init__(self, options: argparse.Namespace):
        import folder_paths
        import nodes

        self.options, self.nodes = options, nodes
        if options.demo:
            from hybridiff_pack.hybridiff_core.demo import trained
            from hybridiff_pack.hybridiff_core.demo.text import conditioning

            for kind in ("diffusion_models", "vae"):
                folder_paths.add_model_folder_path(kind, str(trained.FOLDER))
            self.model = nodes.UNETLoader().load_unet(trained.NETWORK.name, "default")[0]
            self.vae = nodes.VAELoader().load_vae(trained.AUTOENCODER.name)[0]
            self.words = conditioning
        else:
            self.model, clip, self.vae = nodes.CheckpointLoaderSimple().load_checkpoint(options.checkpoint)[:3]
            self.words = lambda caption: nodes.CLIPTextEncode().encode(clip, caption)[0]
        self.empty = self.words("")

    def draw(self, model, caption: str, seed: int):
        """A picture [height, width, 3] in 0 to 1, and the sampler's seconds."""
        import torch

        # the host gives an empty latent the model's channels
        side, options = self.options.size // 8, self.options
        given = self.words(caption), self.empty, {"samples": torch.zeros(1, 4, side, side)}
        since = time.perf_counter()
        (latent,) = self.nodes.common_ksampler(
            model, seed, options.steps, options.cfg, options.sampler, options.scheduler, *given
        )
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - since
        return self.vae.decode(latent["samples"])[0].clamp(0, 1), seconds


def settle(options: argparse.Namespace) -> None:
    """Refuse a folder whose pictures were made with other settings."""
    names = ("checkpoint", "demo", "steps", "cfg", "sampler", "scheduler", "size")
    now, path = {name: getattr(options, name) for name in names}, options.out / "settings.json"
    before = json.loads(path.read_text()) if path.exists() else now
    if before != now:
        other = ", ".join(f"{name} {before[name]}" for name in names if before[name] != now[name])
        sys.exit(f"the pictures in {options.out} were made with {other}; choose another folder for --out")
    options.out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(now))


def draw_all(options: argparse.Namespace, chosen: list, host) -> dict[str, list[float]]:
    """Make the pictures that are not there; the seconds of all, by mode."""
    from hybridiff_pack.hybridiff_core.plan import HybridPlan
    from PIL import Image

    settle(options)
    painter, made = None, {}
    for mode in (STOCK, *options.modes):
        folder = options.out / mode
        folder.mkdir(parents=True, exist_ok=True)
        times = folder / "seconds.json"
        made[mode] = json.loads(times.read_text()) if times.exists() else []
        left = [(number, caption) for number, caption, _ in chosen if not (folder / f"{number}.png").exists()]
        if not left:
            continue
        painter = painter or Painter(options)
        model, acceleration = painter.model, None
        if mode != STOCK:
            acceleration = host.acceleration.Acceleration(HybridPlan(**PLANS[mode]), tuple(options.devices))
            model = acceleration.apply(model)
        painter.draw(model, left[0][1], left[0][0])  # loads and starts what there is
        if acceleration and not acceleration.report.shared_steps:
            sys.exit(f"{mode} is not shared here: {'; '.join(acceleration.report.lines)}")
        for done, (number, caption) in enumerate(left, 1):
            picture, seconds = painter.draw(model, caption, number)
            made[mode].append(seconds)
            pixels = (picture * 255).round().byte().cpu().numpy()
            part = folder / f"{number}.part"
            Image.fromarray(pixels).save(part, "png")
            part.replace(folder / f"{number}.png")
            times.write_text(json.dumps(made[mode]))
            print(f"{mode}: {done} of {len(left)}, {seconds:.2f} s", file=sys.stderr, flush=True)
    return made


def pixels(path: Path, size: int | None = None):
    """[1, 3, height, width] bytes; scaled to a square of `size`."""
    import numpy as np
    import torch
    from PIL import Image

    picture = Image.open(path).convert("RGB")
    if size:
        picture = picture.resize((size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(picture)).movedim(-1, 0)[None]


def ssim(one, other) -> float:
    """Structural similarity (Wang et al. 2004), Gaussian windows of 11 and 1.5, of pictures in 0 to 1."""
    import torch
    from torch.nn.functional import conv2d

    place = torch.arange(11.0, dtype=one.dtype) - 5
    line = torch.exp(-(place**2) / (2 * 1.5**2))
    window = torch.outer(line, line) / line.sum() ** 2

    def mean(x):
        return conv2d(x.movedim(1, 0), window[None, None])

    a, b = mean(one), mean(other)
    va, vb, both = mean(one * one) - a * a, mean(other * other) - b * b, mean(one * other) - a * b
    return (((2 * a * b + 1e-4) * (2 * both + 9e-4)) / ((a * a + b * b + 1e-4) * (va + vb + 9e-4))).mean().item()


class Judges:
    """FID and LPIPS where they are available; `lines` says why not."""

    def __init__(self, device):
        self.device, self.lines = device, []
        self.fid = self._had("FID", "torchmetrics.image.fid", "FrechetInceptionDistance", normalize=False)
        perceptual = "LearnedPerceptualImagePatchSimilarity"
        self.lpips = self._had("LPIPS", "torchmetrics.image.lpip", perceptual, normalize=True)

    def _had(self, title: str, module: str, name: str, **how):
        import importlib

        try:
            made = getattr(importlib.import_module(module), name)(**how).to(self.device)
        except ImportError:  # torchmetrics, or what it needs for this metric
            self.lines.append(f"{title} is left out: in ComfyUI's Python, run `{INSTALL}`.")
        except OSError as error:
            self.lines.append(f"{title} is left out: its network's weights cannot be downloaded ({error}).")
        else:
            return made
        return None

    def distance(self, real: list[Path], made: list[Path], size: int) -> float | None:
        if self.fid is None or min(len(real), len(made)) < 2:
            return None
        self.fid.reset()
        for paths, are_real in ((real, True), (made, False)):
            for path in paths:
                self.fid.update(pixels(path, size).to(self.device), real=are_real)
        return self.fid.compute().item()


def compare(options: argparse.Namespace, chosen: list, made: dict[str, list[float]]) -> list[dict]:
    """A row for each mode, and lines for what must be said."""
    import statistics

    import torch

    judges = Judges(torch.device("cuda" if torch.cuda.is_available() and options.device == "cuda" else "cpu"))
    real = [options.images / file for _, _, file in chosen] if options.images else []
    stocks = [options.out / STOCK / f"{number}.png" for number, _, _ in chosen]
    usual = statistics.median(made[STOCK]) if made[STOCK] else None
    rows = []
    for mode in (STOCK, *options.modes):
        paths = [options.out / mode / f"{number}.png" for number, _, _ in chosen]
        row = {"what": mode, "count": len(paths), "fid_coco": judges.distance(real, paths, options.size)}
        row["seconds"] = statistics.median(made[mode]) if made[mode] else None
        if mode != STOCK:
            row["speed_up"] = usual / row["seconds"] if usual and row["seconds"] else None
            row["fid_stock"] = judges.distance(stocks, paths, options.size)
            found = []
            for stock, path in zip(stocks, paths):
                one, other = (pixels(file).float() / 255 for file in (stock, path))
                error = (one - other).square().mean().item()
                # pictures that are the same, bit for bit, count as 100 dB
                psnr = min(-10 * math.log10(error), 100.0) if error else 100.0
                lpips = judges.lpips(one.to(judges.device), other.to(judges.device)).item() if judges.lpips else None
                found.append((psnr, ssim(one, other), lpips))
            for key, values in zip(("psnr", "ssim", "lpips"), zip(*found)):
                row[key] = None if None in values else statistics.mean(values)
        rows.append(row)
    return [*rows, *({"line": line} for line in judges.lines)]


def measure(options: argparse.Namespace, root: Path) -> None:
    host = enter_comfyui(root, cpu=options.device == "cpu")
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no CUDA GPU is to be had by ComfyUI's torch here; add --device cpu to draw without one")
    chosen = captions(options.captions, options.count)
    with torch.inference_mode():
        made = draw_all(options, chosen, host)
        host.leases.pool().close()
        rows = compare(options, chosen, made)
    keep(options.json, rows, SEED)
    print(render({"heading": heading(SEED), "rows": rows}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--captions", type=Path, required=True, help="COCO's annotations, captions_val2014.json")
    parser.add_argument("--images", type=Path, help="the folder of COCO's pictures; without it no FID to them")
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--checkpoint", help="as CheckpointLoaderSimple names it")
    model.add_argument("--demo", action="store_true", help="the small trained model of training/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--cfg", type=float, default=5.0)
    parser.add_argument("--sampler", default="ddim")
    parser.add_argument("--scheduler", default="ddim_uniform")
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--modes", nargs="+", default=list(PLANS), choices=list(PLANS))
    parser.add_argument("--devices", nargs="+", default=["auto"], help="as the Devices node names them")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    root = find_comfyui()
    if root is None:
        sys.exit("no ComfyUI is to be found; set COMFYUI_PATH")
    if os.environ.get("HYBRIDIFF_BENCHMARK") != "inside":
        command = [python_of(root), __file__, *sys.argv[1:]]
        sys.exit(subprocess.run(command, env={**os.environ, "HYBRIDIFF_BENCHMARK": "inside"}).returncode)
    measure(options, root)


if __name__ == "__main__":
    main()
