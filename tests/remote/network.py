"""Machines for tests: network namespaces of this one, joined by a link of a given rate. Needs root and `ip`."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from ..host.comfy_server import MODELS

PACK = Path(__file__).resolve().parents[2]
TOKEN = "c0ffee00c0ffee00c0ffee00c0ffee00"


def can_be_made() -> bool:
    """Whether this system lets us make a namespace."""
    if not hasattr(os, "getuid") or os.getuid() or not shutil.which("ip"):
        return False
    name = f"hyb{os.getpid()}p"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode == 0
    subprocess.run(["ip", "netns", "del", name], capture_output=True)
    return made


class Machine:
    """A namespace (None: this machine's own, on loopback), with folders for temporary files and models of its own."""

    def __init__(self, name: str, namespace: str | None, address: str):
        self.name, self.namespace, self.address = name, namespace, address
        self.folder = Path(tempfile.mkdtemp(prefix=f"hyb{name}"))
        self.processes: list[subprocess.Popen] = []
        self.environment: dict[str, str] = {}  # of all that is started there

    def start(self, *arguments: str, **environment: str) -> Running:
        return Running(self, [sys.executable, *arguments], environment)

    def command(self) -> list[str]:
        return ["ip", "netns", "exec", self.namespace] if self.namespace else []

    def pids(self) -> list[int]:
        """Of all processes with this machine's folder in their environment."""
        mark = str(self.folder).encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):
                    if mark in (entry / "environ").read_bytes() and not _is_zombie(entry):
                        found.append(int(entry.name))
        return found

    def workers(self) -> list[int]:
        """Of Ray's processes that have a worker's loop in them."""
        found = []
        for pid in self.pids():
            with contextlib.suppress(OSError):
                if b"RemoteWorker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
        return found

    def signal(self, kind: int) -> None:
        """To all its processes."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, kind)

    def close(self) -> None:
        self.signal(signal.SIGKILL)
        for process in self.processes:
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def _is_zombie(entry: Path) -> bool:
    return (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z"


class Running:
    """A program on a machine; what it prints can be waited for."""

    def __init__(self, machine: Machine, command: list[str], environment: dict[str, str]):
        own = {"TMPDIR": str(machine.folder), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [*machine.command(), *command], cwd=PACK, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, start_new_session=True,
            env={**os.environ, **own, **machine.environment, **environment},
        )  # fmt: skip
        machine.processes.append(self.process)
        self.printed: list[str] = []
        self._came = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout:
            with self._came:
                self.printed.append(line.rstrip())
                self._came.notify_all()
        with self._came:
            self.printed.append("(its end)")
            self._came.notify_all()

    def say(self, line: str) -> None:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def wait_for(self, text: str, limit_s: float = 60.0, after: int = 0) -> str:
        """The first line with `text` in it, after the first `after` ones."""
        deadline = time.monotonic() + limit_s
        with self._came:
            while True:
                found = next((line for line in self.printed[after:] if text in line), None)
                if found is not None:
                    return found
                left = deadline - time.monotonic()
                if left <= 0 or self.printed[-1:] == ["(its end)"]:
                    raise AssertionError(f"no {text!r} in:\n" + "\n".join(self.printed[-40:]))
                self._came.wait(left)

    def stop(self, kind: int = signal.SIGINT, limit_s: float = 90.0) -> int:
        self.process.send_signal(kind)
        return self.process.wait(limit_s)


@contextlib.contextmanager
def machines(megabit: int | None):
    """Two machines, "a" and "b", with a link of so many Mbit/s each way; None: both this one, on loopback."""
    mark = f"hyb{os.getpid()}"
    made = []
    if megabit is None:
        made = [Machine("a", None, "127.0.0.1"), Machine("b", None, "127.0.0.2")]
    else:
        made = [Machine("a", mark + "a", "10.77.0.1"), Machine("b", mark + "b", "10.77.0.2")]
        for machine in made:
            _ip(f"netns add {machine.namespace}")
        _ip(f"link add veth0 netns {mark}a type veth peer name veth0 netns {mark}b")
        for machine in made:
            _ip(f"addr add {machine.address}/24 dev veth0", machine)
            _ip("link set lo up", machine)
            _ip("link set veth0 up", machine)
            shape(machine, megabit)
    try:
        yield made
    finally:
        for machine in reversed(made):
            machine.close()
            if machine.namespace:
                _ip(f"netns del {machine.namespace}")


def shape(machine: Machine, megabit: int) -> None:
    """What leaves the machine, at most; 0: the cable is pulled."""
    _ip(f"link set veth0 {'up' if megabit else 'down'}", machine)
    if megabit:
        burst = "256kb" if megabit <= 1000 else "2mb"
        line = f"tc qdisc replace dev veth0 root tbf rate {megabit}mbit burst {burst} latency 50ms"
        subprocess.run([*machine.command(), *line.split()], check=True)


def firewall(machine: Machine, rule: str) -> None:
    """Give a machine's iptables a rule."""
    subprocess.run([*machine.command(), "iptables", *rule.split()], check=True)


def wait_until_joined(share: Running, joined: Running) -> None:
    """Raises AssertionError with what both programs printed."""
    try:
        share.wait_for("pc-b joined", 90.0)
    except AssertionError as error:
        raise AssertionError(f"{error}\nand the other machine:\n" + "\n".join(joined.printed[-40:])) from error


def base_of(folder: Path) -> list[str]:
    """Make a ComfyUI's folder for a machine, with the test models and nodes; gives `join` its arguments for it."""
    (folder / "custom_nodes").mkdir(parents=True)
    (folder / "custom_nodes" / "hybridiff_tests").symlink_to(PACK / "tests" / "host" / "pack")
    (folder / "models").symlink_to(MODELS, target_is_directory=True)
    return ["--base-directory", str(folder)]


def _ip(line: str, machine: Machine | None = None) -> None:
    subprocess.run([*(machine.command() if machine else ()), "ip", *line.split()], check=True)


@contextlib.contextmanager
def cluster(megabit: int | None, *join: str, port: int = 6399, there: dict[str, str] | None = None, **environment: str):
    """Machines "a", which shares, and "b", which has joined; gives them and the two programs.

    `there` is for the environment of "b" alone.
    """
    with machines(megabit) as (a, b):
        b.environment |= there or {}
        given = {"HYBRIDIFF_TOKEN": TOKEN, **environment}
        share = a.start("-m", "hybridiff_core", "share", "--address", a.address, "--port", str(port), **given)
        share.wait_for("join")
        second = [] if megabit else ["--port", str(port + 100)]
        arguments = ["-m", "hybridiff_core", "join", f"{a.address}:{port}", "--name", "pc-b", *second, *join]
        arguments += ["--address", b.address]
        joined = b.start(*arguments, **given)
        wait_until_joined(share, joined)
        yield a, b, share, joined
