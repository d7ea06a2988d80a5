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


def text_of(node):
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return max(fixed_texts(node), key=len) if isinstance(node, ast.JoinedStr) else ""


def said():
    """Every text that is noted or raised where it stands, and each that has a name at the top of its file."""
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and node.args:
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                if name in ("note", "CannotCross"):
                    yield path.name, text_of(node.args[0])
        for node in tree.body if path.parent.name == "host" else ():
            if isinstance(node, ast.FunctionDef) and isinstance(node.body[-1], ast.Return):
                yield path.name, text_of(node.body[-1].value)
            elif isinstance(node, ast.Assign) and " " in text_of(node.value):
                yield path.name, text_of(node.value)


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
