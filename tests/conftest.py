"""Which tests run: every change runs those that are not marked `full`; `--all` (sh dev/test.sh --all) runs all.

A file is marked by `pytestmark = pytest.mark.full`, a test by `@pytest.mark.full`, a row of a parametrised test by
`full(...)`, all rows but some by `full_but(rows, ...)` (tests/tiers.py). What belongs there: a row that shows once
more, on another model or sampler, what a test of every change shows; what takes long; what only a large model can
show. What is named by its id (tests/x.py::test_y) always runs.
"""

from __future__ import annotations

import collections
import time

import pytest
import torch

from .host.comfy_server import Comfy, Unusable, find_comfyui, make_models, why_none
from .tiers import chosen, durations

FOLDERS = ("core", "diffusers", "gpu", "remote", "host", "browser")  # in this order: the quickest to fail first
STARTED, PART, LEFT, OTHERS = (pytest.StashKey() for _ in range(4))


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("tiers")
    group.addoption("--all", action="store_true", help="run the tests marked `full` too")
    group.addoption("--part", type=int, metavar="N", help="run one part of the tests marked `full`, and no others")
    group.addoption("--minutes", type=float, help="begin no test after so many minutes")


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)  # the networks are tiny: with more, on cores that are busy, they wait for each other
    config.stash[STARTED], config.stash[LEFT] = time.monotonic(), []


def pytest_sessionstart(session: pytest.Session) -> None:
    try:
        find_comfyui()
    except Unusable as error:
        raise pytest.UsageError(str(error)) from error


def file_of(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


def turn_of(item: pytest.Item) -> int:
    return next((turn for turn, name in enumerate(FOLDERS) if item.nodeid.startswith(f"tests/{name}/")), -1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=turn_of)
    full = {item for item in items if item.get_closest_marker("full")}
    for item in items:
        item.user_properties += [("file", file_of(item)), ("tier", "full" if item in full else "every")]
    if (number := config.option.part) is not None:
        place, parts = chosen(number, {file_of(item) for item in full}, durations())
        turn = {file: at for at, file in enumerate(parts[place])}
        kept = [item for item in items if item in full and file_of(item) in turn]
        kept.sort(key=lambda item: turn[file_of(item)])
        config.stash[PART] = f"part {place + 1} of {len(parts)} of the tests that not every change runs"
    elif config.option.all or config.option.markexpr or any("::" in argument for argument in config.args):
        return
    else:
        kept = [item for item in items if item not in full]
        config.stash[OTHERS] = len(items) - len(kept)
    others = set(items).difference(kept)
    config.hook.pytest_deselected(items=[item for item in items if item in others])
    items[:] = kept


@pytest.fixture(scope="session")
def comfyui_root():
    root = find_comfyui()
    if root is None:
        pytest.skip(why_none())
    return root


@pytest.fixture(scope="session")
def comfy(comfyui_root, tmp_path_factory):
    """The server of all tests that do not end it, count its workers or start it with flags."""
    make_models(comfyui_root)
    try:
        server = Comfy(comfyui_root, tmp_path_factory.mktemp("comfy") / "base")
    except RuntimeError as error:
        pytest.exit(f"the ComfyUI at {comfyui_root} does not start: {error}", returncode=1)
    yield server
    server.stop()


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    return [config.stash[PART]] if PART in config.stash else []


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    limit = item.config.option.minutes
    if limit is None or time.monotonic() - item.config.stash[STARTED] < 60 * limit:
        return None
    item.config.stash[LEFT].append(item)
    return True  # it is seen to: nothing of it runs


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    say = terminalreporter.write_line
    skipped = collections.Counter(report.longrepr[2] for report in terminalreporter.stats.get("skipped", []))
    if skipped:
        reasons = (f"{tests(count)}, {why.removeprefix('Skipped: ')}" for why, count in skipped.most_common())
        say(f"skipped: {'; '.join(reasons)}")
    if others := config.stash.get(OTHERS, 0):
        say(f"not in this suite: {tests(others)} (sh dev/test.sh --all)")
    if left := config.stash[LEFT]:
        say(f"ended after {config.option.minutes:g} minutes: {tests(len(left))} left for another time")


def tests(count: int) -> str:
    return "1 test" if count == 1 else f"{count} tests"
