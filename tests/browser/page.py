"""ComfyUI's page in a real browser: open it, load workflows, press Run, look at our drawings."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

from playwright.sync_api import Page

from ..host.comfy_server import PACK, Comfy

SHOTS = PACK / ".cache" / "browser"
NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


def find_browser() -> str | None:
    """The browser at CHROMIUM_PATH, or the system's own."""
    given = os.environ.get("CHROMIUM_PATH")
    return given or next((path for name in NAMES if (path := shutil.which(name))), None)


class Tab:
    """A page of `comfy`, in the frontend's classic renderer or, `vue`, in its Nodes 2.0."""

    def __init__(self, page: Page, comfy: Comfy, vue: bool):
        self.page, self.comfy, self.vue = page, comfy, vue
        self.errors: list[str] = []
        self.heard: list[str] = []  # all that the console said
        page.on("console", lambda message: self._hear(message.type, message.text, message.location.get("url", "")))
        page.on("pageerror", lambda error: self._hear("error", f"{error.message}\n{error.stack}", ""))
        settings = {
            "Comfy.Locale": "en", "Comfy.ColorPalette": "dark", "Comfy.VueNodes.Enabled": vue,
            "Comfy.TutorialCompleted": True, "Comfy.Workflow.Persist": True,
            "Comfy.VueNodes.AutoScaleLayout": False, "Comfy.InstalledVersion": "1.47.10",
        }  # fmt: skip
        comfy.post("/settings", settings)
        self.open()

    def _hear(self, kind: str, text: str, url: str) -> None:
        self.heard.append(text)
        if kind == "error" and "hybridiff" in (text + url).lower():
            self.errors.append(text)

    def open(self) -> None:
        """Open the page, or load it again."""
        self.page.goto(f"http://127.0.0.1:{self.comfy.port}", wait_until="domcontentloaded")
        self.page.wait_for_function("window.app?.canvas?.graph && window.app.extensionManager")
        self.page.wait_for_selector("#graph-canvas, canvas", state="attached", timeout=90_000)
        self.page.wait_for_timeout(1500)

    def load(self, workflow: dict) -> None:
        """Load a workflow as the page's own open command does."""
        self.page.evaluate("async (graph) => { await window.app.loadGraphData(graph, true, true, 'test') }", workflow)
        self.page.wait_for_timeout(800)

    def missing_nodes(self) -> list[str]:
        """The kinds of node that the page warns it does not know in the workflow."""
        return self.page.evaluate(
            """() => {
                const { $pinia } = document.querySelector('#vue-app').__vue_app__.config.globalProperties
                const found = $pinia.state.value.missingNodesError.missingNodesError
                return (found?.nodeTypes ?? []).map((node) => node.type ?? node)
            }"""
        )

    def saved_widgets(self) -> dict[int, list]:
        """What the page would save of every node's widgets: {node: values}."""
        nodes = self.page.evaluate("window.app.rootGraph.serialize().nodes")
        return {node["id"]: node.get("widgets_values") or [] for node in nodes}

    def look_at(self, node: str | int, scale: float = 1.0) -> None:
        """Put a node into the middle of the picture. No number: the root graph's."""
        self.page.evaluate(
            """([id, scale]) => {
                const { canvas } = window.app, node = canvas.graph.getNodeById(id)
                const { width, height } = canvas.canvas.getBoundingClientRect()
                canvas.ds.scale = scale
                canvas.ds.offset[0] = width / 2 / scale - node.pos[0] - node.size[0] / 2
                canvas.ds.offset[1] = height / 2 / scale - node.pos[1] - node.size[1] / 2
                canvas.setDirty(true, true)
            }""",
            [node, scale],
        )
        self.page.wait_for_timeout(700)

    def run(self, limit_s: float = 180.0) -> dict:
        """Press Run and wait; gives the run's entry in the history."""
        before = set(self.comfy.get("/history"))
        self.page.get_by_test_id("queue-button").first.click()
        deadline = time.monotonic() + limit_s
        while not (fresh := set(self.comfy.get("/history")) - before):
            if time.monotonic() > deadline:
                raise TimeoutError(f"no run finished within {limit_s:.0f} s:\n{self.comfy.tail()}")
            self.page.wait_for_timeout(100)
        self.page.wait_for_timeout(500)
        return self.comfy.wait(fresh.pop())

    def height(self, node: int, needed: bool = False) -> float:
        """A node's height; or the least that its slots, widgets and view need."""
        return self.page.evaluate(
            """([id, needed]) => {
                const node = window.app.canvas.graph.getNodeById(id)
                return (needed ? node.computeSize() : node.size)[1]
            }""",
            [node, needed],
        )

    def open_details(self, node: str | int) -> None:
        """Have a node show the curve and all messages too."""
        self.page.evaluate(
            """(id) => {
                const { element } = window.app.canvas.graph.getNodeById(id)
                    .widgets.find(({ name }) => /^hybridiff_/.test(name))
                element.querySelector('.hybridiff-more[aria-expanded=false]')?.click()
            }""",
            node,
        )
        self.page.wait_for_timeout(300)

    def watch(self, node: str | int) -> None:
        """Begin to note what a node's view says whenever it changes: the steps drawn in a lane, and the large words."""
        self.page.evaluate(
            """(id) => {
                const { element } = window.app.canvas.graph.getNodeById(id)
                    .widgets.find(({ name }) => /^hybridiff_/.test(name))
                window.watched = []
                new MutationObserver(() => {
                    const lane = element.querySelector('.hybridiff-compute')?.getAttribute('d') ?? ''
                    const said = element.querySelector('.hybridiff-large')?.textContent ?? ''
                    const seen = [(lane.match(/M/g) ?? []).length, said]
                    if (String(window.watched.at(-1)) !== String(seen)) window.watched.push(seen)
                }).observe(element, { childList: true })
            }""",
            node,
        )

    def watched(self) -> list[tuple[int, str]]:
        return self.page.evaluate("window.watched")

    def choose(self, node: str | int, widget: str, value: object) -> None:
        """Set a widget as both renderers do: its value, then its callback."""
        self.page.evaluate(
            """([id, name, value]) => {
                const node = window.app.canvas.graph.getNodeById(id)
                const widget = node.widgets.find((widget) => widget.name === name)
                widget.value = value
                widget.callback?.(value, window.app.canvas, node)
            }""",
            [node, widget, value],
        )
        self.page.wait_for_timeout(200)

    def drag(self, node: str | int, bound: str, steps: int) -> None:
        """Drag a boundary of the plan's preview by so many steps, with the mouse."""
        x, y, column = self.page.evaluate(
            """([id, bound]) => {
                const { element } = window.app.canvas.graph.getNodeById(id)
                    .widgets.find(({ name }) => /^hybridiff_/.test(name))
                const grip = element.querySelector(`.hybridiff-grip[data-bound=${bound}]`).getBoundingClientRect()
                const points = [...element.querySelectorAll('.hybridiff-point')].map((p) => p.getBoundingClientRect())
                return [grip.x + grip.width / 2, grip.y + grip.height / 2, points[1].x - points[0].x]
            }""",
            [node, bound],
        )
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(x + column * steps / 2, y, steps=3)
        self.page.mouse.move(x + column * steps, y, steps=3)
        self.page.mouse.up()
        self.page.wait_for_timeout(300)

    def to_subgraph(self, nodes: list[int]) -> int:
        """Make a subgraph of some nodes; gives the id of the node that stands for it."""
        made = self.page.evaluate(
            """(ids) => {
                const { canvas } = window.app
                const items = new Set(ids.map((id) => canvas.graph.getNodeById(id)))
                return Number(canvas.graph.convertToSubgraph(items).node.id)
            }""",
            nodes,
        )
        self.page.wait_for_timeout(500)
        return made

    def enter(self, node: int) -> None:
        """Open a subgraph."""
        self.page.evaluate(
            """(id) => {
                const { canvas } = window.app, node = canvas.graph.getNodeById(id)
                canvas.openSubgraph(node.subgraph, node)
            }""",
            node,
        )
        self.page.wait_for_timeout(800)

    def picture(self, node: str | int, path: tuple[int, ...] = ()) -> dict:
        """What a node's drawing shows: words, points, bands, marks and lanes."""
        return self.page.evaluate(
            """async ([id, path]) => {
                const { badgeTextOf } = await import('/extensions/hybridiff/badge.js')
                let graph = window.app.rootGraph ?? window.app.graph
                for (const part of path) graph = graph.getNodeById(part).subgraph
                const node = graph.getNodeById(id)
                const { element } = node.widgets.find(({ name }) => /^hybridiff_/.test(name))
                const all = (selector) => [...element.querySelectorAll(selector)]
                const data = (selector, ...names) =>
                    all(selector).map((found) => names.map((name) => found.dataset[name]))
                const said = (selector) => all(selector).map((found) => found.firstChild.textContent)
                return {
                    badge: badgeTextOf(node),
                    state: element.querySelector('.hybridiff-body')?.dataset.state ?? '',
                    large: said('.hybridiff-large, .hybridiff-verdict')[0] ?? '',
                    gain: said('.hybridiff-gain')[0] ?? '',
                    what: said('.hybridiff-what')[0] ?? '',
                    reasons: said('.hybridiff-reason'),
                    points: data('.hybridiff-point', 'step').map(([step]) => Number(step)),
                    bands: data('.hybridiff-band', 'stage', 'first', 'last').map(([s, a, b]) => [s, +a, +b]),
                    marks: Object.fromEntries(data('.hybridiff-mark', 'bound', 'step').map(([b, s]) => [b, +s])),
                    devices: all('.hybridiff-device').map((found) => found.querySelector('title').textContent),
                    busy: all('.hybridiff-compute').map((found) => found.getAttribute('d').length > 0),
                    status: said('.hybridiff-status')[0] ?? '',
                    caption: said('.hybridiff-caption')[0] ?? '',
                    visible: element.isConnected && element.getBoundingClientRect().width > 0,
                }
            }""",
            [node, list(path)],
        )

    def badge(self, node: str | int) -> str:
        """The words above a node's title."""
        return self.page.evaluate(
            """async (id) => {
                const { badgeTextOf } = await import('/extensions/hybridiff/badge.js')
                return badgeTextOf(window.app.canvas.graph.getNodeById(id))
            }""",
            node,
        )

    def leave(self) -> None:
        """Go back to the root graph."""
        self.page.evaluate("window.app.canvas.setGraph(window.app.rootGraph)")
        self.page.wait_for_timeout(300)

    def kinds(self) -> list[str]:
        """The classes of the nodes in the graph that is looked at."""
        return self.page.evaluate("window.app.canvas.graph._nodes.map(({ type }) => type)")

    def menu(self, node: str | int, entry: str) -> None:
        """Choose an entry of a node's context menu, with the mouse."""
        x, y = self.page.evaluate(
            """(id) => {
                const { canvas } = window.app, { ds } = canvas, node = canvas.graph.getNodeById(id)
                const frame = canvas.canvas.getBoundingClientRect()
                return [frame.x + (node.pos[0] + 60 + ds.offset[0]) * ds.scale,
                        frame.y + (node.pos[1] - 12 + ds.offset[1]) * ds.scale]
            }""",
            node,
        )
        self.page.mouse.click(x, y, button="right")
        self.page.get_by_text(entry).first.click()
        self.page.wait_for_timeout(800)

    def values(self, node: str | int) -> dict:
        """A node's widgets: {name: (value, disabled)}."""
        return self.page.evaluate(
            """(id) => Object.fromEntries(window.app.canvas.graph.getNodeById(id).widgets
                .map(({ name, value, disabled }) => [name, [value, !!disabled]]))""",
            node,
        )

    def shot(self, name: str) -> Path:
        """Keep a screenshot."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        path = SHOTS / f"{name}-{'nodes2' if self.vue else 'classic'}.png"
        self.page.screenshot(path=path)
        return path

    def overlapping(self, node: str | int) -> list[str]:
        """Pairs of texts in a node's drawings that overlap, and texts that leave them."""
        return self.page.evaluate(
            """(id) => {
                const { element } = window.app.canvas.graph.getNodeById(id)
                    .widgets.find(({ name }) => /^hybridiff_/.test(name))
                const found = []
                for (const svg of element.querySelectorAll('svg')) {
                    const frame = svg.getBoundingClientRect()
                    const texts = [...svg.querySelectorAll('text')].filter((text) => text.textContent)
                    const boxes = texts.map((text) => [text.textContent, text.getBoundingClientRect()])
                    boxes.forEach(([one, a], i) => {
                        if (a.left < frame.left - 1 || a.right > frame.right + 1 || a.bottom > frame.bottom + 1)
                            found.push(`${one} leaves the picture`)
                        for (const [other, b] of boxes.slice(i + 1))
                            if (Math.max(a.left, b.left) < Math.min(a.right, b.right) - 1
                                && Math.max(a.top, b.top) < Math.min(a.bottom, b.bottom) - 3)
                                found.push(`${one} and ${other} overlap`)
                    })
                }
                const { bottom } = element.getBoundingClientRect()
                if (element.firstChild.getBoundingClientRect().bottom > bottom + 2) found.push('the view is cut off')
                return found
            }""",
            node,
        )


