"""A model that nodes of three packs made: what its worker's start takes, and what a changed setting runs again.

    HYBRIDIFF_PACKS=/folder/of/packs python benchmarks/by_graph.py [--repeats 3] [--json FILE]

In a real server, through its HTTP API: a GGUF file (ComfyUI-GGUF), a LoRA, patches of KJNodes and RES4LYF, a merge. The
folder holds the three packs as published.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import tempfile
from pathlib import Path

PACK = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PACK))
from benchmarks.block import heading, keep, table  # noqa: E402
from tests.host.comfy_server import find_comfyui, make_models  # noqa: E402
from tests.host.compat import published  # noqa: E402
from tests.host.compat.conftest import adder  # noqa: E402
from tests.host.conftest import Bench  # noqa: E402

PACKS = ("ComfyUI-GGUF", "ComfyUI-KJNodes", "RES4LYF")
LORA = "sd3_depth4.safetensors"
# what is changed, strength of the LoRA, ratio of the merge
RUNS = [
    ("the first run", 0.5, 0.3), ("unchanged", 0.5, 0.3), ("another ratio of the merge", 0.5, 0.4),
    ("another strength of the LoRA", 0.7, 0.4), ("unchanged again", 0.7, 0.4),
]  # fmt: skip
COLUMNS = [
    ("run", lambda row: row["what"]),
    ("s before the first step", lambda row: f"{row['first_s']:.3f}"),
    ("of these by the graph", lambda row: f"{row['graph_s']:.3f}"),
    ("packs imported, s each", lambda row: ", ".join(f"{name} {s:.1f}" for name, s in row["packs"].items()) or "-"),
    ("nodes run in the worker", lambda row: ", ".join(row["ran"]) or "none"),
    ("steps shared", lambda row: row["shared"]),
    ("largest difference", lambda row: f"{row['difference']:.0e}"),
]


def render(block: dict) -> str:
    return table(block["rows"], COLUMNS)


def missing() -> list[str]:
    """The packs that are not here."""
    here = [path.name for path in published.present()]
    return [name for name in PACKS if name not in here]


def graph(comfy, lora: float, ratio: float) -> Bench:
    """The sampler's side, with the model that the packs' nodes make."""
    side = Bench(comfy, "sd3")
    add = functools.partial(adder(comfy.get("/object_info")), side)
    model = add("UnetLoaderGGUF", unet_name="sd3_Q8_0.gguf")
    model = add("LoraLoaderModelOnly", model=model, lora_name=LORA, strength_model=lora)
    other = add("UnetLoaderGGUF", unet_name="sd3_F16.gguf")
    model = add("ModelMergeSimple", model1=model, model2=other, ratio=ratio)
    model = add("ModelMemoryUsageFactorOverride", model=model, memory_usage_factor=1.1)
    side.model = add("ModelTimestepPatcher", model=model, shift=6.0)
    return side


def once(root: Path, folder: Path) -> list[dict]:
    """One server's runs."""
    server = published.start(root, folder)
    found = []
    try:
        for what, lora, ratio in RUNS:
            difference, report = graph(server, lora, ratio).compare()
            (loading,) = report["loadings"] or [{}]
            found.append({
                "what": what, "first_s": report["first_step_s"], "graph_s": loading.get("graph_s", 0.0),
                "packs": loading.get("packs", {}), "ran": sorted(name.split(" ", 1)[1] for name in loading["ran"]),
                "shared": f"{report['shared_calls']} of {report['calls']}", "difference": difference,
                "lines": report["lines"],
            })  # fmt: skip
            print(found[-1], flush=True)
    finally:
        server.stop()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="servers, one after the other")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    root = find_comfyui()
    if root is None or missing():
        sys.exit("a ComfyUI (COMFYUI_PATH) and HYBRIDIFF_PACKS with " + ", ".join(PACKS) + " are needed")
    make_models(root)
    published.make_gguf(root, LORA, "sd3")
    servers = []
    for number in range(options.repeats):
        with tempfile.TemporaryDirectory() as folder:
            servers.append(once(root, Path(folder) / f"base{number}"))
    rows = []
    for same in zip(*servers):
        medians = {name: statistics.median(row[name] for row in same) for name in ("first_s", "graph_s")}
        packs = {name: statistics.median(row["packs"][name] for row in same) for name in same[0]["packs"]}
        worst = max(row["difference"] for row in same)
        rows.append({**same[0], **medians, "packs": packs, "difference": worst})
    keep(options.json, rows, "none")
    print(f"{heading('none')}\n\n{render({'rows': rows})}")


if __name__ == "__main__":
    main()
