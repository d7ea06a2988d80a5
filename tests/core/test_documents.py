"""What ARCHITECTURE.md and CONTRIBUTING.md name is there: each file, and each name in the code."""

import re
from pathlib import Path

import pytest

PACK = Path(__file__).resolve().parents[2]
FOLDERS = ("hybridiff_core", "nodes", "web", "locales", "tests", "dev", "docs", ".ci")
FILES = [path for folder in FOLDERS for path in (PACK / folder).rglob("*")] + list(PACK.glob("*"))
PATHS = [f"/{path.relative_to(PACK).as_posix()}{'/' if path.is_dir() else ''}" for path in FILES]
NOT_OURS = {"utils", "helpers", "common", "NAME", "field", "value", "none", "venv", "patches_replace", "dit"}


def text_of(name):
    return (PACK / name).read_text(encoding="utf-8")


def is_there(path):
    form = re.escape(path).replace(r"\*", "[^/]*")
    return any(re.search(f"/{form}/?$", known) for known in PATHS)


@pytest.mark.parametrize("name", ["docs/ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_what_is_named_is_there(name):
    code = (path.read_text(encoding="utf-8") for path in FILES if path.suffix in (".py", ".js"))
    known = set(re.findall(r"\w+", "\n".join(code))) | NOT_OURS
    missing = []
    for span in re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text_of(name), flags=re.DOTALL)):
        if span.startswith(("sh ", "python ", "ruff ")):
            paths = re.findall(r"(?:tests|dev)/[\w/]+\.\w+", span)
        elif "/" in span or re.search(r"\.(py|js|sh|md|json)$", span):
            paths = [span] if not span.startswith("~") else []
        else:
            paths = []
            missing += [word for word in re.findall(r"\w+", span) if word not in known]
        missing += [path for path in paths if not is_there(path)]
    assert missing == []


def test_the_constants_of_autos_rule_are_rules():
    rule = text_of("docs/ARCHITECTURE.md").partition("## auto's rule")[2].partition("\n## ")[0]
    constants = set(re.findall(r"`([A-Z][A-Z_]{2,})`", rule))
    assert len(constants) > 8
    assert [name for name in constants if f"\n{name} = " not in text_of("hybridiff_core/rules.py")] == []