class Workflow:
    """A workflow as the page saves it, written node by node with the server's own node definitions."""

    def __init__(self, comfy: Comfy):
        self.infos = comfy.get("/object_info")
        self.nodes: list[dict] = []
        self.links: list[list] = []

    def add(self, kind: str, at: tuple[int, int], values: list, **linked: tuple[int, int]) -> int:
        """Add a node; `values` are its widgets' values, `linked` its linked inputs as (node, output)."""
        number, info = len(self.nodes) + 1, self.infos[kind]
        inputs = []
        for group in ("required", "optional"):
            for name in info["input_order"].get(group, []):
                kind_of = info["input"][group][name][0]
                if name in linked:
                    source, slot = linked[name]
                    self.links.append([len(self.links) + 1, source, slot, number, len(inputs), kind_of])
                    output = self.nodes[source - 1]["outputs"][slot]
                    output["links"].append(len(self.links))
                    inputs.append({"name": name, "type": kind_of, "link": len(self.links)})
                elif isinstance(kind_of, str) and kind_of.isupper() and kind_of not in PLAIN:
                    inputs.append({"name": name, "type": kind_of, "link": None})
        outputs = [{"name": name, "type": of, "links": []} for name, of in zip(info["output_name"], info["output"])]
        self.nodes.append({
            "id": number, "type": kind, "pos": list(at), "size": [270, 60], "flags": {}, "order": number, "mode": 0,
            "inputs": inputs, "outputs": outputs, "properties": {}, "widgets_values": values,
        })  # fmt: skip
        return number

    def to_dict(self, id: str) -> dict:
        return json.loads(json.dumps({
            "id": id, "revision": 0, "last_node_id": len(self.nodes), "last_link_id": len(self.links),
            "nodes": self.nodes, "links": self.links, "groups": [], "config": {}, "extra": {}, "version": 0.4,
        }))  # fmt: skip


PLAIN = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
