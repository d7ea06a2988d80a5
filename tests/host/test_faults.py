"""Every fault of a worker at every moment (python -m tests.faults prints a table), and another device standing by."""

from __future__ import annotations

import pytest

from ..faults.__main__ import ROWS, driver, faults_of
from ..tiers import full_but


@pytest.fixture(scope="module")
def faults(comfyui_root):
    asked = driver(comfyui_root)
    yield asked
    asked.close()


@pytest.mark.parametrize(
    "row", full_but([*ROWS, "exception:start:spare"], "killed:stage", "corrupt:first step", "out of memory:load")
)
def test_a_failing_worker_costs_neither_picture_nor_time(faults, row):
    assert faults_of(faults.ask(row)) == []
