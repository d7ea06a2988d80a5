"""A model's file that the other machine lacks, and packs that it has, lacks or has in another version."""

from __future__ import annotations

import importlib.util
import json
import shutil
import time

import pytest

from hybridiff_core.demo import trained

from ..host.comfy_server import Comfy, make_models
from ..host.conftest import Bench
from ..host.test_exact import LIMIT
from .network import PACK, TOKEN, base_of, can_be_made, cluster

NEEDED = ("ray", "torchsde", "aiohttp", "transformers")
pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, NEEDED)), reason="needs a Python with ComfyUI's packages and Ray"
    ),
]
PACKS = PACK / "tests" / "host" / "graph_packs"
LACKS = "pc-b has no file like trained.safetensors"


class Sampling:
    """ComfyUI's process on machine "a"; `theirs` is the base directory of "b"."""

    def __init__(self, made, root, folder):
        self.a, self.theirs = made[0], folder / "b"
        (folder / "a").mkdir()
        self.run = self.a.start("tests/remote/in_comfyui.py", str(root), HYBRIDIFF_TEST_MODELS=str(folder / "a"))
        self.run.wait_for("ready", 120)

    def sample(self, **case) -> dict:
        printed = len(self.run.printed)
        told = {"model": "trained", "steps": 8, "devices": ["pc-b/cpu"], "wait": 1, **case}
        self.run.say(json.dumps(told))
        found = json.loads(self.run.wait_for("done {", 240, printed).removeprefix("done "))
        assert found["off"] <= 1e-5
        return found

    def files(self) -> list:
        return sorted(path.relative_to(self.theirs) for path in self.theirs.rglob("*") if path.is_file())


@pytest.fixture
def joining(comfyui_root, tmp_path):
    (tmp_path / "b" / "models" / "unet").mkdir(parents=True)
    return ["--comfyui", str(comfyui_root), "--base-directory", str(tmp_path / "b")]


def test_a_file_that_is_not_there_is_sent_where_the_user_allows_it(joining, comfyui_root, tmp_path):
    with cluster(None, *joining, port=6999) as made:
        side = Sampling(made, comfyui_root, tmp_path)
        found = side.sample()
        assert found["shared"] == 0 and any(LACKS in line for line in found["lines"]), found["lines"]
        assert not side.files()
        found = side.sample(sends=True)
        assert found["shared"] == 8, found["lines"]
        (sent,) = side.files()
        assert sent.parts[:-1] == ("models", "diffusion_models", "hybridiff") and sent.name.startswith("sent-")
        assert (side.theirs / sent).read_bytes() == (tmp_path / "a" / "trained.safetensors").read_bytes()
        assert side.sample(sends=True)["shared"] == side.sample()["shared"] == 8  # and it is sent once
        assert side.files() == [sent]


@pytest.mark.skipif(not can_be_made(), reason="network namespaces cannot be made here (root, ip and tc)")
def test_a_run_does_not_wait_for_a_file_that_is_being_sent(joining, comfyui_root, tmp_path):
    with cluster(4, *joining) as made:
        side = Sampling(made, comfyui_root, tmp_path)
        said, deadline = set(), time.monotonic() + 150
        while time.monotonic() < deadline:
            found = side.sample(sends=True, wait=0)
            said |= {line for line in found["lines"] if "is being sent to pc-b" in line}
            assert found["longest_s"] < 5
            if not any("ready before" in line or "being sent" in line for line in found["lines"]):
                break
            time.sleep(1.0)
        assert len(said) > 1 and all(line.startswith("trained.safetensors is being sent to pc-b: ") for line in said)
        assert len(side.files()) == 1


def test_two_devices_elsewhere_share_prompts_and_images(joining, comfyui_root, tmp_path):
    shutil.copy(trained.NETWORK, tmp_path / "b" / "models" / "unet" / "its name there.safetensors")
    with cluster(None, *joining, port=6799) as made:
        b, share, joined = made[1:]
        given = " ".join(map(str, joined.process.args))
        other = given.replace("pc-b", "pc-c").replace("127.0.0.2", "127.0.0.3").replace("6899", "6999").split()
        b.start(*other[other.index("-m") :], HYBRIDIFF_TOKEN=TOKEN)
        share.wait_for("pc-c joined", 90)
        side = Sampling(made, comfyui_root, tmp_path)
        both = {"devices": ["pc-b/cpu", "pc-c/cpu"]}
        for case in ({"batch": 3, "cfg": 1.0}, {"batch": 3, "cfg": 5.0}, {"batch": 1, "cfg": 5.0}):
            found = side.sample(**both, **case)
            expected = 1 if case["batch"] == 1 else 2  # two prompts are for this process and one device
            assert found["helpers"][-1] == expected and found["shared"] == 8, found
            assert found["ways"][-1] == ("conds" if case["batch"] == 1 else "rows"), found


# -- by graph


class Server(Comfy):
    """ComfyUI on machine "a", with packs; "b" has their folder `theirs`."""

    def __init__(self, made, root, folder):
        make_models(root)
        self.a, self.b, self.share, self.joined = made
        self.theirs = folder / "b" / "custom_nodes"
        packs = [PACKS / "kinds.py", PACKS / "changed.py"]
        super().__init__(root, folder / "server", packs=packs, TMPDIR=str(self.a.folder))

    def sample(self, kind: str, **inputs) -> dict:
        side = Bench(self, "sd15", size=8)
        side.model = side.graph.add(kind, model=side.model, **inputs)
        side.devices = ("pc-b: cpu",)
        difference, report = side.compare()
        assert difference <= LIMIT
        return report

    def join_again(self) -> None:
        self.joined.stop()
        self.share.wait_for("pc-b is gone", 30)
        printed = len(self.share.printed)
        given = self.joined.process.args
        self.joined = self.b.start(*given[given.index("-m") :], HYBRIDIFF_TOKEN=TOKEN)
        self.share.wait_for("pc-b joined", 60, printed)


@pytest.fixture
def server(comfyui_root, tmp_path):
    with cluster(None, "--comfyui", str(comfyui_root), *base_of(tmp_path / "b"), port=7099) as made:
        server = Server(made, comfyui_root, tmp_path)
        yield server
        server.stop()


def test_a_model_by_its_graph(server):
    """The other machine has its packs and its dates of files; a pack is known by what is in it."""
    changed = server.theirs / "by_graph_changed.py"
    report = server.sample("PackThatChanged")
    assert report["shared_calls"] == 0
    assert any("pc-b does not have the pack by_graph_changed" in line for line in report["lines"]), report["lines"]

    shutil.copy(PACKS / "kinds.py", server.theirs / "by_graph_kinds.py")  # newer than ComfyUI's start
    assert_shared(server.sample("PackPatch", way="object_patch", scale=0.9))

    changed.write_text((PACKS / "changed.py").read_text().replace("0.9", "0.8"))
    server.join_again()
    report = server.sample("PackThatChanged")
    assert report["shared_calls"] == 0
    assert any("another version of the pack by_graph_changed" in line for line in report["lines"]), report["lines"]

    changed.write_bytes((PACKS / "changed.py").read_bytes().replace(b"\n", b"\r\n"))
    server.join_again()
    assert_shared(server.sample("PackThatChanged"))


def assert_shared(report: dict) -> None:
    assert report["shared_calls"] >= report["calls"] - 2 > 0 and not report["lines"], report["lines"]
