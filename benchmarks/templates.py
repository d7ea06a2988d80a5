"""ComfyUI's official templates: turned to several GPUs by the page's own code, validated, and how each is shared.

    python benchmarks/templates.py [NAME ...] [--json FILE]

For every template that the host installs and that has a local sampler: a real page loads it, web/convert.js turns all
of its samplers, the page makes a prompt of it before and after, and the server validates both. The files that a
template names are there, but empty: nothing is sampled. How a sampler's calls are shared is read from the prompt
(template_ways.py).

Needs Chromium and Playwright as tests/browser does. Minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

PACK = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PACK))
from benchmarks import template_flows, template_rows, template_ways  # noqa: E402
from benchmarks.block import keep  # noqa: E402
from tests.browser.page import FLAGS, Tab, find_browser  # noqa: E402
from tests.host.comfy_server import Comfy, Refused, find_comfyui, why_none  # noqa: E402

MODEL_FILE = re.compile(r"[^\n]{1,180}\.(safetensors|sft|ckpt|pth?|pkl|bin|gguf|onnx)")
MEDIA = "png|jpe?g|webp|gif|mp4|webm|mov|mp3|wav|flac|ogg|m4a|glb|gltf|obj|fbx|ply|spz"
MEDIA_FILE = re.compile(rf"[^\n]{{1,180}}\.({MEDIA})", re.IGNORECASE)
TURNED = {"KSampler": "HybridiffKSampler", "KSamplerAdvanced": "HybridiffKSamplerAdvanced"}
BEFORE = "HybridiffModel"
# what the menu's entry does (web/menu.js), for every sampler at once
TURN = """async (flow) => {
    const { convertAll } = await import('/extensions/hybridiff/convert.js')
    await window.app.loadGraphData(flow, true, true, 'template')
    const stock = (await window.app.graphToPrompt()).output
    const { workflow, changed } = convertAll(window.app.rootGraph.serialize())
    window.app.rootGraph.configure(workflow)
    const ours = (await window.app.graphToPrompt()).output
    const again = convertAll(window.app.rootGraph.serialize()).changed
    return { stock, ours, changed, again }
}"""


class Turned:
    """A page and a server that have every file that the templates name, empty."""

    def __init__(self, tab: Tab, flows: dict[str, dict]):
        self.tab, self.comfy = tab, tab.comfy
        self.infos = self.comfy.get("/object_info")
        self._make_files({text for flow in flows.values() for text in template_flows.texts(flow)})

    def _make_files(self, named: set[str]) -> None:
        models = self.comfy.base / "models"
        every = models.resolve() / "every"
        for folder, form in ((every, MODEL_FILE), (self.comfy.base / "input", MEDIA_FILE)):
            for name in filter(form.fullmatch, named):
                path = (folder / name.replace("\\", "/")).resolve()
                if path.is_relative_to(folder.resolve()) and "://" not in name:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.touch()
        for kind in self.comfy.get("/models"):
            if not (models / kind).exists():
                (models / kind).symlink_to(every, target_is_directory=True)

    def turn(self, flow: dict) -> dict:
        """{"stock", "ours": the prompts, "changed": what convert.js did, "missing": node classes, "faults": texts}."""
        found = self.tab.page.evaluate(TURN, flow)
        found["missing"] = sorted({str(node) for node in self.tab.missing_nodes()})
        found["faults"] = unlike(found["stock"], found["ours"]) + unturned(found["ours"], self.infos)
        if found["again"]:
            found["faults"].append(f"turned twice: {found['again']}")
        before, after = self.errors(found["stock"]), self.errors(found["ours"])
        found["faults"] += [f"no longer valid: {error}" for error in after if error not in before]
        found["invalid"] = before
        return found

    def errors(self, prompt: dict) -> list[str]:
        """What the server finds wrong with a prompt; it is taken out of the queue at once."""
        try:
            answer = self.comfy.post("/prompt", {"prompt": prompt})
        except Refused as refused:
            answer = json.loads(str(refused))
        self.comfy.post("/queue", {"clear": True})
        self.comfy.post("/interrupt", {})
        found = []
        for node, told in (answer.get("node_errors") or {}).items():
            for error in told["errors"]:
                found.append(f"{node} {prompt[node]['class_type']}: {error['message']}: {error['details']}"[:200])
        if not found and (error := answer.get("error")):
            found.append(f"{error['message']}: {error.get('details')}"[:200])
        return [error.replace("HybridiffKSampler", "KSampler") for error in found]


def is_link(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)


def unlike(stock: dict, ours: dict) -> list[str]:
    """Where the turned prompt differs from the template's by more than our nodes."""
    new = {node: ours[node]["class_type"] for node in ours.keys() - stock.keys()}
    faults = [f"{node} is new: {kind}" for node, kind in new.items() if kind != BEFORE]
    for node, was in stock.items():
        if node not in ours:
            faults.append(f"{node} {was['class_type']} is gone")
            continue
        kind, inputs = ours[node]["class_type"], dict(ours[node]["inputs"])
        if kind != TURNED.get(was["class_type"], was["class_type"]):
            faults.append(f"{node} {was['class_type']} is {kind}")
        if kind in TURNED.values() and inputs.pop("picture", None) != "same as KSampler":
            faults.append(f"{node} has no picture")
        for name in inputs.keys() | was["inputs"].keys():
            now = inputs.get(name)
            if is_link(now) and now[0] not in stock and now[0] in ours:
                now = ours[now[0]]["inputs"].get("model")
            if now != was["inputs"].get(name):
                faults.append(f"{node} {was['class_type']}.{name} was {was['inputs'].get(name)}, is {now}")
    return faults


