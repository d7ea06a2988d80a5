"""Some rows of the table of faults (all: python -m tests.faults), one of each fault and one of each moment."""

from __future__ import annotations

import pytest

from ..faults.__main__ import faults_of, rows_of

ROWS = [
    "killed:stage", "stopped:mid warm-up", "exception:start", "out of memory:load", "corrupt:first step",
    "short:stage", "wrong step:last step", "exception:start:spare",
]  # fmt: skip


@pytest.mark.faults
def test_a_failing_worker_costs_neither_picture_nor_time(comfyui_root):
    rows = rows_of(ROWS)
    assert len(rows) == len(ROWS)
    assert {f"{row['fault']}:{row['moment']}": faults_of(row) for row in rows if faults_of(row)} == {}
