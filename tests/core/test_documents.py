"""What the documents name, link to and claim is there."""

import re
from pathlib import Path

import pytest

PACK = Path(__file__).resolve().parents[2]
FOLDERS = ("hybridiff_core", "nodes", "web", "locales", "tests", "benchmarks", "dev", "docs", ".ci")
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


PAGES = [PACK / "README.md", PACK / "CONTRIBUTING.md", PACK / "SECURITY.md", *sorted((PACK / "docs").rglob("*.md"))]
ODD = r"very picture|as far as the picture|foreseen|bears it|any name of an emoji"


def anchors_of(page):
    """A page's headings as GitHub names them in a link."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_within_the_repository_leads_somewhere(page):
    missing = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        if ":" in path or path.startswith("../../"):  # another site; GitHub's own pages of this repository
            continue
        found = (page.parent / path).resolve() if path else page
        if not found.exists() or (anchor and anchor not in anchors_of(found)):
            missing.append(target)
    assert missing == []


def test_the_readme_reads_in_one_sitting_and_in_plain_words():
    text = text_of("README.md")
    assert len(text.splitlines()) < 120
    assert max(len(line) for line in text.splitlines() if not line.startswith("|")) <= 125
    assert [page.name for page in PAGES if re.search(ODD, page.read_text(encoding="utf-8"))] == []


def test_every_speed_in_the_readme_is_a_measured_or_projected_one():
    """Its figures with two decimals stand in the findings, which are rendered from benchmarks/results."""
    claimed = set(re.findall(r"\b(\d\.\d\d)x", text_of("README.md")))
    known = set(re.findall(r"\b\d\.\d\d\b", text_of("docs/BENCHMARKS.md"))) | set(
        re.findall(r"(\d\.\d\d)x", text_of("docs/BENCHMARKS.md"))
    )
    assert len(claimed) > 10 and claimed - known == set()
