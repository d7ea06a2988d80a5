"""The one page of findings, docs/BENCHMARKS.md, from what the other files measured."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Mapping, Sequence
from functools import reduce

from hybridiff_core.rules import LEAST_STEPS

from . import gpu_token_rows
from .about import PAGES
from .block import table
from .choice import FLOOR, speed, verdict

HEAD = """# Measured

`python -m benchmarks` measures all of this, in hours, and writes this page and the tables behind it from
`benchmarks/results`. Each table says when, on what machine, from which seeds and by which command it was measured.

**Two GPUs were never available.** Two CPU cores stand for two devices, one process and one thread each, in a real
ComfyUI; one GPU was rented once, and what two of it would bring is projected from its times and marked so. *exact* is
"same as KSampler" in the nodes, *auto* is "close to it, faster"."""

FAST = """Small networks with random weights, but for the first four rows: the small trained model, eight pictures at
once. *At most* is what arithmetic allows for the steps that were computed. A figure above it is no gain to expect on
GPUs: a part of a forward fits a core's cache better than the whole, and a slower device is a core that another program
uses too, now more and now less. *alone* means that nothing was shared, for it would not have been faster. The
difference is that of the latents. [More](benchmarks/speed.md)"""

UNKNOWN = """## What nobody has measured

- Two real GPUs, in any combination; Windows, AMD, Intel and Apple GPUs. The tests run on Linux, on CPUs; a few were run
  on one GPU.
- Large models with their real weights. The networks here have the true layouts, most with small sizes and random
  weights; pictures are compared on two small trained models.
- FID and LPIPS on COCO, as the paper's Table 1 has them. `benchmarks/coco.py` does it, with your weights and a GPU.

How to help: `python benchmarks/gpu.py` on a machine with one or more GPUs times SDXL's, SD3-medium's and Wan's shapes
in each mode, `python benchmarks/gpu_tokens.py` those of Flux, Qwen-Image, Wan 14B and Z-Image divided by tokens; both
print tables for a pull request or an issue."""


def fast(timed: Sequence[dict], divided: Sequence[dict]) -> str:
    """What two devices brought, by the clock, on two cores."""
    rows = [{**row, "second": "alike"} for row in timed if row["difference"] or row["bound"]]
    rows += [
        {
            **row,
            "what": f"exact, {row['name']}: {row['way'].replace('rows', 'images')}",
            "second": "alike" if row["slower"] == 1 else f"{row['slower']:g} times as slow",
        }
        for row in divided
    ]
    shorter = {"Hybridiff ": "", ", two devices": "", "conds": "prompts"}

    def named(row: dict) -> str:
        return reduce(lambda text, change: text.replace(*change), shorter.items(), row["what"])

    columns = [
        ("what", named),
        ("CFG", lambda row: f"{row['cfg']:g}"),
        ("second device", lambda row: row["second"]),
        ("speed-up", lambda row: f"**{row['ratio']:.2f}x**"),
        ("of all repeats", lambda row: f"{row['least']:.2f} to {row['most']:.2f}"),
        ("at most", lambda row: f"{row['bound']:.2f}" if row["bound"] else "-"),
        ("difference", lambda row: f"{row['difference']:.0e}"),
    ]  # fmt: skip
    return table(rows, columns)


def first_run(rows: Sequence[dict]) -> str:
    """What a fresh ComfyUI's first run takes beside KSampler's."""
    ours = [row for row in rows if row["what"].startswith("Hybridiff")]
    told = "; ".join(
        f"{row['what'].split()[1].rstrip(',')} took {row['ratio']:.0%} of KSampler's time ({row['least']:.0%} to "
        f"{row['most']:.0%}), its worker was ready after {row['ready_s']:.0f} s"
        for row in ours
    )
    return f"""- **The first run.** It begins at once on one device, and takes the other in when its worker is ready. In
  a run of {rows[0]["seconds"]:.0f} s: {told}. [More](benchmarks/workers.md)"""


def elsewhere(rows: Sequence[dict]) -> str:
    """What a second machine brought."""
    if not rows:
        return ""
    gained = sorted(row["alone_s"] / row["seconds"] for row in rows)
    return f"""- **A second computer.** Over {rows[0]["megabit"] / 1000:g} Gbit/s, with steps of
  {rows[0]["alone_s"] / 10:.1f} s on one of them: {statistics.median(gained):.2f}x ({gained[0]:.2f}x to
  {gained[-1]:.2f}x), exact, CFG 5. [More](benchmarks/workers.md)"""


def by_graph(rows: Sequence[dict]) -> str:
    """What a model takes that other packs' nodes made."""
    if not rows:
        return ""
    first, again = rows[0], rows[1]
    return f"""- **A model that other packs' nodes made.** A worker had one of three packs' nodes after
  {first["graph_s"]:.1f} s, their imports included, while the run went on. The same graph again begins after
  {1000 * again["first_s"]:.0f} ms. [More](benchmarks/workers.md)"""


def on_gpus(parts: Sequence[dict], by_tokens: Sequence[dict]) -> str:
    """What gpu.py found for exact sharing, by model and size, the later of two rows counts; and gpu_tokens.py."""
    found = {(row["model"], row["size"]): row for row in parts if row["part"] == "projected" and row["mode"] == "exact"}
    of_model: dict[str, list[str]] = {}
    for (model, size), row in found.items():
        of_model.setdefault(model, []).append(f"{min(row['speed_up'], row['bound']):.2f}x at {size}")
    if not found:
        return ""
    told = "; ".join(f"{model} {', '.join(sizes)}" for model, sizes in of_model.items())
    source = "**projected**" if by_tokens else "by arithmetic with assumed times; no GPU has measured it yet"
    card = next(row["on"].split("(")[1].rstrip(") ") for row in parts if row["part"] == "worker")
    return f"""- **Fast GPUs.** *exact* on two equal cards, **projected** from the times of one {card}: {told}.
  SDXL at 1024 gains nothing there: so fast a card waits for Python, and one branch takes as long as both. Larger
  pictures and slower cards gain. [More](benchmarks/gpu.md)
- **Two GPUs by tokens**, CFG 1: {gpu_token_rows.span(by_tokens)}, by how fast their link is, {source}.
  [More](benchmarks/gpu.md)"""


