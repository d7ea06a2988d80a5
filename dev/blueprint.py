"""The subgraph in subgraphs/, made of a workflow by a real page (Playwright, Chromium)."""

from __future__ import annotations

import json
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.browser.page import FLAGS, Tab, find_browser
from tests.host.comfy_server import Comfy

PACK = Path(__file__).resolve().parents[1]
BLUEPRINT = "Hybridiff text to image"
# in addition to the two prompts and the seed, which the page shows by itself
SHOWN_OUTSIDE = [
    ("CheckpointLoaderSimple", "ckpt_name"), ("EmptyLatentImage", "width"), ("EmptyLatentImage", "height"),
    ("HybridiffKSampler", "steps"), ("HybridiffKSampler", "cfg"),
]  # fmt: skip
LABELS = {"text": "prompt", "text_1": "negative prompt"}
LIFT = """([id, name, shown, labels]) => {
    const graph = window.app.rootGraph ?? window.app.graph, node = graph.getNodeById(id)
    node.title = node.subgraph.name = name
    node.properties.proxyWidgets = shown
    const saved = graph.serialize()
    const lifted = saved.nodes.find((other) => other.id === id)
    lifted.widgets_values = [] // the inner nodes have them
    const [inner] = saved.definitions.subgraphs
    for (const input of [...lifted.inputs, ...inner.inputs]) if (labels[input.name]) input.label = labels[input.name]
    for (const input of lifted.inputs) input.link = null
    for (const output of lifted.outputs) output.links = []
    return {
        revision: 0, last_node_id: id, last_link_id: 0, nodes: [lifted], links: [], version: 0.4,
        definitions: saved.definitions, extra: {},
    }
}"""


def lift(tab, flow: dict) -> None:
    """The SDXL graph without its note, report and last node, as one node with what is changed most outside."""
    inside = [node for node in flow["nodes"] if node["type"] not in ("MarkdownNote", "SaveImage", "HybridiffReport")]
    tab.load(flow)
    shown = []
    for kind, widget in SHOWN_OUTSIDE:
        node = next(node for node in inside if node["type"] == kind)
        shown.append([str(node["id"]), widget])
    made = tab.to_subgraph([node["id"] for node in inside])
    lifted = tab.page.evaluate(LIFT, [made, BLUEPRINT, shown, LABELS])
    folder = PACK / "subgraphs"
    folder.mkdir(exist_ok=True)
    (folder / f"{BLUEPRINT}.json").write_text(json.dumps(lifted, indent=1) + "\n")


def make(root: Path, folder: Path, flow: dict) -> None:
    """Make subgraphs/ of the workflow `flow`, in a page of the ComfyUI at `root`; `folder` is for its files."""
    comfy = Comfy(root, folder / "base")
    try:
        with sync_playwright() as play:
            browser = play.chromium.launch(executable_path=find_browser(), args=FLAGS)
            lift(Tab(browser.new_page(viewport={"width": 1900, "height": 1300}), comfy, vue=False), flow)
            browser.close()
    finally:
        comfy.stop()
