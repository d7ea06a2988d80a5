"""ComfyUI's official templates: where the host has them, and which have a sampler of this machine."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.host.comfy_server import python_of

from .template_ways import SAMPLERS

LIST = """
from comfyui_workflow_templates import get_asset_path, iter_templates
for entry in iter_templates():
    if any(asset.filename == f"{entry.template_id}.json" for asset in entry.assets):
        print(get_asset_path(entry.template_id, f"{entry.template_id}.json"))
"""


def paths(root: Path) -> dict[str, Path]:
    """The templates that this ComfyUI's Python has, by name."""
    done = subprocess.run([python_of(root), "-c", LIST], capture_output=True, text=True, check=True)
    found = sorted(map(Path, done.stdout.split("\n")[:-1]))
    return {path.stem: path for path in found if not path.stem.startswith("index")}


def graphs(flow: dict) -> list[dict]:
    """A workflow's own graph and those of its subgraphs."""
    return [flow, *((flow.get("definitions") or {}).get("subgraphs") or [])]


def samples(flow: dict) -> bool:
    """Whether a node of the workflow samples with a model of this machine."""
    kinds = {node["type"] for graph in graphs(flow) for node in graph.get("nodes") or []}
    return bool(kinds & SAMPLERS)


def texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from texts(part)


def flows(root: Path) -> tuple[dict[str, dict], int]:
    """The templates with a local sampler, by name, and how many others there are."""
    every = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths(root).items()}
    found = {name: flow for name, flow in every.items() if samples(flow)}
    return found, len(every) - len(found)
