"""Take the pictures of the help pages and the README from real runs on the small trained model.

The helper is a second process on this machine's processor, and the pages say so.

    python dev/pictures.py

Needs ComfyUI, Playwright, Chromium and Pillow.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

PACK = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PACK))
from tests.browser.page import FLAGS, Tab, Workflow, find_browser  # noqa: E402
from tests.host.comfy_server import Comfy, find_comfyui, make_models  # noqa: E402

PICTURES = PACK / "web" / "docs" / "img"
BOX = """(id) => {
    const { canvas } = window.app, { ds } = canvas, node = canvas.graph.getNodeById(id)
    const frame = canvas.canvas.getBoundingClientRect(), edge = 8
    return {
        x: frame.x + (node.pos[0] + ds.offset[0]) * ds.scale - edge,
        y: frame.y + (node.pos[1] - 56 + ds.offset[1]) * ds.scale - edge,
        width: node.size[0] * ds.scale + 2 * edge, height: (node.size[1] + 56) * ds.scale + 2 * edge,
    }
}"""


def graph(comfy: Comfy) -> tuple[dict, dict[str, int]]:
    flow = Workflow(comfy)
    model = flow.add("UNETLoader", (0, 0), ["emoji_dit.safetensors", "default"])
    vae = flow.add("VAELoader", (0, 130), ["emoji_dit_vae.safetensors"])
    positive = flow.add("HybridiffDemoWords", (0, 240), ["birthday cake"])
    negative = flow.add("HybridiffDemoWords", (0, 340), [""])
    latent = flow.add("EmptySD3LatentImage", (0, 440), [128, 128, 1])
    device = flow.add("HybridiffDevices", (330, 0), ["cpu"])
    plan = flow.add("HybridiffPlan", (330, 130), ["predict", "slope", 10, 12, 0.0004, 15, 20, 0.0, 0, "auto"])
    settings = [3, "fixed", 30, 4.0, "euler", "simple", 1.0, "same as KSampler"]
    given = {
        "model": (model, 0), "positive": (positive, 0), "negative": (negative, 0), "latent_image": (latent, 0),
        "devices": (device, 0),
    }  # fmt: skip
    ours = flow.add("HybridiffKSampler", (720, 0), settings, **given)
    planned = flow.add("HybridiffKSampler", (720, 800), settings, plan=(plan, 0), **given)
    for place, sampler in enumerate((ours, planned)):
        decoded = flow.add("VAEDecode", (1120, 800 * place), [], samples=(sampler, 0), vae=(vae, 0))
        flow.add("SaveImage", (1120, 800 * place + 110), ["help"], images=(decoded, 0))
    report = flow.add("HybridiffReport", (1500, 0), [], report=(planned, 1))
    for node in flow.nodes:
        if node["id"] in (ours, planned):
            node["size"] = [360, 560]
        if node["id"] == report:
            node["size"] = [460, 420]
    return flow.to_dict("7c1b2a30-0000-4000-8000-000000000001"), {"sampler": ours, "plan": plan, "report": report}


def main() -> None:
    root = find_comfyui()
    if root is None:
        sys.exit("no ComfyUI is to be found; set COMFYUI_PATH")
    make_models(root)
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        comfy = Comfy(root, Path(folder) / "base")
        try:
            browser = play.chromium.launch(executable_path=find_browser(), args=FLAGS)
            page = browser.new_page(viewport={"width": 1600, "height": 1100})
            tab = Tab(page, comfy, vue=False)
            flow, nodes = graph(comfy)
            tab.load(flow)
            tab.run()
            page.wait_for_timeout(1500)
            page.keyboard.press("Escape")
            tab.open_details(nodes["sampler"])
            for name, node in nodes.items():
                tab.look_at(node, 1.1)
                page.wait_for_timeout(800)
                shot = Path(folder) / "shot.png"
                page.screenshot(path=shot, clip=page.evaluate(BOX, node))
                with Image.open(shot) as picture:
                    small = picture.convert("RGB")
                small.thumbnail((900, 900))
                small.save(PICTURES / f"{name}.jpg", quality=85)
            browser.close()
        finally:
            comfy.stop()


if __name__ == "__main__":
    main()
