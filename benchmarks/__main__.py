"""Measure everything, and write docs/BENCHMARKS.md and docs/benchmarks/ from what was measured.

    python -m benchmarks [--only PART ...] [--unet FOLDER] [--prompts 64] [--render]

Hours on two cores; what quality.py has measured already is kept. --render writes the pages from the blocks in
benchmarks/results. The U-Net is not in the repository: FOLDER is where training/ put it. gpu needs a GPU.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from tests.remote.network import can_be_made

from . import (
    about,
    by_graph,
    choice,
    curve,
    dividing,
    false_alarms,
    findings,
    gpu_rows,
    gpu_token_rows,
    messages,
    places,
    projection,
    quality,
    remote,
    samplings,
    speed,
    stages,
    start,
    template_rows,
)
from . import bytes as crossing
from .block import RESULTS, kept

PACK = Path(__file__).resolve().parents[1]
# a block's rows, as they are named
QUALITIES = {"dit": "dit", "unet": "unet", "unet_held_out": "unet, held out", "unet_earlier": "unet, earlier training"}
PREDICTED = "What one predicted step costs"
EVERY, ON_A_TRAINED, ON_SVD = "Every sampling", "Samplings: a trained network", "Samplings: SVD's own class"
NEAR, HELD_OUT = "How near devices are", "U-Net, held-out captions"
IDEALS = ["--networks", "mixture", "random"]
AT_5 = ["--samplers", "euler", "--cfg", "5", "--steps", "12", "20"]
OF_TRAINED = [
    "--networks", "trained", "--samplings", "EPS", "v, zero-SNR", "EDM 120", "EDM 700", "SD3", "Flux",
    "--schedulers", "simple", "karras", "exponential", "--steps", "12", "20", "--samplers", "euler",
]  # fmt: skip
OF_SVD = [
    "--networks", "SVD", "--schedulers", "karras", "normal", "exponential", "--samplers", "euler", "--cfg", "2.5",
    "--steps", "12", "20",
]  # fmt: skip
ONLY = [
    "speed",
    "dividing",
    "stages",
    "bytes",
    "messages",
    "start",
    "false_alarms",
    "by_graph",
    "remote",
    "samplings",
    "places",
    "templates",
    "dit",
    "unet",
    "gpu",
]
# what these have in common: how they are written, and on which page
SAMPLED, PLACED, OF_UNET = (
    (samplings.render, "samplings"),
    (places.render, "samplings"),
    (quality.render, "quality_unet"),
)
DOCUMENT = PACK / "docs" / "BENCHMARKS.md"
TABLES = PACK / "docs" / "benchmarks"
CURVES, CURVES_CFG = TABLES / "discrepancy.png", 5.0


class Part(NamedTuple):
    """One block: how it is measured, and how it is written."""

    name: str
    command: list[str]
    render: Callable[[dict], str]
    page: str
    title: str
    about: str = ""


def parts(unet: Path, prompts: int) -> list[Part]:
    held_out = ["--only", "auto", "--skip", "64", "--prompts", "32", "--models", "unet"]
    dit, survey = PACK / "training" / "weights", ["--prompts", str(prompts), "--models"]
    return [
        Part("speed", ["speed.py"], speed.render, "speed", "Speed, compared with ComfyUI's own split", about.SPEED),
        Part("dividing", ["dividing.py"], dividing.render, "speed", "By images and by tokens", about.DIVIDING),
        Part("stages", ["stages.py"], stages.render, "speed", "Speed against the bound, by mode and k", about.STAGES),
        Part("bytes", ["bytes.py"], crossing.render, "speed", "Bytes between two devices", about.BYTES),
        Part("messages", ["messages.py"], messages.render, "workers", "Messages to a worker and back", about.MESSAGES),
        Part("start", ["start.py"], start.render, "workers", "The first run of a fresh ComfyUI", about.START),
        Part("false_alarms", ["false_alarms.py"], false_alarms.render, "workers", NEAR, about.FALSE_ALARMS),
        Part("by_graph", ["by_graph.py"], by_graph.render, "workers", "A model that packs made", about.BY_GRAPH),
        Part("remote", ["remote.py"], remote.render, "workers", "A device of another machine", about.REMOTE),
        Part("remote_picture", [], remote.render, "workers", "A picture by two machines", about.REMOTE_PICTURE),
        Part("templates", ["templates.py"], template_rows.render, "templates", "How they are shared", about.TEMPLATES),
        Part("templates_newer", [], template_rows.render, "templates", "Newer templates", about.NEWER),
        Part("gpu", ["gpu.py"], gpu_rows.render, "gpu", "On a GPU", about.GPU),
        Part("gpu_sdxl", [], gpu_rows.render, "gpu", "On a GPU: SDXL with more repeats", about.GPU_SDXL),
        Part("gpu_tokens", ["gpu_tokens.py"], gpu_token_rows.render, "gpu", "On a GPU: by tokens", about.GPU_TOKENS),
        Part("samplings", ["samplings.py", *IDEALS], *SAMPLED, EVERY, about.SAMPLINGS),
        Part("samplings_cfg5", ["samplings.py", *IDEALS, *AT_5], *SAMPLED, f"{EVERY}: CFG 5"),
        Part("samplings_trained", ["samplings.py", *OF_TRAINED], *SAMPLED, ON_A_TRAINED, about.TRAINED),
        Part("samplings_svd", ["samplings.py", *OF_SVD], *SAMPLED, ON_SVD, about.SVD),
        Part("places", ["places.py", str(unet), "--models", "unet"], *PLACED, PREDICTED, about.PLACES),
        Part("places_dit", ["places.py", str(dit), "--models", "dit"], *PLACED, f"{PREDICTED}: DiT"),
        Part("dit", ["quality.py", str(dit), *survey, "dit"], quality.render, "quality_dit", "DiT"),
        Part("unet", ["quality.py", str(unet), *survey, "unet"], *OF_UNET, "U-Net"),
        Part("unet_held_out", ["quality.py", str(unet), *held_out], *OF_UNET, HELD_OUT),
        Part("unet_earlier", [], *OF_UNET, "U-Net, earlier training", about.EARLIER),
    ]


def run(part: Part) -> None:
    script, *options = part.command
    kept_in = ["--json", str(RESULTS / f"{part.name}.json")]
    print(f"\n{part.title}", flush=True)
    subprocess.run([sys.executable, str(PACK / "benchmarks" / script), *options, *kept_in], check=True, cwd=PACK)


def results(chosen: list[Part]) -> tuple[dict[str, dict], list[dict]]:
    """The blocks by name, and quality.py's rows in all of them."""
    blocks = {part.name: kept(path) for part in chosen if (path := RESULTS / f"{part.name}.json").exists()}
    for name in QUALITIES.keys() & blocks:
        for row in blocks[name]["rows"]:
            row["model"] = QUALITIES[name]
    return blocks, [row for name in QUALITIES if name in blocks for row in blocks[name]["rows"]]


