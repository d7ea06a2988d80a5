"""Each test here is a row of docs/COMPATIBILITY.md; `python -m tests.host.compat` runs them and writes it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ..comfy_server import PACK
from ..test_exact import LIMIT

ROWS = PACK / ".cache" / "compat"
SECTIONS = ("Models", "Loaders", "Weight changes", "Conditioning", "Samplers", "Other packs", "Hosts")
TWO_DEVICES, ONE_DEVICE, LEFT_OUT = "two devices", "one device", "left out"


class Row:
    """What a test found out about one thing that people put in graphs."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.values: dict = {}

    def of(self, section: str, name: str) -> None:
        """Say first which row it is: a test that fails later leaves a row that says so."""
        assert section in SECTIONS
        self.values = {"section": section, "row": name, "result": "FAILS", "difference": None, "reason": ""}

    def compared(self, difference: float, report: dict, reason: str = "") -> None:
        """The result of Bench.compare: shared, or on one device with a line that says why; equal in any case."""
        shared = bool(report["shared_calls"])
        why = reason or ("" if shared else "; ".join(report["lines"]))
        assert shared or why, "ran on one device and does not say why"
        self.values.update(result=TWO_DEVICES if shared else ONE_DEVICE, difference=difference, reason=why)
        assert difference <= LIMIT, self.values
        self.values["held"] = True

    def stage(self, result: str) -> None:
        """What the pipeline stage did on this model: "on, ..." or why there is none."""
        self.values["stage"] = result

    def left_out(self, reason: str) -> None:
        """The host itself cannot do it, so there is nothing to compare."""
        self.values.update(result=LEFT_OUT, reason=reason, held=True)

    def write(self) -> None:
        assert self.values, "the test did not say which row it is"
        if not self.values.pop("held", False):
            self.values["result"] = "FAILS"
        name = re.sub(r"\W+", "_", f"{self.values['section']} {self.values['row']}".lower())
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{name}.json").write_text(json.dumps(self.values, indent=1))


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

    def put(side, kind: str, **given) -> list:
        info = infos[kind]["input"]
        for name, (of, *options) in {**info.get("required", {}), **info.get("optional", {})}.items():
            choices = of if isinstance(of, list) else (options[0] if options else {}).get("options")
            if name in given or (choices is None and of not in ("INT", "FLOAT", "STRING", "BOOLEAN")):
                continue
            default = (options[0] if options else {}).get("default", choices[0] if choices else "")
            given[name] = default
        return side.graph.add(kind, **given)

    return put
