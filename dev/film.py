"""Make assets/node.webp, the film in the README: the sampler node at work, in a real page, on a real run.

    python dev/film.py

The run is the small trained model's on two processes of this machine's CPU, and the film says so. Needs ComfyUI,
Playwright, Chromium and Pillow.
"""

from __future__ import annotations

import base64
import contextlib
import io
import itertools
import os
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFont
from playwright.sync_api import Error, sync_playwright

PACK = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PACK))
from tests.browser.page import FLAGS, Tab, Workflow, find_browser  # noqa: E402
from tests.host.comfy_server import Comfy, find_comfyui, make_models  # noqa: E402

FILM = PACK / "assets" / "node.webp"
MOST_BYTES = 2_000_000
WIDTH, HEIGHT, FOOT = 1010, 704, 34
STEPS, BATCH, SEED = 24, 9, 5
BEFORE_S, AFTER_S, LEAST_S = 1.5, 4.0, 0.1  # how long the node is shown before and after, and a frame at least
MOST_S = 12.0  # a longer run is played faster, and the film says so
SAID = "A real run of a small model. Two processes on a CPU stand for two GPUs, so no gain is shown"
SHOWN = "window.app.canvas.graph._nodes.some(({ imgs }) => imgs?.every(({ complete }) => complete))"
IDS = ("7c1b2a30-0000-4000-8000-000000000002", "7c1b2a30-0000-4000-8000-000000000003")  # a page keeps runs by these


def graph(comfy: Comfy, id: str) -> tuple[dict, int]:
    """The workflow, and its sampler's number."""
    flow = Workflow(comfy)
    model = flow.add("UNETLoader", (-900, 0), ["emoji_dit.safetensors", "default"])
    vae = flow.add("VAELoader", (-900, 130), ["emoji_dit_vae.safetensors"])
    positive = flow.add("HybridiffDemoWords", (0, 60), ["strawberry"])
    negative = flow.add("HybridiffDemoWords", (-900, 340), [""])
    latent = flow.add("EmptySD3LatentImage", (-900, 440), [128, 128, BATCH])
    device = flow.add("HybridiffDevices", (0, 200), ["same"])
    ours = flow.add(
        "HybridiffKSampler", (310, 60), [SEED, "fixed", STEPS, 3.0, "euler", "simple", 1.0, "same as KSampler"],
        model=(model, 0), positive=(positive, 0), negative=(negative, 0), latent_image=(latent, 0),
        devices=(device, 0),
    )  # fmt: skip
    decoded = flow.add("VAEDecode", (-900, 560), [], samples=(ours, 0), vae=(vae, 0))
    shown = flow.add("PreviewImage", (690, 60), [], images=(decoded, 0))
    for node in flow.nodes:
        if node["id"] == ours:
            node["size"] = [350, 580]
        if node["id"] == shown:
            node["size"] = [280, 330]
    return flow.to_dict(id), ours


def filmed(tab: Tab) -> list[tuple[float, Image.Image]]:
    """The node before, in and after a run: each frame with its time in seconds."""
    page = tab.page
    box = page.evaluate("(() => { const f = window.app.canvas.canvas.getBoundingClientRect(); return [f.x, f.y] })()")
    left, top = (round(edge + margin) for edge, margin in zip(box, (70, 90)))
    frames: list[tuple[float, Image.Image]] = []
    page_tools = page.context.new_cdp_session(page)

    def take(told: dict) -> None:
        whole = Image.open(io.BytesIO(base64.b64decode(told["data"]))).convert("RGB")
        frames.append((time.monotonic(), whole.crop((left, top, left + WIDTH, top + HEIGHT - FOOT))))
        with contextlib.suppress(Error):  # it came after the end
            page_tools.send("Page.screencastFrameAck", {"sessionId": told["sessionId"]})

    page_tools.on("Page.screencastFrame", take)
    page_tools.send("Page.startScreencast", {"format": "png"})
    page.wait_for_timeout(500)
    page.get_by_test_id("queue-button").first.click()
    page.mouse.move(640, 930)
    pressed, ended = time.monotonic(), None
    while ended is None or time.monotonic() < ended + 1.5:
        page.wait_for_timeout(100)
        if ended is None and tab.comfy.get("/history") and page.evaluate(SHOWN):
            ended = time.monotonic()
        if time.monotonic() > pressed + 120:
            raise TimeoutError("the run did not end")
    page_tools.send("Page.stopScreencast")
    page_tools.detach()
    return frames


def save(frames: list[tuple[float, Image.Image]]) -> None:
    """Write the film, each frame as long as it really was there, and the first and the last longer."""
    letters = ImageFont.load_default(18)
    kept: list[tuple[float, Image.Image]] = []
    for at, frame in frames:
        if kept and (at - kept[-1][0] < LEAST_S or not ImageChops.difference(frame, kept[-1][1]).getbbox()):
            continue
        kept.append((at, frame))
    lasting = [after - at for (at, _), (after, _) in itertools.pairwise(kept)]
    faster = max(sum(lasting) / MOST_S, 1.0)
    said = SAID + (f"; played {faster:.1f} times as fast." if faster > 1 else ".")
    lasting = [BEFORE_S, *(seconds / faster for seconds in lasting[1:]), AFTER_S]
    pictures = []
    for _, frame in kept:
        whole = Image.new("RGB", (WIDTH, HEIGHT), "#18181b")
        whole.paste(frame, (0, 0))
        ImageDraw.Draw(whole).text((14, HEIGHT - FOOT / 2), said, fill="#c9c9d2", font=letters, anchor="lm")
        pictures.append(whole)
    durations = [round(1000 * seconds) for seconds in lasting]
    pictures[0].save(FILM, save_all=True, append_images=pictures[1:], duration=durations, loop=0, quality=72, method=4)
    size = FILM.stat().st_size
    print(f"{len(pictures)} frames, {sum(lasting):.1f} s, {size / 1e6:.2f} MB")
    if size > MOST_BYTES:
        sys.exit(f"the film has {size} bytes, more than {MOST_BYTES}")


def main() -> None:
    root = find_comfyui()
    if root is None:
        sys.exit("no ComfyUI is to be found; set COMFYUI_PATH")
    make_models(root)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        comfy = Comfy(root, Path(folder) / "base")
        os.setpriority(os.PRIO_PROCESS, comfy.process.pid, 10)  # and its worker's, so that the page can draw
        try:
            browser = play.chromium.launch(executable_path=find_browser(), args=FLAGS)
            tab = Tab(browser.new_page(viewport={"width": 1280, "height": 960}), comfy, vue=False)
            first, sampler = graph(comfy, IDS[0])
            tab.load(first)
            tab.choose(sampler, "seed", SEED + 1)
            tab.run()  # the worker is started, and has the model
            comfy.post("/history", {"clear": True})
            tab.load(graph(comfy, IDS[1])[0])
            tab.page.evaluate(
                """() => { sessionStorage.clear(); const { canvas } = window.app
                    canvas.ds.scale = 1; canvas.ds.offset = [90, 110]; canvas.setDirty(true, true) }"""
            )
            tab.page.wait_for_timeout(800)
            save(filmed(tab))
            browser.close()
        finally:
            comfy.stop()


if __name__ == "__main__":
    main()
