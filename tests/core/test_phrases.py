"""What the page says is there in every language, with the same fields; and no file says anything of its own."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hybridiff_core import palette
from hybridiff_core.lines import ALL
from hybridiff_core.phrases import PHRASES, clock

PACK = Path(__file__).resolve().parents[2]
OTHERS = ("zh", "ja", "ko")
# what users meet most: why one device, which device is left out, how steps were shared and predicted
COMMONEST = {
    "RAN_ON_ONE_DEVICE", "CFG_1", "NO_SECOND_GPU", "NETWORK_PATCHED", "NETWORK_WRAPPED", "CODE_IN_NETWORK",
    "ATTENTION_BY_A_NODE", "NOTHING_CROSSES", "DEVICE_NOT_HERE", "NOT_BY_AUTO", "GPU_IS_USED", "TOO_SLOW", "NOT_READY",
    "TOOK_OVER", "OUT_OF_MEMORY", "STEPS_PREDICTED", "NONE_PREDICTED",
}  # fmt: skip
SAYING = re.compile(r"""['"`]([A-Za-z][a-z']*(?: [a-z(][a-z']*)+)['"`]""")  # two words or more in quotes
# file: words in quotes that no user reads as a sentence of ours: classes, values of widgets, the console's
OWN = {
    "convert.js": {"same as KSampler"}, "picture.js": {"same as KSampler"}, "plan_fields.js": {"exact only"},
    "headline.js": {"rows and tokens"},
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
def test_a_languages_lines_are_lines_of_ours(language):
    texts = texts_of(language)
    assert texts["lines"].keys() >= COMMONEST and texts["lines"].keys() <= ALL.keys()
    assert texts["ways"].keys() <= texts["lines"].keys()
    assert {name for name, text in texts["lines"].items() if fields_of(text) != ALL[name].fields} == set()


@pytest.mark.parametrize("language", ("en", *OTHERS))
def test_every_template_is_described(language):
    texts = json.loads((PACK / "locales" / language / "main.json").read_text(encoding="utf-8"))
    described = texts["templateWorkflows"]["templateDescription"]["hybridiff"]
    assert described.keys() == {path.stem for path in (PACK / "workflows").glob("*.json")}


@pytest.mark.parametrize("language", OTHERS)
def test_every_help_page_is_there(language):
    pages = {path.stem for path in (PACK / "web" / "docs").glob("*.md")} - {"HybridiffDemoWords"}  # for developers
    assert {path.parent.name for path in (PACK / "web" / "docs").glob(f"*/{language}.md")} == pages


def test_the_languages_have_the_same_lines():
    assert len({tuple(texts_of(language)["lines"]) for language in OTHERS}) == 1


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
