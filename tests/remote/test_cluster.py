"""Two machines that are both this one, by loopback addresses: joining, answers, who is let in, and what is left."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .network import PACK, TOKEN, Running, can_be_made, cluster, firewall, machines, wait_until_joined

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (pip install ray)"),
    pytest.mark.skipif(sys.platform != "linux", reason="addresses as 127.0.0.2, and /proc, are Linux's"),
]
LEFT_S = 30.0
FAKETIME = Path(f"/usr/lib/{platform.machine()}-linux-gnu/faketime/libfaketimeMT.so.1")
WORKERS = range(6406, 6409)  # where a worker listens for its bridge, for a moment
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
    assert is_gone_within(LEFT_S, lambda: made[1].workers())


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
    assert is_gone_within(LEFT_S, lambda: made[1].workers())


def test_large_steps_come_whole(asked):
    assert len(asked.ask(ask="times", sizes=[16, 3000], repeats=3)["ms"]) == 2


@pytest.mark.parametrize("whom", ["comfyui", "bridge"])
def test_nothing_is_left_after_a_sudden_end(made, asked, whom):
    found = asked.ask(ask="exact")
    assert found["off"] <= 1e-5, found
    assert made[1].workers()
    os.kill(asked.run.process.pid if whom == "comfyui" else found["bridge"], signal.SIGKILL)
    assert is_gone_within(LEFT_S, lambda: made[1].workers())
    if whom == "bridge":  # and the next run has it again
        assert asked.ask(ask="exact")["off"] <= 1e-5


@pytest.mark.parametrize("stranger", ["another token", "no token", "another Ray"])
def test_a_stranger_is_refused(made, stranger, tmp_path):
    a, b, share, _ = made
    given, expected = {"HYBRIDIFF_TOKEN": "0" * 48}, "not the cluster's token"
    if stranger == "no token":
        given, expected = {"HYBRIDIFF_TOKEN": ""}, "no token was given"
    if stranger == "another Ray":
        (tmp_path / "ray-2.52.1.dist-info").mkdir()
        (tmp_path / "ray-2.52.1.dist-info" / "METADATA").write_text("Name: ray\nVersion: 2.52.1\n")
        given, expected = {"HYBRIDIFF_TOKEN": TOKEN, "PYTHONPATH": str(tmp_path)}, "refused: the cluster has Ray"
    arguments = ["-m", "hybridiff_core", "join", f"{a.address}:6399", "--name", "pc-x", "--port", "6699"]
    joining = b.start(*arguments, **given)
    joining.process.stdin.close()
    assert expected in joining.wait_for("refused", 90)
    joining.stop()
    assert not any("pc-x joined" in line for line in share.printed)


@pytest.mark.parametrize("command", ["share", "join"])
def test_a_port_in_use_is_named(made, command):
    a, b, *_ = made
    where = ["--address", a.address, "--port", "6399"]
    if command == "join":
        where = [f"{a.address}:6399", "--name", "pc-x", "--address", b.address, "--port", "6499"]
    second = (a if command == "share" else b).start("-m", "hybridiff_core", command, *where, HYBRIDIFF_TOKEN=TOKEN)
    assert f"port {6399 if command == 'share' else 6500} of 127.0.0." in second.wait_for("is in use", 60)
    assert second.process.wait(10) == 1


def test_without_a_port_for_the_worker_it_is_said(made, asked):
    with contextlib.ExitStack() as taken:
        for port in WORKERS:
            taken.enter_context(socket.create_server((made[1].address, port + 100)))
        said = asked.ask(ask="exact")["said"]
        assert "pc-b is there, but its worker cannot be reached (" in said[0] and "in use" in said[0], said
    assert asked.ask(ask="exact")["off"] <= 1e-5


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


@pytest.mark.full
@pytest.mark.skipif(not can_be_made(), reason="network namespaces cannot be made here (root, ip and tc)")
def test_what_listens_and_for_how_long():
    """Only the ports that `share` names and the firewall is told of, and none before it or after."""
    with machines(1000) as (a, b):
        assert listening(a) == listening(b) == {}
        share = a.start("-m", "hybridiff_core", "share", "--address", a.address, HYBRIDIFF_TOKEN=TOKEN)
        share.wait_for("join")
        arguments = ["-m", "hybridiff_core", "join", f"{a.address}:6399", "--name", "pc-b", "--address", b.address]
        joined = b.start(*arguments, HYBRIDIFF_TOKEN=TOKEN)
        wait_until_joined(share, joined)
        asked = Asked(a)
        assert asked.ask(ask="exact")["off"] <= 1e-5
        print("listening", listening(a), listening(b))
        for machine in (a, b):
            found = listening(machine)
            assert all(6399 <= port <= 6459 and port not in WORKERS for port in found), found
        asked.close()
        joined.stop()
        share.stop()
        assert is_gone_within(LEFT_S, lambda: listening(a) or listening(b))


@pytest.mark.full
@pytest.mark.skipif(not can_be_made() or not shutil.which("iptables"), reason="namespaces, or no iptables in them")
def test_a_firewall_before_the_workers_port_is_told_of():
    with cluster(1000) as (a, b, *_):
        asked = Asked(a)
        for rule in ("-A INPUT -p tcp --dport 6406:6408 -j DROP", "-F"):
            firewall(b, rule)
            found = asked.ask(ask="exact")
            if rule == "-F":
                assert found["off"] <= 1e-5
            else:
                assert "pc-b is there, but its worker cannot be reached (timed out)" in found["said"][0], found
        asked.close()


def listening(machine) -> dict[int, str]:
    """The ports that something listens on, and at which address."""
    told = subprocess.run([*machine.command(), "ss", "-Hltn"], capture_output=True, text=True, check=True).stdout
    found = (line.split()[3].rpartition(":") for line in told.splitlines())
    return {int(port): address for address, _, port in found}


@pytest.mark.full
@pytest.mark.skipif(not FAKETIME.exists(), reason="no libfaketime (apt install libfaketime)")
@pytest.mark.parametrize("shift", ["+3d", "-3d"])
def test_another_clock_changes_nothing(shift):
    """The other machine's calendar is days off, as seen by all of its processes."""
    there = {"LD_PRELOAD": str(FAKETIME), "FAKETIME": shift}
    with cluster(None, port=7299, there=there) as made:
        asked = Asked(made[0])
        for _ in range(2):
            assert asked.ask(ask="exact")["off"] <= 1e-5
        for pid in made[1].workers():
            assert FAKETIME.name in Path(f"/proc/{pid}/maps").read_text()
        asked.close()