def unturned(ours: dict, infos: dict) -> list[str]:
    """Samplers and guiders whose model comes neither from our node nor to one of ours."""
    kinds = {node: told["class_type"] for node, told in ours.items()}
    return [
        f"{node} {kinds[node]} is not turned"
        for node, name in template_ways.places(ours, infos)
        if kinds[node] not in TURNED.values() and kinds[ours[node]["inputs"][name][0]] != BEFORE
    ]


@contextmanager
def opened(root: Path, flows: dict[str, dict], browser: Browser) -> Iterator[Turned]:
    """A page of a ComfyUI of its own, which has every file that the templates name."""
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        (models / "every").mkdir(parents=True)
        comfy = Comfy(root, Path(folder) / "base", models=models, paid=True)
        try:
            page = browser.new_page(viewport={"width": 1500, "height": 1000})
            page.route(lambda url: "127.0.0.1" not in url, lambda route: route.abort())  # links to files to download
            yield Turned(Tab(page, comfy, vue=False), flows)
            page.close()
        finally:
            comfy.stop()


def versions(comfy: Comfy) -> str:
    told = comfy.get("/system_stats")["system"]
    return f"ComfyUI {told['comfyui_version']}, comfyui-workflow-templates {told['installed_templates_version']}"


def measure(root: Path, browser: Browser, names: list[str]) -> tuple[list[dict], str]:
    """A row for each template with a local sampler, or those of `names`, and a first one that counts the others; what
    they were made with."""
    found, others = template_flows.flows(root)
    rows: list[dict] = [{"name": None, "others": 0 if names else others}]
    chosen = {name: found[name] for name in names or found}
    with opened(root, chosen, browser) as turned:
        for name, flow in chosen.items():
            made = turned.turn(flow)
            told = {key: made[key] for key in ("changed", "missing", "faults", "invalid")}
            sampled = template_ways.samplings(made["stock"], turned.infos)
            rows.append({"name": name, **told, "samplings": [asdict(one) for one in sampled]})
            print(name, len(made["changed"]), made["faults"] or "", made["invalid"] or "", flush=True)
        return rows, versions(turned.comfy)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    root = find_comfyui()
    if root is None or find_browser() is None:
        raise SystemExit(f"no browser (CHROMIUM_PATH), or {why_none()}")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=find_browser(), args=FLAGS)
        rows, made_with = measure(root, browser, options.names)
        browser.close()
    keep(options.json, rows, f"none, {made_with}")
    print(template_rows.render({"rows": rows}))


if __name__ == "__main__":
    main()
