"""Imports point one way, and only one file starts a process."""

import ast
from pathlib import Path

import pytest

PACK = Path(__file__).resolve().parents[2]
CORE = sorted((PACK / "hybridiff_core").rglob("*.py"))
SOURCES = [*CORE, *sorted((PACK / "nodes").rglob("*.py")), PACK / "__init__.py"]
HOST_MODULES = {"comfy", "comfy_api", "comfy_extras", "nodes", "server", "folder_paths", "execution"}
# a module may import those of earlier lines and its own; a folder alone stands for all that is in it
LAYERS = [
    "rules lines waiting phrases palette __version__",
    "telling gain",
    "plan discrepancy extrapolation share ways paces account network.split network.tokens workers.wire workers.frames "
    "workers.ledger "
    "workers.messages workers.sockets workers.reap workers.crash workers.nvml workers.gpus workers.usage "
    "workers.candidates workers.place remote.machines remote.places workers.devices workers.torch_settings",
    "schedule report call setting network.lead workers.shared workers.channel workers.launch_local remote.facts",
    "workers.pieces workers.bringing workers.token_ways workers.watch workers.memory workers.requests workers.room "
    "workers.steps "
    "workers.exchange workers.chain workers.token_links workers.endpoint "
    "workers.loop workers.worker",
    "handshake token_group",
    "team judging",
    "checking dividing sharing",
    "modes",
    "newcomers",
    "ahead",
    "engine",
    "workers.pool",
    "remote",
    "demo diffusers device_report",
    "cli",
    "__main__",
]


def imported(path):
    """(dots, dotted name) of every import statement in a file, those within functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.level, node.module
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.level, alias.name) for alias in node.names)


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.stem)
def test_the_core_knows_nothing_of_the_host(path):
    assert not {name.partition(".")[0] for dots, name in imported(path) if dots == 0} & HOST_MODULES


def core_module(path):
    """`network.split` for hybridiff_core/network/split.py."""
    return ".".join(path.relative_to(PACK / "hybridiff_core").with_suffix("").parts)


def layer_of(module):
    """The number of the layer that `module`, or the folder that it lies in, is listed in."""
    for named in (module, module.partition(".")[0]):  # a file is in its own layer, where that is listed
        for i, names in enumerate(LAYERS):
            if named in names.split():
                return i
    raise AssertionError(f"{module} is in no layer")


@pytest.mark.parametrize("path", [p for p in CORE if p.stem != "__init__"], ids=core_module)
def test_imports_within_the_core_point_down(path):
    module = core_module(path)
    for dots, name in imported(path):
        if dots:
            above = module.split(".")[:-dots]
            target = ".".join([*above, *name.split(".")])
            assert layer_of(target) <= layer_of(module), target


def test_one_file_asks_nvml():
    assert {path.name for path in SOURCES if "pynvml" in {name for _, name in imported(path)}} == {"nvml.py"}


def test_only_its_adapter_imports_diffusers():
    for path in SOURCES:
        if path.parent != PACK / "hybridiff_core" / "diffusers":
            tops = {name.partition(".")[0] for dots, name in imported(path)}
            assert not tops & {"diffusers", "transformers"}, path.name


def test_only_the_remote_folder_imports_ray():
    for path in SOURCES:
        if path.parent != PACK / "hybridiff_core" / "remote":
            assert "ray" not in {name.partition(".")[0] for dots, name in imported(path) if dots == 0}, path.name
    for name in ("machines", "places", "facts", "commands"):  # ComfyUI's process imports these
        names = {name for dots, name in imported(PACK / "hybridiff_core" / "remote" / f"{name}.py") if not dots}
        assert not {"ray"} & names, name


def test_only_the_host_folder_knows_the_hosts_internals():
    for path in (PACK / "nodes").glob("*.py"):
        inner = {name for dots, name in imported(path) if not dots and name.partition(".")[0] in HOST_MODULES}
        assert inner <= {"comfy_api.latest", "comfy.samplers", "nodes"}, path.name


def test_the_calendar_is_asked_where_only_files_of_the_same_machine_are_compared_with_it():
    """Two machines' clocks need not agree: all limits and paces are of clocks that count from a machine's start."""
    calendars = {"time.time()", "datetime", "time.localtime", "time.gmtime"}
    found = {path.name for path in SOURCES if any(name in path.read_text(encoding="utf-8") for name in calendars)}
    assert found == {"graph.py", "shelf.py"}


def test_one_file_starts_processes_and_none_unpickles():
    starters = {p.name for p in SOURCES if {"subprocess", "multiprocessing"} & {name for _, name in imported(p)}}
    assert starters == {"launch_local.py"}
    for path in SOURCES:
        assert not {"pickle", "marshal", "shelve", "dill", "cloudpickle"} & {name for _, name in imported(path)}
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        assert not {"eval", "exec", "__import__"} & names, path.name