def gains(
    rows: Sequence[dict],
    timed: Sequence[dict],
    parts: Sequence[dict],
    by_tokens: Sequence[dict],
    started: Sequence[dict],
    others: str,
) -> str:
    """When a user gains how much, in plain words."""

    def span(some: Sequence[dict]) -> str:
        found = sorted(map(speed, some))
        ends = list(dict.fromkeys(f"{value:.1f}x" for value in (found[:1] + found[-1:])))
        return " to ".join(ends) or "(not measured)"

    def auto(guided: bool, steps: int) -> list[dict]:
        return [
            r for r in rows
            if r["what"] == "auto" and (r["cfg"] > 1) is guided and r["steps"] == steps and r["cost"] < r["steps"]
        ]  # fmt: skip

    exact = next((row for row in timed if row["cfg"] > 1 and "exact" in row["what"]), None)
    rival = next((row for row in timed if "ComfyUI's" in row["what"]), None)
    beside = f": {exact['ratio']:.2f}x, and {rival['ratio']:.2f}x with ComfyUI's own split" if exact and rival else ""
    steps = sorted({row["steps"] for row in rows})
    guided = ", ".join(f"{span(auto(True, count))} at {count} steps" for count in steps)
    alone = ", ".join(f"{span(auto(False, count))} at {count} steps" for count in steps)
    exact_ones = [r for r in rows if r["what"] == "auto" and r["cfg"] > 1 and r["cost"] == r["steps"]]
    none = f" In {len(exact_ones)} settings with few steps at a high CFG it predicts nothing." if exact_ones else ""
    pipelines = [
        r for r in rows if r["cfg"] == 1 and r["what"].startswith("pipeline in groups") and "m=" not in r["what"]
    ]
    piped = f", up to {max(map(speed, pipelines)):.1f}x by what is computed" if pipelines else ""
    return f"""- **Two equal devices, CFG above 1.** *exact* halves what each computes, so 2x is the most{beside}.
- **CFG 1** (Flux, distilled and turbo models). *exact* divides a transformer's forward by the image's tokens and a
  batch by its images, where that is faster. A U-Net with one image (SDXL) stays on one device.
- **Unlike devices.** By prompts, a card half as fast brings nothing; by tokens and images each gets as much as it can
  do in the time, so a slower card helps too. Which way is taken is decided by the clock.
- **Close to it, faster** (*auto*). It predicts some steps from those before, by what is computed: with CFG above 1 and
  two devices {guided}; at CFG 1 on one device {alone}. A second device adds to that.{none}
- **One device.** Nothing is shared; *auto* predicts the same steps, and its picture is the same as with two.
- **Fewer than {LEAST_STEPS} steps.** *auto* is *exact*.
{on_gpus(parts, by_tokens)}
{first_run(started)}
{others}
- **Small pictures.** Each step costs two messages and a wait, tokens a message at each attention. Where a step takes a
  few milliseconds, sharing does not pay, and the run stays on one device.
- **More than two devices.** *exact* uses as many as there are prompts and images to compute, and with a transformer
  more by tokens. The mode *pipeline* uses them all{piped}; at equal cost its pictures are further from KSampler's."""


def text(blocks: Mapping[str, dict], rows: Sequence[dict]) -> str:
    """The page; `blocks` are the results by name, `rows` quality.py's."""

    def of(*names: str) -> list[dict]:
        return [row for name in names for row in blocks.get(name, {"rows": []})["rows"]]

    rows = [row for row in rows if row["sampler"] != "ddim"]
    others = "\n".join(filter(None, [elsewhere(of("remote_picture")), by_graph(of("by_graph"))]))
    lowest = min(row["psnr_worst"] for row in rows if row["what"] == "auto")
    listed = "\n".join(f"- [{title}](benchmarks/{name}.md)" for name, title in PAGES.items())
    paragraphs = [
        HEAD, "## Two devices, by the clock", fast(of("speed"), of("dividing")), FAST,
        "## When you gain, and when not",
        gains(rows, of("speed"), of("gpu", "gpu_sdxl"), of("gpu_tokens"), of("start"), others),
        "## How close the pictures are",
        "*exact* is equal to KSampler to 1e-5 in fp32, in all that [COMPATIBILITY.md](COMPATIBILITY.md) lists. *auto* "
        f"is made to keep 95 of 100 pictures at {FLOOR:g} dB PSNR or better, where a difference is hardly visible; the "
        f"lowest of all settings is {lowest:.1f} dB. [More](benchmarks/auto.md)",
        verdict(rows), UNKNOWN, "## All tables", listed,
    ]  # fmt: skip
    return "\n\n".join(map(wrapped, paragraphs))


def wrapped(text: str) -> str:
    """A paragraph, or a list with its entries, in lines of up to 120 characters; a table or title as it is."""
    if text.startswith(("#", "|")):
        return text
    entries = text.split("\n- ") if text.startswith("- ") else [text]
    later = "  " if text.startswith("- ") else ""
    return "\n- ".join(
        textwrap.fill(" ".join(entry.split()), 118, subsequent_indent=later, break_on_hyphens=False)
        for entry in entries
    )
