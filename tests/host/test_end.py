"""ComfyUI's end, however it comes: within five seconds nothing of ours is left."""

from __future__ import annotations

import contextlib
import signal
import time
from pathlib import Path

import psutil
import pytest

from .comfy_server import Comfy, Events, make_models
from .conftest import Bench
from .test_exact import LIMIT, assert_shared
from .test_fallbacks import workers

LIMIT_S = 5.0
SHARED_MEMORY = Path("/dev/shm")


@pytest.fixture
def fresh(comfyui_root, tmp_path):
    """A server of its own, with a folder of its own for temporary files."""
    make_models(comfyui_root)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    comfy = Comfy(comfyui_root, tmp_path / "base", TMPDIR=str(temporary))
    yield comfy
    comfy.stop()


def listing(*folders: Path) -> set[Path]:
    return {path for folder in folders if folder.is_dir() for path in folder.iterdir()}


def mapped() -> set[str]:
    """Every file that a living process maps or holds open: other programs of the machine have theirs."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            found |= {entry.path for entry in process.memory_maps()} | {entry.path for entry in process.open_files()}
    return found


def ports(processes: list[psutil.Process]) -> set[int]:
    return {entry.laddr.port for process in processes for entry in process.net_connections("tcp")}


def in_use() -> set[int]:
    live = [psutil.CONN_LISTEN, psutil.CONN_ESTABLISHED]
    return {entry.laddr.port for entry in psutil.net_connections("tcp") if entry.status in live}


def gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def within(limit_s: float, done) -> bool:
    deadline = time.monotonic() + limit_s
    while not done() and time.monotonic() < deadline:
        time.sleep(0.02)
    return done()


def for_three(comfy: Comfy, **size: int) -> Bench:
    """Three conds, so that two workers help."""
    side = Bench(comfy, "sd3", **size)
    side.devices = ("same", "cpu")
    side.positive = side.graph.add("ConditioningCombine", conditioning_1=side.positive, conditioning_2=side.text(8))
    return side


def busy(comfy: Comfy, midway: bool) -> list[psutil.Process]:
    """Workers that have done a run, and are in another one if `midway`."""
    side = for_three(comfy)
    difference, _ = side.compare()
    assert difference <= LIMIT
    if midway:
        tab = Events(comfy, "end")
        side = for_three(comfy, size=48)
        side.settings["steps"] = 500
        side.save(side.sampler("HybridiffKSampler", **side.device_chain()))
        tab.wait_for_step(comfy.queue(side.graph.nodes, tab.client), 3)
    found = workers(comfy)
    assert len(found) == 2
    return found


def restart(comfy: Comfy) -> None:
    with contextlib.suppress(OSError):  # it does not answer any more
        comfy.post("/tests/restart", {})


ENDS = {
    "killed": lambda comfy: comfy.process.kill(),
    "Ctrl-C": lambda comfy: comfy.process.send_signal(signal.SIGINT),
    "restarted": restart,
}


@pytest.mark.parametrize("midway", [pytest.param(False, marks=pytest.mark.full), True], ids=["idle", "midway"])
@pytest.mark.parametrize("end", ENDS)
def test_nothing_is_left(fresh, end, midway):
    folders = (SHARED_MEMORY, fresh.base.parent / "temporary")
    before = listing(*folders)
    host = psutil.Process(fresh.process.pid)
    sockets = len(host.net_connections("all"))
    found = busy(fresh, midway)
    used = ports([host, *found]) - {fresh.port}
    started = time.monotonic()
    ENDS[end](fresh)
    # of the host nothing is asked: after Ctrl-C it takes ten seconds, with or without this pack
    assert within(LIMIT_S, lambda: all(gone(process) for process in found)), fresh.tail()
    assert within(started + LIMIT_S - time.monotonic(), lambda: not used & in_use()), used & in_use()
    if end != "restarted":
        fresh.process.wait(60)
    left = {path for path in listing(*folders) - before if str(path) not in mapped()}
    assert not left
    if end == "restarted":
        fresh.wait_until_up()
        assert host.is_running() and fresh.process.poll() is None  # the same process goes on
        assert within(LIMIT_S, lambda: not host.children()), [child.status() for child in host.children()]
        assert within(LIMIT_S, lambda: len(host.net_connections("all")) <= sockets)
        difference, report = Bench(fresh, "sd3").compare()
        assert difference <= LIMIT
        assert_shared(report)
        assert len(workers(fresh)) == 1