def documents(chosen: list[Part]) -> dict[Path, str]:
    """Every page, by its path."""
    blocks, rows = results(chosen)
    pages = {DOCUMENT: findings.text(blocks, rows)}
    for page, title in about.PAGES.items():
        text = [f"# {title}", "[All findings](../BENCHMARKS.md)"]
        if page == "auto":
            text += [
                choice.text(rows),
                f"## How far the branches are apart\n\n![The curves]({CURVES.name})",
                about.CURVE,
            ]
        if page.startswith("quality"):
            text.append(about.QUALITY)
        for part in chosen:
            if part.page == page and part.name in blocks:
                block = blocks[part.name]
                text += filter(None, [f"## {part.title}", part.about, block["heading"], part.render(block)])
                if part.name == "stages":
                    text += [about.PROJECTION, projection.render(block)]
        if page == "gpu":
            text += ["## Two GPUs by tokens: arithmetic with assumed times"]
            text += [about.TOKENS_UNMEASURED] if "gpu_tokens" not in blocks else []
            text += [about.TOKENS_ASSUMED, gpu_token_rows.arithmetic()]
        pages[TABLES / f"{page}.md"] = "\n\n".join(text)
    return {path: f"{text}\n" for path, text in pages.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=ONLY)
    parser.add_argument("--unet", type=Path, default=Path("training") / "unet")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--render", action="store_true", help="measure nothing")
    options = parser.parse_args()
    every = parts(options.unet, options.prompts)
    for part in [part for part in every if part.command] if not options.render else ():
        if options.only and part.name.split("_")[0] not in options.only:
            continue
        if str(options.unet) in part.command and not (options.unet / "emoji_unet.safetensors").exists():
            print(f"no emoji_unet.safetensors in {options.unet}: the U-Net is left out (training/README.md makes it)")
        elif part.name == "by_graph" and by_graph.missing():
            print(f"HYBRIDIFF_PACKS has no {', '.join(by_graph.missing())}: by_graph.py is left out")
        elif part.name == "remote" and not can_be_made():
            print("remote.py is left out: it needs root, ip and tc")
        elif part.name.startswith("gpu") and not torch.cuda.is_available():
            print(f"no GPU here: {part.command[0]} is left out")
        else:
            run(part)
    curve.draw(results(every)[1], CURVES_CFG, CURVES)
    for path, text in documents(every).items():
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(PACK)}")


if __name__ == "__main__":
    main()
