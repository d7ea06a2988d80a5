"""What the page says is there in every language, with the same fields; and no file says anything of its own."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hybridiff_core import palette
from hybridiff_core.lines import ALL, Line, diffusers_lines
from hybridiff_core.phrases import PHRASES, clock

PACK = Path(__file__).resolve().parents[2]
OTHERS = ("zh", "ja", "ko")
# lines that no page shows: those of diffusers pipelines, and the log's last
ELSEWHERE = {name for name, line in vars(diffusers_lines).items() if isinstance(line, Line)} | {
    "SUMMARY_ALONE", "SUMMARY_SHARED",
}  # fmt: skip
ONLY_FIELDS = {"LAST_WORDS", "WORKER_ERROR", "FAILED_BY_CONNECTION", "AND_UNDIVIDED"}  # and punctuation
SCRIPTS = {"zh": r"[\u4e00-\u9fff]", "ja": r"[\u3040-\u30ff\u4e00-\u9fff]", "ko": r"[\uac00-\ud7a3]"}
SAYING = re.compile(r"""['"`]([A-Za-z][a-z']*(?: [a-z(][a-z']*)+)['"`]""")  # two words or more in quotes
# file: words in quotes that no user reads as a sentence of ours: classes, values of widgets, the console's
OWN = {
    "convert.js": {"same as KSampler"}, "plan_fields.js": {"exact only"}, "headline.js": {"rows and tokens"},
    "to_use.js": {"this machine and others"},
    "choices.js": {"exact only", "this machine", "this machine and others", "run their nodes in the worker too"},
}  # fmt: skip


def texts_of(language):
    return json.loads((PACK / "locales" / language / "main.json").read_text(encoding="utf-8"))["hybridiff"]


def fields_of(text):
    return set(re.findall(r"{(\w+)", text))


def test_english_is_what_the_core_says():
    assert subprocess.run([sys.executable, PACK / "dev" / "messages.py", "--check"]).returncode == 0
    assert texts_of("en")["phrases"] == PHRASES


@pytest.mark.parametrize("language", OTHERS)
def test_a_language_has_every_phrase_with_its_fields(language):
    phrases = texts_of(language)["phrases"]
    assert phrases.keys() == PHRASES.keys()
    assert {name for name in PHRASES if fields_of(phrases[name]) != fields_of(PHRASES[name])} == set()
    words = {name for name, text in PHRASES.items() if len(re.sub(r"{\w+}|[^a-zA-Z]", "", text)) > 3}
    assert {name for name in words if phrases[name] == PHRASES[name]} == set()


@pytest.mark.parametrize("language", OTHERS)
def test_a_language_has_every_line_and_every_way_out(language):
    texts, shown = texts_of(language), ALL.keys() - ELSEWHERE
    assert texts["lines"].keys() == shown and texts["ways"].keys() == shown
    assert {name for name, text in texts["lines"].items() if fields_of(text) != ALL[name].fields} == set()
    whole = {**texts["ways"], **{name: text for name, text in texts["lines"].items() if name not in ONLY_FIELDS}}
    assert {name for name, text in whole.items() if not re.search(SCRIPTS[language], text)} == set()


def test_lines_with_one_english_way_out_have_one_in_each_language():
    for language in OTHERS:
        ways, found = texts_of(language)["ways"], {}
        for name in ways:
            found.setdefault(ALL[name].way_out, set()).add(ways[name])
        assert {english: said for english, said in found.items() if len(said) > 1} == {}


@pytest.mark.parametrize("language", ("en", *OTHERS))
def test_every_template_is_described(language):
    texts = json.loads((PACK / "locales" / language / "main.json").read_text(encoding="utf-8"))
    described = texts["templateWorkflows"]["templateDescription"]["hybridiff"]
    assert described.keys() == {path.stem for path in (PACK / "workflows").glob("*.json")}


@pytest.mark.parametrize("language", OTHERS)
def test_every_help_page_is_there(language):
    pages = {path.stem for path in (PACK / "web" / "docs").glob("*.md")} - {"HybridiffDemoWords"}  # for developers
    found = {path.parent.name: path.read_text() for path in (PACK / "web" / "docs").glob(f"*/{language}.md")}
    assert found.keys() == pages
    for name, text in found.items():
        english = (PACK / "web" / "docs" / f"{name}.md").read_text()
        assert len(re.findall(SCRIPTS[language], text)) > len(english) / 8, name
        assert len(re.findall(r"^- \*\*", text, re.M)) == len(re.findall(r"^- \*\*", english, re.M)), name


def test_the_page_has_no_sentence_of_its_own():
    found = set()
    for path in (PACK / "web").glob("*.js"):
        lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith(("//", "*", "/*", "."))]
        for line in lines:
            if "console." in line:
                continue
            spoken = set(SAYING.findall(line.split(" // ")[0])) - OWN.get(path.name, set())
            found |= {(path.name, text) for text in spoken}
    assert found == set()
    assert SAYING.findall("draw({ caption: 'a run shows here' })") == ["a run shows here"]


def test_every_phrase_is_used():
    sources = [path.read_text() for path in (*(PACK / "web").glob("*.js"), *(PACK / "nodes").glob("*.py"))]
    sources.append((PACK / "hybridiff_core" / "account.py").read_text())
    whole = "\n".join(sources)
    made = {"shared_none", "failed_early", "stopped_early", "no_figure_same", "no_figure_cpu", "gpus", "devices"}
    assert {name for name in PHRASES.keys() - made if not re.search(rf"\b{name}\b", whole)} - {
        "seconds",
        "minutes",
    } == set()


def test_page_and_figure_have_the_same_colours():
    colours = dict(re.findall(r"(\w+): '(#\w+)'", (PACK / "web" / "palette.js").read_text()))
    assert {kind: colours[kind] for kind in palette.KINDS} == palette.KINDS
    text = (PACK / "web" / "palette.js").read_text()
    assert set(palette.STAGE_COLOURS.values()) <= set(re.findall(r"#\w{6}", text)) and palette.REASON in text


def test_a_time_is_said_as_short_as_it_can_be():
    assert [clock(seconds) for seconds in (0.84, 9.94, 11.6, 59.7, 125)] == [
        "0.8 s", "9.9 s", "12 s", "1 min 0 s", "2 min 5 s",
    ]  # fmt: skip
