"""`python -m hybridiff_core demo`: what is checked before it runs, and what it says."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from hybridiff_core.cli import main

PACK = Path(__file__).resolve().parents[2]
DEMO = [sys.executable, "-m", "hybridiff_core", "demo"]
WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from hybridiff_core.cli import main; sys.exit(main({}))"


def without_torch(*arguments):
    command = [sys.executable, "-c", WITHOUT_TORCH.format(list(arguments))]
    return subprocess.run(command, cwd=PACK, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"], ["devices", "--help"]])
def test_help_needs_no_torch(arguments):
    done = without_torch(*arguments)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("usage: hybridiff")


@pytest.mark.parametrize("command", ["demo", "devices"])
def test_a_command_says_what_it_misses(command):
    done = without_torch(command)
    assert done.returncode == 1
    assert done.stderr == "hybridiff: this Python has no torch; pip install torch\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--steps", "0"], "--steps is 0; use 1 to 1000"),
        (["--repeats", "-1"], "--repeats is -1; use 1 to 100"),
        (["--pictures", "0"], "--pictures is 0; use 1 to 64"),
        (["--seed", "99999999999999999999999"], "use 0 to 18446744073709551615"),
        (["--cfg", "nan"], "--cfg is nan; use more than 1"),
        (["--cfg", "1"], "--cfg is 1; use more than 1"),
        (["--k", "5"], "--k has no use in exact"),
        (["--out", "figure.jpg"], "use a name that ends in .png"),
        (["--out", "there-is-no-such-folder/figure.png"], "which cannot be written: No such file or directory"),
        (["\u2764\ufe0f"], "has no word that the model can read"),
        ([""], "has no word that the model can read"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_runs(arguments, said, capsys, monkeypatch):
    monkeypatch.setattr("hybridiff_core.demo.command.run_demo", None)
    with pytest.raises(SystemExit) as ended:
        main(["demo", *arguments])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_a_figure_that_was_there_is_kept_by_the_check(tmp_path):
    from hybridiff_core.demo.command import _try_to_write

    (tmp_path / "old.png").write_bytes(b"old")
    _try_to_write(tmp_path / "old.png")
    _try_to_write(tmp_path / "new.png")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("old.png", b"old")]


def test_what_the_model_knows_is_told_from_what_it_does_not():
    from hybridiff_core.demo.captions import CAPTIONS, NAMES, SUGGESTED, remark

    assert len(NAMES) == 331 and len(set(CAPTIONS)) == len(CAPTIONS)
    assert {name: remark(name) for name in SUGGESTED} == dict.fromkeys(SUGGESTED)
    assert remark("Red Heart!") is None
    assert "does not know 'pumpkin': what it draws is a guess" in remark("pumpkin")
    assert "knows these words, but not together" in remark("heart apple")
    assert "the first 8 only" in remark("a b c d e f g h i")
    assert "It knows: strawberry" in remark("strawbery")


def test_exact_shows_the_same_pictures_and_where_it_was_computed(capsys, tmp_path):
    assert main(["demo", "blue", "heart", "--repeats", "1", "--out", str(tmp_path / "demo.png")]) == 0
    said = capsys.readouterr().out
    assert 'draws "blue heart", 4 at once: first one process computes each step, then two share it' in said
    assert re.search("Both are on this computer's CPU, with one (core|thread) each; no GPU is used.", said)
    assert "no difference   the same, to rounding" in said
    assert "middle of" not in said and "warm-up" not in said


def test_bytes_are_counted_where_most_steps_are_predicted(tmp_path):
    from hybridiff_core.demo.comparison import run_demo
    from hybridiff_core.plan import HybridPlan

    for _ in range(3):  # on a busy machine the second process may be left out
        result = run_demo("red heart", steps=50, cfg=3.0, repeats=1, plan=HybridPlan(mode="auto"))
        if result.report.shared_steps:
            break
    assert sum(step.work == "predicted" for step in result.report.steps) > 25
    assert 0 < result.bytes_per_step < 2 * 4 * 16 * 16 * 16 + 16 + 32


def test_the_bound_is_by_what_was_computed():
    from types import SimpleNamespace

    from hybridiff_core.demo.command import bound

    def of(*works):
        return bound(SimpleNamespace(report=SimpleNamespace(steps=[SimpleNamespace(work=work) for work in works])))

    assert of("exact", "exact") == 2.0
    assert of("exact", "predicted", "predicted", "exact") == 4.0
    assert of("exact", "pipeline") is None


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to another process")
def test_an_interrupt_ends_it_without_a_traceback(tmp_path):
    command = [*DEMO, "--repeats", "100", "--out", str(tmp_path / "demo.png")]
    process = subprocess.Popen(command, cwd=PACK, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    children = _wait_for_worker(process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said and "interrupted" in said
    psutil.wait_procs(children, timeout=10)
    assert not any(child.is_running() for child in children)


def test_a_second_process_that_fails_is_said(tmp_path):
    command = [*DEMO, "--repeats", "10", "--out", str(tmp_path / "demo.png")]
    process = subprocess.Popen(command, cwd=PACK, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    _wait_for_worker(process)[0].kill()
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "hybridiff: the second process failed: " in said and "Traceback" not in said


def _wait_for_worker(process):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if children := psutil.Process(process.pid).children():
            return children
        time.sleep(0.02)
    raise AssertionError("no worker was started")
