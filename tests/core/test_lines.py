"""Every line that a run can say is in the README's list, so that a search finds it."""

import ast
import re
from pathlib import Path

PACK = Path(__file__).resolve().parents[2]
SOURCES = [
    *(PACK / "hybridiff_core").glob("*.py"), *(PACK / "nodes").glob("*.py"), *(PACK / "nodes" / "host").glob("*.py"),
]  # fmt: skip
LEAST = 12  # characters of fixed text that tell a line from others


def fixed_texts(node):
    """The longest piece of fixed text in each string under `node`."""
    for part in ast.walk(node):
        if isinstance(part, ast.JoinedStr):
            pieces = [piece.value for piece in part.values if isinstance(piece, ast.Constant)]
            yield max(pieces, key=len, default="")


def said():
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name not in ("note", "CannotCross"):
                continue
            text = node.args[0]
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                yield path.name, text.value
            elif isinstance(text, ast.JoinedStr):
                yield path.name, max(fixed_texts(text), key=len)


def plain(text):
    return re.sub(r"\W+", " ", text).strip().lower()


def test_the_readme_lists_every_line():
    readme = plain((PACK / "README.md").read_text())
    lines = [(name, plain(text)) for name, text in said() if len(plain(text)) >= LEAST]
    assert len(lines) > 20
    missing = [
        (name, text) for name, text in lines if text[:24].strip() not in readme and text[-24:].strip() not in readme
    ]
    assert missing == []
