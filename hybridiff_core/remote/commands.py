"""`python -m hybridiff_core share` and `join`: the two commands that make a cluster of machines."""

from __future__ import annotations

import argparse
import contextlib
import errno
import getpass
import ipaddress
import json
import os
import platform
import re
import secrets
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable

import psutil

from ..workers.launch_local import KEEP_HEAP, WorkerProcess
from ..workers.place import Place
from . import facts
from .arguments import PORT, TOKEN
from .link import MODULE_FOLDER, ray_environment
from .machines import Cluster, Device, Machine, forget, kept_token, resource, to_labels, write

OPEN = "HYBRIDIFF_TRUST_A_CLUSTER_WITHOUT_TOKEN"
AGAIN_S = 3.0
PROBE_S, STARTED = 120.0, "Ray runtime started"  # what Ray says of a node that was let in
REFUSED = "refused: that is not the cluster's token"
IN_USE = ("port {port} of {address} is in use, perhaps by another `share` or `join` on this machine; choose another "
          "number with --port: it and the 60 after it have to be free")  # fmt: skip
END_S = 8.0  # for Ray to end what it started
# a machine that is off is seen in some seconds
SYSTEM = {
    "health_check_initial_delay_ms": 2000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 2,
}
# as KEEP_HEAP, for the messages of a worker on a GPU alone
KEEP_MESSAGES = {**KEEP_HEAP, "MALLOC_TRIM_THRESHOLD_": str(128 << 20)}
STORE = 100 << 20  # Ray's object store, which is hardly used
# Ports are fixed, counted from the one that the user gives, so that a firewall can be told of them: Ray's head has that
# one, every node those that Ray has a name for, a worker of ours one of WORKERS while its bridge connects.
NODES = ("node-manager-port", "object-manager-port", "runtime-env-agent-port", "dashboard-agent-listen-port",
         "dashboard-agent-grpc-port", "metrics-export-port")  # fmt: skip
WORKERS = range(7, 10)
RAYS_WORKERS = (10, 60)


