from __future__ import annotations

import pytest

from ..tiers import full

MISSING = "no browser (install chromium or set CHROMIUM_PATH, then sh dev/test.sh tests/browser)"


@pytest.fixture(scope="session")
def browser():
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        path = None
    else:
        from .page import FLAGS, find_browser

        path = find_browser()
    if path is None:
        pytest.skip(MISSING)
    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=path, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module", params=["classic", full("nodes2")])
def page(request, comfy, browser):
    """One for all tests in a renderer: it takes seconds to open."""
    from .page import Tab

    comfy.post("/history", {"clear": True})  # the page shows runs of no known workflow in nodes of the same id
    opened = browser.new_page(viewport={"width": 1500, "height": 1000})
    yield Tab(opened, comfy, vue=request.param == "nodes2")
    opened.close()


@pytest.fixture
def tab(page):
    yield page
    page.page.keyboard.press("Escape")
    errors, page.errors = page.errors, []
    assert errors == []
