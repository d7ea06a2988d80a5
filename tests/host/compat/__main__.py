"""Run the rows and write docs/COMPATIBILITY.md from what they found.

    python -m tests.host.compat [--render | --add] [pytest's arguments]

--render writes it from the rows of earlier runs; --add runs only what the arguments name, and puts these rows in.
HYBRIDIFF_OLDER_COMFYUI names folders of other ComfyUIs, for rows of their own (without it, those beside this one),
HYBRIDIFF_PACKS one of other packs.
"""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from ..comfy_server import PACK, find_comfyui, version_of
from . import workflows
from .conftest import CELLS, FAILS, LIMIT, NEAR, ROWS, SECTIONS

DOCUMENT = PACK / "docs" / "COMPATIBILITY.md"
HEAD = """# What works with what

Made by `python -m tests.host.compat` on {date}, ComfyUI {version}, on CPU, with small random models in the true
formats, every one in fp32. Difference: the largest between the latents of KSampler and of Hybridiff in exact mode, at
unit scale; at most {limit:g} is asked. KSampler rounds otherwise where memory has it compute the prompts one by one,
and dpm_adaptive makes up to 1e-04 of that: beyond the limit, the latent is compared with the one it then gives.

- **two devices**: shared, and equal to KSampler.
- **one device**: not shared; Hybridiff's line says why, and the picture is KSampler's.
- **left out**: ComfyUI itself cannot do it here.
- **FAILS**: a fault.
- **result**, in the table of models: by conds, CFG 3. A model that is *by its graph* is narrower than ComfyUI knows it
  from a file, and made by a loader of the tests' own.
- **rows**: a batch of three at CFG 1, divided by its images. *Not tried*: the devices were faster by tokens.
- **tokens**: whether devices can divide one forward by the image's tokens, and how far the outcome then is from the
  whole forward's.
- **pipeline stage**: whether the network can be cut for the mode *pipeline*, and how far the parts then are from it.

How ComfyUI's own workflow templates are shared: [benchmarks/templates.md](benchmarks/templates.md).

Rows that end in *auto* are not exact: there the latent may be off by {near:.0%}, and *why* says how much was predicted.
"""


def version() -> str:
    return version_of(find_comfyui())


def parse(text: str) -> list[dict]:
    """The rows of a document that `render` wrote."""
    rows, section, head = [], "", []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("## "):
            section, head = line[3:], []
        elif section in SECTIONS and line.startswith("| ") and not head:
            head = cells
        elif section in SECTIONS and line.startswith("| "):
            row = {"section": section, **dict(zip(head, cells))}
            row |= {"row": row.pop("what"), "reason": row.pop("why").removesuffix("-")}
            given = row["difference"]
            row["difference"] = None if given == "-" else float(given.replace("none", "0"))
            rows.append({{"pipeline stage": "stage"}.get(name, name): value for name, value in row.items()})
    return rows


def render(rows: list[dict], head: str = "") -> str:
    parts = [head or HEAD.format(date=datetime.date.today(), version=version(), limit=LIMIT, near=NEAR)]
    for section in SECTIONS:
        of_it = sorted((row for row in rows if row["section"] == section), key=lambda row: row["row"])
        if not of_it:
            continue
        more = {name: title for name, title in CELLS.items() if any(name in row for row in of_it)}
        head = ["what", "result", "difference", *more.values(), "why"]
        parts += [f"\n## {section}\n", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        for row in of_it:
            difference = "none" if row["difference"] == 0 else f"{row['difference'] or 0:.0e}"
            cells = [row["row"], row["result"], "-" if row["difference"] is None else difference]
            cells += [row.get(key, "-") for key in more]
            cells.append(row["reason"] or "-")
            parts.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(parts) + "\n" + workflows.section(rows)


def main() -> int:
    arguments = sys.argv[1:]
    adds = "--add" in arguments
    named = [argument for argument in arguments if argument != "--add"]
    if not adds:
        code = 0 if "--render" in arguments else run_rows(["tests/host/compat", *named], ROWS)
        return write(rows_in(ROWS), "") or code
    with tempfile.TemporaryDirectory() as folder:  # what other runs found stays
        code = run_rows(named, Path(folder))
        rows = rows_in(Path(folder))
    old = DOCUMENT.read_text()
    new = {(row["section"], row["row"]) for row in rows}
    kept = [row for row in parse(old) if (row["section"], row["row"]) not in new] if rows else []
    return write(rows + kept, old.partition("\n## ")[0].rstrip("\n") + "\n") or code


def run_rows(arguments: list[str], folder: Path) -> int:
    """pytest's exit status; each row that is run leaves a file in `folder`."""
    for old in folder.glob("*.json"):
        old.unlink()
    more = {"HYBRIDIFF_LARGE_MODELS": "1", "HYBRIDIFF_COMPAT_ROWS": str(folder)}
    command = [sys.executable, "-m", "pytest", "--all", *arguments]
    return subprocess.run(command, cwd=PACK, env={**os.environ, **more}).returncode


def rows_in(folder: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in folder.glob("*.json")]


def write(rows: list[dict], head: str) -> int:
    """Write the document; 1 where a row of it fails."""
    if not rows:
        sys.exit("no row was run: is there a ComfyUI (COMFYUI_PATH)?")
    DOCUMENT.write_text(render(rows, head))
    failed = [row["row"] for row in rows if FAILS in row.values()]
    print(f"{len(rows)} rows, failed: {', '.join(failed) or 'none'}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