def own_cluster(machine, mode: str) -> Running:
    """A cluster that a user started there with Ray's own command; RAY_AUTH_MODE is `mode`."""
    ray = Path(sys.executable).with_name("ray")
    auth = {"RAY_AUTH_MODE": mode, **({"RAY_AUTH_TOKEN": TOKEN} if mode == "token" else {})}
    ports = ["--port=7399", "--min-worker-port=7420", "--max-worker-port=7460", f"--temp-dir={machine.folder}/r"]
    head = [str(ray), "start", "--head", "--block", "--node-ip-address=127.0.0.2", "--include-dashboard=false"]
    own = Running(machine, [*head, *ports], auth)
    own.wait_for("started", 60)
    return own


def share_of_own_cluster(machine) -> Running:
    command = ["-m", "hybridiff_core", "share", "--cluster", "127.0.0.2:7399", "--address", machine.address]
    return machine.start(*command, "--port", "7499", HYBRIDIFF_TOKEN=TOKEN)


@pytest.mark.full
@pytest.mark.parametrize("mode", ["disabled", "token"])
def test_a_users_own_cluster_serves_if_it_asks_for_a_token(mode):
    with machines(None) as (a, b):
        own = own_cluster(b, mode)
        share = share_of_own_cluster(a)
        if mode == "disabled":
            share.wait_for("lets in everybody", 150)
            assert share.process.wait(10) == 1
        else:
            share.wait_for("Ctrl-C ends", 150)
            assert is_gone_within(120, lambda: not list(a.folder.glob("hybridiff-*/cluster.json")))
            share.stop()
        own.stop()


@pytest.mark.full
def test_a_cluster_is_not_served_before_it_is_known_to_ask_for_a_token():
    """Nobody is there yet; then a cluster comes that lets in everybody."""
    with machines(None) as (a, b):
        share = share_of_own_cluster(a)
        share.wait_for("did not show whether it asks for a token", 150)
        own = own_cluster(b, "disabled")
        share.wait_for("lets in everybody", 150)
        assert share.process.wait(10) == 1 and not any("join" in line for line in share.printed)
        own.stop()
