"""A file reads in one sitting, a class is about one thing, and a file's name says which."""

import ast
from collections import Counter
from pathlib import Path

PACK = Path(__file__).resolve().parents[2]
PRODUCT = [
    path
    for folder, ending in (("hybridiff_core", "*.py"), ("nodes", "*.py"), ("web", "*.js"))
    for path in (PACK / folder).rglob(ending)
]
MOST_LINES, MOST_OF_A_CLASS = 400, 250
# a node and what it is about; a script and the loop that it runs
SHARED_NAMES = {"__init__.py", "plan.py", "devices.py", "report.py", "worker.py", "tokens.py"}


def test_files_are_short():
    assert {path.name: count for path in PRODUCT if (count := len(path.read_text().splitlines())) >= MOST_LINES} == {}


def test_classes_are_short():
    for path in PRODUCT:
        if path.suffix == ".py":
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef):
                    assert node.end_lineno - node.lineno + 1 < MOST_OF_A_CLASS, (path.name, node.name)


def test_no_two_files_share_a_name_without_need():
    names = Counter(path.name for path in PRODUCT)
    assert {name for name, count in names.items() if count > 1} <= SHARED_NAMES


def test_no_comment_cites_what_is_not_in_the_repository():
    sources = [
        path
        for folder in ("hybridiff_core", "nodes", "benchmarks", "training", "dev")
        for path in (PACK / folder).rglob("*.py")
    ]
    assert [path.name for path in sources if "METHOD" in path.read_text() or "DESIGN" in path.read_text()] == []
