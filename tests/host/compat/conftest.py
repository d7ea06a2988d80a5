"""Each test here is a row of docs/COMPATIBILITY.md; `python -m tests.host.compat` runs them and writes it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ..comfy_server import PACK
from ..conftest import Bench
from ..test_exact import LIMIT

ROWS = Path(os.environ.get("HYBRIDIFF_COMPAT_ROWS") or PACK / ".cache" / "compat")  # of --add: a folder of its own
SECTIONS = (
    "Models", "Loaders", "Weight formats", "Weight changes", "Conditioning", "Samplers", "Other packs",
    "Published packs", "Hosts",
)  # fmt: skip
TWO_DEVICES, ONE_DEVICE, LEFT_OUT, FAILS = "two devices", "one device", "left out", "FAILS"
# further cells of a row, and their heads
CELLS = {"rows": "rows", "tokens": "tokens", "stage": "pipeline stage"}
TWO, ONE = ("same",), ("cuda:7",)  # chains of devices: one to help, and one that is not there
NEAR = 0.03  # how far auto's latent may be from KSampler's, as a share of it
ALIKE = 1e-3  # how far auto's latents with one and with two devices may be apart, as the largest difference


class Row:
    """What a test found out about one thing that people put in graphs."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.values: dict = {}

    def of(self, section: str, name: str) -> None:
        """Say first which row it is: a test that fails later leaves a row that says so."""
        assert section in SECTIONS
        self.values = {"section": section, "row": name, "result": FAILS, "difference": None, "reason": ""}

    def compared(self, difference: float, report: dict, reason: str = "", limit: float = LIMIT) -> None:
        """The result of Bench.compare: shared, or on one device with a line that says why; equal in any case.

        `limit` is above LIMIT where the host's own pictures differ by more.
        """
        shared = bool(report["shared_calls"])
        why = reason or ("" if shared else "; ".join(report["lines"]))
        assert shared or why, "ran on one device and does not say why"
        self.values.update(result=TWO_DEVICES if shared else ONE_DEVICE, difference=difference, reason=why)
        assert difference <= limit, self.values
        self.values["held"] = True

    def cell(self, name: str, text: str) -> None:
        """A further cell of CELLS: `rows`, a batch of three at CFG 1; `tokens`; `stage`, the pipeline stage."""
        assert name in CELLS
        self.values[name] = text

    def cells(self, **finders: Callable[[], str]) -> None:
        """Further cells, by what finds each: all are tried, and then the first fault is raised."""
        faults = []
        for name, find in finders.items():
            self.cell(name, FAILS)
            try:
                self.cell(name, find())
            except Exception as fault:  # noqa: BLE001 - raised below
                faults.append(fault)
        if faults:
            raise faults[0]

    def auto(self, two: Pair, one: Pair) -> None:
        """auto with two devices and with one: near KSampler's picture, and the same with either."""
        predicted = two.predicted
        assert one.predicted == predicted and two.apart(one) <= ALIKE, (predicted, one.predicted, two.apart(one))
        if not predicted:
            self.compared(two.difference, two.report, "; ".join(two.told))
            return
        reason = f"{predicted} of {len(two.report['steps'])} calls predicted, {two.off:.1%} off, with one device too"
        self.values.update(
            result=TWO_DEVICES if two.report["shared_calls"] else ONE_DEVICE, difference=two.difference, reason=reason
        )
        assert two.off <= NEAR, self.values
        self.values["held"] = True

    def left_out(self, reason: str) -> None:
        """The host itself cannot do it, so there is nothing to compare."""
        self.values.update(result=LEFT_OUT, reason=reason, held=True)

    def write(self) -> None:
        assert self.values, "the test did not say which row it is"
        if not self.values.pop("held", False):
            self.values["result"] = FAILS
        name = re.sub(r"\W+", "_", f"{self.values['section']} {self.values['row']}".lower())
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{name}.json").write_text(json.dumps(self.values, indent=1))


class Pair:
    """A latent of ours beside the host's, from one prompt, and our report."""

    def __init__(self, side: Bench, outputs: dict, stock: str, ours: str, report: dict):
        self.stock, self.ours, self.report = side.latent_of(outputs, stock), side.latent_of(outputs, ours), report
        self.difference = side.difference(outputs, stock, ours)

    @property
    def off(self) -> float:
        """How far ours is from the host's, as a share of it."""
        return ((self.ours - self.stock).norm() / self.stock.norm()).item()

    @property
    def predicted(self) -> int:
        return [step["work"] for step in self.report["steps"]].count("predicted")

    @property
    def told(self) -> list[str]:
        """The report's lines without those that say what came of a plan."""
        left_out = (" steps predicted", " steps in the mode ", "cuda:7")
        return [line for line in self.report["lines"] if not any(words in line for words in left_out)]

    def apart(self, other: Pair) -> float:
        return (self.ours - other.ours).abs().max().item()


