"""What a process that crashed is said to have died of."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from hybridiff_core.workers.crash import LONGEST, crashed, last_said

CRASH = """
import {imports}, faulthandler, ctypes
faulthandler.enable(all_threads={threads})
def patch():
    {how}
patch()
"""
BY_CODE = ("SIGSEGV", "SIGABRT", "SIGILL", "SIGFPE", "SIGBUS")
BY_OTHERS = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")


def ended(how: str, threads: bool = False, imports: str = "sys") -> tuple[int, list[str]]:
    """The exit status, and what such a process wrote last, as WorkerProcess keeps it."""
    code = CRASH.format(how=how, threads=threads, imports=imports)
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return told.returncode, [line.rstrip() for line in told.stderr.splitlines() if line.strip()][-40:]


@pytest.mark.parametrize("threads", [False, True])
@pytest.mark.parametrize("imports", ["sys", "numpy"])  # whose extensions are listed behind the frames
def test_a_crash_is_said_with_the_functions_it_came_in(threads, imports):
    status, tail = ended("ctypes.string_at(0)", threads, imports)
    assert crashed(status)
    kind = (
        "Windows fatal exception: access violation" if sys.platform == "win32" else "Fatal Python error: Segmentation"
    )
    said = last_said(tail, crashed(status))
    assert said.startswith(kind) and ", patch (<string>:" in said and "string_at (__init__.py:" in said


def test_what_a_program_says_last_is_kept_short():
    status, tail = ended("sys.exit('x' * 5000)")
    assert status == 1 and not crashed(status)
    assert last_said(tail, crashed(status)) == "x" * LONGEST
    assert last_said([], crash=True) == ""
    old = ["Windows fatal exception: code 0x8001010d", '  File "a.py", line 1 in f', "no more"]
    assert last_said(old, crash=False) == "no more"  # what was handled is not why it ended


@pytest.mark.skipif(sys.platform == "win32", reason="signals are not Windows'")
def test_who_was_ended_by_others_did_not_crash():
    assert all(crashed(-getattr(signal, name)) for name in BY_CODE)
    assert not any(crashed(-getattr(signal, name)) for name in BY_OTHERS)
    assert not crashed(None) and not crashed(0) and not crashed(1)
