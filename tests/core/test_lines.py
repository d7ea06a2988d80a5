"""Every line that a user can read about a run is made in hybridiff_core/lines, and docs/MESSAGES.md lists them all."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hybridiff_core.lines import ALL, Group, Line

PACK = Path(__file__).resolve().parents[2]
CORE, HOST = PACK / "hybridiff_core", PACK / "nodes" / "host"
ELSEWHERE = {"lines", "demo"}  # folders of the core whose words are no run's
SOURCES = sorted(
    [path for path in CORE.rglob("*.py") if path.relative_to(CORE).parts[0] not in ELSEWHERE]
    + list((PACK / "nodes").rglob("*.py"))
)
# what a user's text is given to, and as which argument
SAYING = {
    "note": 0, "stay_exact": 0, "leave_out": 0, "CannotCross": 0, "WorkerLost": 0, "GroupLost": 0, "ChannelBroken": 0,
    "Stranger": 0, "lost": 0, "broke": 0, "ended": 0, "wait": 3, "receive": 2,
}  # fmt: skip
# files whose words are about something else than a run: the plan's and the nodes' own fields, the account, the commands
OTHER_WORDS = {
    "plan.py", "schedule.py", "share.py", "account.py", "phrases.py", "cli.py", "device_report.py", "split.py",
    "extrapolation.py", "commands.py", "arguments.py", "machines.py",
}  # fmt: skip
ABOUT_RUNS = [path for path in SOURCES if path.name not in OTHER_WORDS and path.parent != PACK / "nodes"]
SENTENCE = re.compile(r"[a-z']+:? [a-z']+ [a-z']{2,}")  # three words that nobody would call a name


def name_of(node):
    """`note` for self.report.note, `Stranger` for Stranger."""
    return getattr(node, "attr", getattr(node, "id", ""))


def is_line(node):
    """Whether `node` is a use of lines.SOMETHING."""
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "lines"


def texts(node):
    """The literals under `node`, f-strings by their fixed pieces, but those that are given to a line."""
    if isinstance(node, ast.Call) and is_line(node.func):
        return
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    for child in ast.iter_child_nodes(node):
        yield from texts(child)


def spoken(tree):
    """(name, literal) for each literal that is given to something in SAYING as its text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (name := name_of(node.func)) in SAYING:
            place = SAYING[name]
            yield from ((name, text) for argument in node.args[place : place + 1] for text in texts(argument))


def sentences(tree):
    """Literals with words in a row that are returned, raised, or kept; neither docstrings nor logged."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Return, ast.Raise, ast.Assign, ast.AnnAssign, ast.Lambda)):
            if isinstance(node, ast.Raise) and name_of(getattr(node.exc, "func", None)) == "AssertionError":
                continue
            yield from (text for text in texts(node) if SENTENCE.search(text))


def test_every_text_for_a_user_is_a_line_of_the_catalogue():
    literal = [(path.name, *found) for path in SOURCES for found in spoken(ast.parse(path.read_text()))]
    assert literal == []
    assert len([node for path in SOURCES for node in ast.walk(ast.parse(path.read_text())) if is_line(node)]) > 100


def test_no_sentence_about_a_run_stands_elsewhere():
    assert [(path.name, text) for path in ABOUT_RUNS for text in sentences(ast.parse(path.read_text()))] == []


@pytest.mark.parametrize(
    "code",
    [
        "report.note('it failed')",
        "self.report.note(f'{error}; it failed')",
        "raise CannotCross('x' if y else lines.CFG_1())",
        "raise self.watch.lost(f'it {failed}')",
        "self.watch.wait(reply, 3.0, check, 'did not start')",
        "raise WorkerLost(text + 'failed')",
    ],
)
def test_a_literal_would_be_seen(code):
    assert list(spoken(ast.parse(code)))


@pytest.mark.parametrize("code", ["return 'its halves are not alike'", "self._odd = f'the latent is not {x}'"])
def test_a_sentence_would_be_seen(code):
    assert list(sentences(ast.parse(f"def f():\n    {code}")))


def test_every_line_is_used():
    used = {node.attr for path in SOURCES for node in ast.walk(ast.parse(path.read_text())) if is_line(node)}
    assert used - {"ALL", "Line", "Group"} == ALL.keys()


def test_every_line_says_why_and_what_to_do():
    for name, line in ALL.items():
        assert line.key == name and isinstance(line.group, Group)
        assert line.cause.endswith((".", ")")) and line.way_out.endswith("."), name
        assert "|" not in line.text + line.cause + line.way_out and line.text.isascii(), name
    assert len({line.text for line in ALL.values()}) == len(ALL)


def test_a_line_takes_its_own_fields_alone():
    line = Line("{device} has not moved for {seconds:.0f} s", "It hangs.", "Restart.", Group.MEMORY)
    assert line(device="cuda:1", seconds=6.4) == "cuda:1 has not moved for 6 s"
    for wrong in ({"device": "cuda:1"}, {"device": "cuda:1", "seconds": 6.4, "more": 1}):
        with pytest.raises(TypeError):
            line(**wrong)


def test_the_page_of_messages_is_up_to_date():
    done = subprocess.run(
        [sys.executable, str(PACK / "dev" / "messages.py"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
