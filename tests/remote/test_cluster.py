"""Two machines that are both this one, by loopback addresses: joining, answers, who is let in, and what is left."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .network import PACK, TOKEN, Running, cluster

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (pip install ray)"),
    pytest.mark.skipif(sys.platform != "linux", reason="addresses as 127.0.0.2, and /proc, are Linux's"),
]
LEFT_S = 30.0
IMPORTED = "import sys, hybridiff_core.workers.pool, hybridiff_core.cli; print('ray' in sys.modules)"


class Asked:
    """A process with a pool of workers, on machine "a"."""

    def __init__(self, machine):
        self.run: Running = machine.start("tests/remote/in_pool.py")
        self.run.wait_for("ready", 60)

    def ask(self, **case) -> dict:
        printed = len(self.run.printed)
        self.run.say(json.dumps(case))
        return json.loads(self.run.wait_for("told {", 120, printed).removeprefix("told "))

    def close(self) -> None:
        self.run.process.kill()
        self.run.process.wait()


@pytest.fixture
def asked(made):
    asked = Asked(made[0])
    yield asked
    asked.close()
    assert is_gone_within(LEFT_S, lambda: actors(made[1]))


@pytest.fixture(scope="module")
def made():
    with cluster(None) as made:
        yield made


def is_gone_within(limit_s: float, found) -> bool:
    deadline = time.monotonic() + limit_s
    while found():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def actors(machine) -> list[int]:
    """The processes of workers on `machine`."""
    found = []
    for pid in machine.pids():
        with contextlib.suppress(OSError):
            if b"RemoteWorker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def test_both_say_what_they_found(made):
    _, _, share, joined = made
    assert "pc-b joined: cpu; ComfyUI" in share.wait_for("pc-b joined")
    assert "Ray" in joined.printed[0] and "Python" in joined.printed[0]
    assert any("GB of memory" in line for line in joined.printed)


def test_the_other_machines_device_is_listed_and_computes_the_same(made, asked):
    assert "pc-b: cpu" in asked.ask(ask="devices")["choices"]
    found = asked.ask(ask="exact")
    assert found["off"] <= 1e-5 and found["parts"] == 4
    assert not found["ray"]  # in the process that is ComfyUI's place
    asked.run.process.stdin.close()
    asked.run.wait_for("over", 20)
    assert is_gone_within(LEFT_S, lambda: actors(made[1]))


def test_steps_larger_than_a_call_come_whole(asked):
    assert len(asked.ask(ask="times", sizes=[16, 3000], repeats=3)["ms"]) == 2


@pytest.mark.parametrize("whom", ["comfyui", "bridge"])
def test_nothing_is_left_after_a_sudden_end(made, asked, whom):
    found = asked.ask(ask="exact")
    assert found["off"] <= 1e-5, found
    assert actors(made[1])
    os.kill(asked.run.process.pid if whom == "comfyui" else found["bridge"], signal.SIGKILL)
    assert is_gone_within(LEFT_S, lambda: actors(made[1]))
    if whom == "bridge":  # and the next run has it again
        assert asked.ask(ask="exact")["off"] <= 1e-5


def test_a_stranger_is_refused(made):
    a, b, share, _ = made
    arguments = ["-m", "hybridiff_core", "join", f"{a.address}:6399", "--name", "pc-x", "--port", "6699"]
    stranger = b.start(*arguments, HYBRIDIFF_TOKEN="0" * 48)
    assert "not the cluster's token" in stranger.wait_for("refused", 90)
    stranger.stop()
    assert not any("pc-x joined" in line for line in share.printed)


def test_no_command_line_has_the_token(made):
    lines = []
    for pid in [*made[0].pids(), *made[1].pids()]:
        with contextlib.suppress(OSError):
            lines.append(Path(f"/proc/{pid}/cmdline").read_bytes())
    assert len(lines) > 6 and not [line for line in lines if TOKEN.encode() in line]
    file = made[0].folder.glob("hybridiff-*/cluster.json")
    assert [oct(path.stat().st_mode & 0o777) for path in file] == ["0o600"]


def test_an_end_leaves_nothing(made):
    a, b, share, joined = made
    joined.stop()
    share.wait_for("pc-b is gone", 20)
    share.stop()
    assert is_gone_within(LEFT_S, lambda: [pid for m in (a, b) for pid in m.pids() if pid not in _asked(m)])


def _asked(machine) -> list[int]:
    return [process.pid for process in machine.processes]


def test_the_pack_is_imported_without_ray():
    told = subprocess.run(
        [sys.executable, "-c", IMPORTED],
        cwd=PACK, capture_output=True, text=True,
    )  # fmt: skip
    assert told.stdout.strip() == "False"
