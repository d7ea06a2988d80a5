"""After an execv the workers of the process's earlier self do not stay as zombies."""

import os
import subprocess
import sys
import time

import pytest

from hybridiff_core.workers import reap

PROGRAM = """
import os, subprocess, sys, time
from hybridiff_core.workers import reap
if "again" not in sys.argv:
    for seconds in (0, 0.5):
        reap.remember(subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({seconds})"]).pid)
    subprocess.Popen([sys.executable, "-c", "pass"])  # not ours to ask
    os.execv(sys.executable, [sys.executable, "-c", os.environ["PROGRAM"], "again"])
import psutil
reap.reap()
deadline = time.monotonic() + 10
while len(psutil.Process().children()) > 1 and time.monotonic() < deadline:
    time.sleep(0.05)
print([child.status() for child in psutil.Process().children()], os.environ.get(reap.VARIABLE))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there execv starts a new process")
def test_noted_children_are_seen_off_after_execv_and_no_others():
    environment = {**os.environ, "PROGRAM": PROGRAM, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "['zombie'] None"


def test_pids_of_others_and_of_long_ago_do_no_harm(monkeypatch):
    monkeypatch.setenv(reap.VARIABLE, "")
    for pid in range(1, 2 * reap.KEPT):
        reap.remember(pid)
    assert len(os.environ[reap.VARIABLE].split()) == reap.KEPT
    monkeypatch.setenv(reap.VARIABLE, str(os.getppid()))
    reap.reap()
    time.sleep(0.1)
    assert reap.VARIABLE not in os.environ
