"""Every language says something of every node, input and output; English says what the nodes themselves say."""

from __future__ import annotations

import pytest

LANGUAGES = ("en", "zh", "ja", "ko")


@pytest.fixture(scope="module")
def said(comfy):
    """What the server hands the page, by language."""
    return {language: texts["nodeDefs"] for language, texts in comfy.get("/i18n").items() if language in LANGUAGES}


@pytest.fixture(scope="module")
def live(comfy):
    """The nodes' own words, in the form of nodeDefs.json."""
    found = {}
    for node, info in comfy.get("/object_info").items():
        if not node.startswith("Hybridiff"):
            continue
        inputs = {
            name: {"name": spec[1].get("display_name") or name, "tooltip": spec[1]["tooltip"]}
            for group in ("required", "optional")
            for name, spec in info["input"].get(group, {}).items()
        }
        outputs = {
            str(place): {"name": name, **({"tooltip": tooltip} if tooltip else {})}
            for place, (name, tooltip) in enumerate(zip(info["output_name"], info["output_tooltips"]))
        }
        found[node] = {
            "display_name": info["display_name"], "description": info["description"], "inputs": inputs,
            "outputs": outputs,
        }  # fmt: skip
    return found


def shape_of(value: object) -> object:
    return {key: shape_of(item) for key, item in value.items()} if isinstance(value, dict) else type(value)


def ours(texts: dict) -> dict:
    return {node: text for node, text in texts.items() if node.startswith("Hybridiff")}


def test_english_is_what_the_nodes_say(said, live):
    assert ours(said["en"]) == live


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_has_all_texts_and_no_others(said, live, language):
    assert shape_of(ours(said[language])) == shape_of(live)


@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_a_language_is_its_own(said, live, language):
    same = [node for node, text in ours(said[language]).items() if text["description"] == live[node]["description"]]
    assert same == []