def run(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Either command, until Ctrl-C; the exit status."""
    if facts.ray_version() is None:
        print("Ray is not installed for this Python: pip install 'ray>=2.52' (the same version on all machines)")
        return 1
    try:
        return (_share if options.command == "share" else _join)(options, parser)
    except KeyboardInterrupt:
        return 130


# -- this machine


def _share(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    token = options.token or os.environ.get(TOKEN) or kept_token()
    address = _address(options.address, parser) if options.address else _network_address()
    cluster = _host_port(options.cluster, parser) if options.cluster else f"{address}:{options.port}"
    if _is_in_use(address, _nodes(options.port) if options.cluster else [options.port, *_nodes(options.port)]):
        return 1
    if options.cluster and os.environ.get(OPEN) != "1" and _lets_in_everybody(cluster, address, options.port):
        print(f"{cluster} lets in everybody who can reach it, for it asks for no token: anybody on that network could "
              f"run programs on this machine.\nStart that cluster with RAY_AUTH_MODE=token, or set {OPEN}=1 if you "
              "trust everybody there.")  # fmt: skip
        return 1
    print(_versions())
    print(f"Ray {'of ' + cluster if options.cluster else f'listens on {address}, ports {_ports(options.port)}'}")
    python = "python -m hybridiff_core"
    print(f"On each other machine, in its ComfyUI's Python:\n\n    {python} join {cluster}\n\nand when asked this "
          f"token (or before it {TOKEN}=...):\n\n    {token}\n\nWho has it can run programs on all these machines. "
          "Ctrl-C ends the sharing.", flush=True)  # fmt: skip
    place = [f"--address={cluster}"] if options.cluster else ["--head", f"--port={options.port}"]
    if not options.cluster:
        place += ["--include-dashboard=false", f"--system-config={json.dumps(SYSTEM)}"]
    arguments = [*place, *_common(address, options.port)]
    seen: dict[str, bool] = {}

    def look(node: WorkerProcess) -> None:
        watching = WorkerProcess("lookout", _nowhere("lookout"))
        threading.Thread(target=lambda: (_until_ended(node), watching.stop(0.0)), daemon=True).start()
        try:
            watching.pipe.send({"address": cluster, "node_ip": address, "token": token})
            while node.alive() and (frame := watching.pipe.receive()):
                if frame["op"] == "refused":
                    print(f"Ray did not let this machine in: {frame['text']}", flush=True)
                    return
                found = tuple(
                    Machine(**{**one, "devices": tuple(Device(**d) for d in one["devices"])})
                    for one in frame["machines"]
                )
                write(Cluster(cluster, address, token, found))
                _tell(found, seen)
        finally:
            watching.stop(1.0)
            forget()

    return _keep(arguments, token, {}, look)


def _tell(found: tuple[Machine, ...], seen: dict[str, bool]) -> None:
    """Print who came and who went."""
    now = {machine.name: machine for machine in sorted(found, key=lambda machine: machine.alive)}
    for name, machine in now.items():
        if machine.alive != seen.get(name, False):
            has = ", ".join(device.title for device in machine.devices)
            own = facts.pack_version()
            unlike = "" if machine.pack == own else f"; left out: its Hybridiff is {machine.pack}, here {own}"
            print(f"{name} joined: {has}; ComfyUI {machine.comfyui or 'unknown'}{unlike}" if machine.alive
                  else f"{name} is gone", flush=True)  # fmt: skip
        seen[name] = machine.alive


# -- another machine


def _join(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    cluster = _host_port(options.cluster, parser)
    head = cluster.rpartition(":")[0]
    address = _address(options.address, parser) if options.address else facts.address_towards(head)
    name = options.name or facts.own_name()
    if not facts.NAME.fullmatch(name):
        parser.error(f"--name is {name!r}; use letters, digits, - and ., at most 40")
    try:
        token = options.token or os.environ.get(TOKEN) or getpass.getpass("token: ")
    except EOFError:
        token = None
    if not token:
        print(f"refused: no token was given. `share` printed it; type it when it is asked for, or set {TOKEN}")
        return 1
    ports = [options.port + n for n in WORKERS]
    if _is_in_use(address, [*_nodes(options.port), *ports]):
        return 1
    root = facts.comfyui_at(options.comfyui)
    print(_versions())
    machine = facts.machine(name, root)
    for device in machine.devices:
        print(f"  {device.title}" + (f": {device.gigabytes} GB of memory" if device.name == "cpu" else ""))
    print(
        f"  ComfyUI {machine.comfyui} in {root}" if root else "  no ComfyUI was found: use --comfyui PATH", flush=True
    )
    if root is None and options.comfyui:
        return 1
    arguments = [f"--address={cluster}", *_common(address, options.port)]
    arguments.append("--labels=" + ",".join(f"{key}={value}" for key, value in to_labels(machine).items()))
    arguments.append("--resources=" + json.dumps({resource(device.name): 1 for device in machine.devices}))
    here = facts.here(name, root, options.base_directory, address, ports)
    more = {
        "HYBRIDIFF_HERE": json.dumps(here),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(MODULE_FOLDER), os.environ.get("PYTHONPATH")])),
        "OMP_NUM_THREADS": str(here["threads"]),
        **(KEEP_MESSAGES if any(device.model for device in machine.devices) else KEEP_HEAP),
    }
    print(f"joining {cluster} as {name}; Ctrl-C ends it", flush=True)
    return _keep(arguments, token, more, lambda node: _until_ended(node))


def _until_ended(node: WorkerProcess) -> None:
    while node.alive():
        time.sleep(0.5)


# -- both


def _keep(arguments: list[str], token: str, more: dict[str, str], meanwhile: Callable[[WorkerProcess], None]) -> int:
    """Run one of Ray's nodes, again whenever it ends, until Ctrl-C."""
    said = ""
    while True:
        folder = tempfile.mkdtemp(prefix="hyr")
        node = WorkerProcess("node", _nowhere("node"))
        try:
            environment = {**ray_environment(token), **more}
            node.pipe.send({"arguments": [*arguments, f"--temp-dir={folder}"], "environment": environment})
            reading = threading.Thread(target=node.pipe.receive, daemon=True)
            reading.start()
            meanwhile(node)
            why = _why(node)
            if why and why != said:
                print(f"{why}\ntrying again every {AGAIN_S:.0f} s", flush=True)
                said = why
        finally:
            _end(node)
            shutil.rmtree(folder, ignore_errors=True)
        time.sleep(AGAIN_S)


def _end(node: WorkerProcess) -> None:
    """End a node and all that Ray started for it."""
    started = []
    with contextlib.suppress(psutil.Error):
        started = psutil.Process(node.pid).children(recursive=True)
    node.stop(END_S)
    for process in started:
        with contextlib.suppress(psutil.Error):  # it knows its process from a later one of that number
            process.kill()


def _why(node: WorkerProcess) -> str:
    """What ended Ray here, in words a user can do something with."""
    node.last_words(2.0)
    told = "\n".join(node.tail)
    if "AuthenticationError" in told or "InvalidAuthToken" in told:
        return f"{REFUSED} (it is asked for, or taken from {TOKEN})"
    if "ersion mismatch" in told:
        theirs = re.findall(r"(Ray|Python): (\S+)", told)[:2]
        has = ", ".join(f"{what} {version}" for what, version in theirs)
        return f"refused: the cluster has {has}; this machine needs the same ({_versions()})"
    errors = [line for line in node.tail if "Error" in line]
    return errors[-1][:300] if errors else "Ray's process on this machine ended"


def _common(address: str, first: int) -> list[str]:
    """What Ray is told of any node."""
    lowest, highest = RAYS_WORKERS
    return [
        "--block", f"--node-ip-address={address}", "--num-cpus=0", "--num-gpus=0", "--disable-usage-stats",
        f"--object-store-memory={STORE}", *(f"--{name}={port}" for name, port in zip(NODES, _nodes(first))),
        f"--min-worker-port={first + lowest}", f"--max-worker-port={first + highest}",
    ]  # fmt: skip


def _is_in_use(address: str, ports: Iterable[int]) -> bool:
    """Whether something listens already on one of `ports`; says so."""
    for port in ports:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
            if sys.platform != "win32":  # there it would take the port from whoever has it
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what was closed just now is free
            try:
                probe.bind((address, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    print(IN_USE.format(port=port, address=address))
                    return True
    return False


def _nodes(first: int) -> list[int]:
    """The ports that a node of Ray's listens on, in the order of NODES."""
    return list(range(first + 1, first + 1 + len(NODES)))


def _ports(first: int) -> str:
    return f"{first} to {first + RAYS_WORKERS[1]}"


def _nowhere(name: str) -> Place:
    return Place(name, name, "cpu")


def _versions() -> str:
    return f"Hybridiff {facts.pack_version()}, Python {platform.python_version()}, Ray {facts.ray_version()}"


def _lets_in_everybody(cluster: str, address: str, port: int) -> bool:
    """Whether a cluster takes a node with a token that it cannot know. Tries until that is known."""
    said = ""
    while True:
        found, why = _try_to_get_in(cluster, address, port)
        if found is not None:
            return found
        if why != said:
            print(f"{cluster} did not show whether it asks for a token: {why}\n"
                  f"trying again every {AGAIN_S:.0f} s", flush=True)  # fmt: skip
            said = why
        time.sleep(AGAIN_S)


def _try_to_get_in(cluster: str, address: str, port: int) -> tuple[bool | None, str]:
    """Whether a node with a token that the cluster cannot know is let in; None where that is not known, and why."""
    folder, probe = tempfile.mkdtemp(prefix="hyr"), WorkerProcess("node", _nowhere("node"))
    try:
        arguments = [f"--address={cluster}", *_common(address, port), f"--temp-dir={folder}"]
        probe.pipe.send({"arguments": arguments, "environment": ray_environment(secrets.token_hex(24))})
        deadline = time.monotonic() + PROBE_S
        while probe.alive() and time.monotonic() < deadline:
            if any(STARTED in line for line in list(probe.tail)):
                return True, ""
            time.sleep(0.2)
        if probe.alive():
            return None, f"Ray did not start within {PROBE_S:.0f} s"
        why = _why(probe)
        return (False if why.startswith(REFUSED) else None), why
    finally:
        _end(probe)
        shutil.rmtree(folder, ignore_errors=True)


def _network_address() -> str:
    try:
        return facts.address_towards("192.0.2.1")  # nobody's: only the way out is asked for
    except OSError:
        return "127.0.0.1"


def _address(text: str, parser: argparse.ArgumentParser) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        parser.error(f"--address is {text!r}; use an address of this machine, as 192.168.1.5")


def _host_port(text: str, parser: argparse.ArgumentParser) -> str:
    """An address, with the usual port where it has none; names are looked up, for Ray wants addresses."""
    host, _, port = text.rpartition(":") if ":" in text else (text, "", str(PORT))
    try:
        return f"{ipaddress.ip_address(socket.gethostbyname(host))}:{int(port)}"
    except (OSError, ValueError):
        parser.error(f"{text!r} is no address; use HOST:PORT as `share` printed it")
