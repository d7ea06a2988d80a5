"""Every language says something of every node, input and output; English says what the nodes themselves say."""

from __future__ import annotations

import re

import pytest

from .comfy_server import PACK

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


# choices that are names: of GPUs, of the host's samplers, of modes, of published values
NAMES = ("auto", "same", "cpu", "cuda:", "xpu:", "exact", "predict", "pipeline", "paper", "slope", "fixed")
NAMES_ALONE = {"SDXL (paper)", "SD3 (paper)", "enable", "disable"}


def test_every_choice_in_words_is_in_the_users_language(comfy):
    """web/choices.js gives each a phrase, which test_phrases.py looks for in all languages."""
    shown = (PACK / "web" / "choices.js").read_text()
    labelled = set(re.findall(r"'([^']+)': '\w+'", shown)) | set(re.findall(r"[{,] (\w+): '\w+'", shown))
    found = {}
    for node, info in comfy.get("/object_info").items():
        for name, spec in {**info["input"].get("required", {}), **info["input"].get("optional", {})}.items():
            if node.startswith("Hybridiff") and name not in ("sampler_name", "scheduler"):
                found |= {choice: node for choice in spec[1].get("options", ()) if isinstance(choice, str)}
    words = {choice for choice in found if choice not in NAMES_ALONE and choice not in NAMES}
    assert {choice for choice in words if not choice.startswith(("cuda:", "xpu:"))} == labelled