class TrainedBench(Bench):
    """The same on the demo's trained model, of which steps can be predicted, in auto."""

    def load(self, family: str, size: int, batch: int) -> None:
        self.model = self.graph.add("UNETLoader", unet_name="emoji_dit.safetensors", weight_dtype="default")
        self.positive, self.negative = self.text("birthday cake"), self.text("")
        self.latent = self.graph.add("TestLatent", seed=3, channels=16, size=16, batch=batch)

    def text(self, words: str) -> list:
        return self.graph.add("HybridiffDemoWords", text=words)


@pytest.fixture
def trained(comfy):
    """Makes a TrainedBench: trained(seed=5)."""

    def make(seed: int, batch: int = 1) -> TrainedBench:
        side = TrainedBench(comfy, "trained", batch=batch)
        side.settings |= {"seed": seed, "steps": 12, "cfg": 3.0, "scheduler": "simple"}
        side.plan = {}  # auto
        return side

    return make


def assert_by_tokens(report: dict) -> None:
    """All calls were shared by tokens; the first one may have shown what the network does with them."""
    assert {step["way"] for step in report["steps"] if step["helpers"]} == {"tokens"}, report["steps"]
    assert report["shared_calls"] >= report["calls"] - 1


def both(side: Bench, sample: Callable[[list], list], lay: Callable[[list], list] | None = None, first=True) -> Pair:
    """`sample` on the plain model and on ours. `lay` puts something on both, on ours before or after Hybridiff."""
    (pair,) = each(side, sample, lay, first, (side.devices,))
    return pair


def each(side: Bench, sample: Callable, lay: Callable | None = None, first=True, devices=(TWO, ONE)) -> list[Pair]:
    """As `both`, for each of several chains of devices."""
    lay = lay or (lambda model: model)
    stock = side.save(sample(lay(side.model)))
    saved = []
    for side.devices in devices:
        ours = side.graph.add("HybridiffModel", model=lay(side.model) if first else side.model, **side.device_chain())
        ours = ours if first else lay(ours)
        latent = sample(ours)
        saved.append((side.save(latent), side.graph.add("TestReportOf", model=ours, latent=latent)[0]))
    outputs = side.comfy.run(side.graph.nodes)
    return [Pair(side, outputs, stock, own, outputs[told]["hybridiff"][0]) for own, told in saved]


def without(side):
    """The same run without what a row is about: it must be another picture."""
    return side.save(side.sampler("KSampler"))


def compared(side, without: str | None = None):
    """Bench.compare; stock's picture must not be the one that is saved by the node `without`."""
    side.stock = side.save(side.sampler("KSampler"))
    ours = side.sampler("HybridiffKSampler", **side.device_chain())
    saved = side.save(ours)
    outputs = side.comfy.run(side.graph.nodes)
    (report,) = outputs[ours[0]]["hybridiff"]
    if without is not None:
        assert side.difference(outputs, without, side.stock) > 1e-3
    return side.difference(outputs, side.stock, saved), report


@pytest.fixture
def row():
    row = Row(ROWS)
    yield row
    row.write()


@pytest.fixture(scope="session")
def infos(comfy):
    return comfy.get("/object_info")


@pytest.fixture
def put(infos):
    """Adds a node with the server's own defaults for widgets that are not named: put(side, kind, **inputs)."""
    return adder(infos)


def adder(infos: dict) -> Callable[..., list]:
    """What the fixture `put` gives, for the server whose `infos` of nodes these are."""

    def put(side, kind: str, **given) -> list:
        info = infos[kind]["input"]
        for name, (of, *options) in {**info.get("required", {}), **info.get("optional", {})}.items():
            choices = of if isinstance(of, list) else (options[0] if options else {}).get("options")
            linked = bool(options) and options[0].get("forceInput")  # no widget: it is for a link
            if name in given or linked or (choices is None and of not in ("INT", "FLOAT", "STRING", "BOOLEAN")):
                continue
            default = (options[0] if options else {}).get("default", choices[0] if choices else "")
            given[name] = default
        return side.graph.add(kind, **given)

    return put
