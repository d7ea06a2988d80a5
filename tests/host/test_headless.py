"""A worker is ComfyUI itself, headless: its settings, its start-up, and nothing that anybody hears or sees of it."""

from __future__ import annotations

import functools

import pytest

from .asked import Asked
from .comfy_server import PACK

EXACT_DB = 60


@pytest.fixture(scope="module")
def asked(comfyui_root):
    asked = Asked(comfyui_root, PACK / "tests" / "host" / "headless.py")
    yield functools.cache(asked.ask)
    asked.close()


def said(found: dict, words: str) -> bool:
    return any(words in line for line in found["lines"])


def test_a_worker_has_every_setting_of_the_hosts(asked):
    found = asked("alike")
    seen = found["seen"]
    assert found["shared"] and not said(found, "start-up") and found["dB"] >= EXACT_DB
    assert len(found["args"]) > 80
    assert {name: seen["args"][name] for name in found["args"]} == found["args"]
    assert seen["torch"] == found["torch"]
    assert seen["attention"] == "attention_split"  # --use-split-cross-attention


def test_a_worker_runs_the_start_up_and_is_not_heard(asked):
    found = asked("alike")
    seen = found["seen"]
    assert seen["main"] and found["written"] == []
    assert (seen["args"]["listen"], seen["args"]["manager"]) == ("", False)
    assert seen["args"]["database"] == "sqlite:///:memory:"
    assert (seen["listens"], seen["threads"], seen["writes"]) == ([], ["MainThread"], [])


def test_settings_that_change_while_comfyui_runs_cross_at_a_runs_beginning(asked):
    found = asked("changed")
    first, second, third = (run["seen"] for run in found["runs"])
    assert all(run["shared"] for run in found["runs"])
    assert (first["torch"], third["torch"]) == (found["torch"], found["torch"])
    changed = {name: value for name, value in second["torch"].items() if first["torch"].get(name) != value}
    assert changed["float32_matmul_precision"] == "medium" and changed["cudnn.benchmark"] is True
    assert [seen["args"]["force_upcast_attention"] for seen in (first, second, third)] == [False, True, False]


def test_what_packs_put_among_the_settings_stops_nothing(asked):
    found = asked("unknown")
    assert found["shared"] and not said(found, "start-up") and found["dB"] >= EXACT_DB
    assert found["seen"]["fast"] == ["PerformanceFeature.AutoTune", "cublas_ops"]
    assert "of_a_pack" not in found["args"]


def test_without_the_start_up_it_helps_and_says_so(asked):
    found = asked("mainless")
    assert found["shared"] and found["dB"] >= EXACT_DB and not found["seen"]["main"]
    assert said(found, "the worker could not run ComfyUI's own start-up (ImportError: no main, for a test)")


def test_a_loaded_file_takes_no_memory_of_the_workers_own(asked):
    found = asked("memory")
    assert found["file"] > 250
    assert found["loaded"] - found["before"] < found["file"] / 4
    assert found["unloaded"] - found["before"] < found["file"] / 4


def test_8_bit_weights_with_a_lora_are_exact(asked):
    found = asked("rounding")
    assert found["shared"] and found["dB"] >= EXACT_DB


def test_8_bit_weights_with_a_lora_are_not_shared_with_a_device_that_rounds_them_otherwise(asked):
    found = asked("other rounding")
    assert found["shared"] == 0 and found["dB"] >= EXACT_DB
    assert said(found, "round these weights differently")


@pytest.mark.parametrize("mode", ["exact", "exact cold", "exact joins", "predict", "pipeline"])
def test_a_run_leaves_nothing_of_the_model_behind(asked, mode):
    """The host takes a patcher that only Python's search for cycles frees for a leak, and says so in every prompt."""
    found = asked(f"gone {mode}")
    # a worker may be too slow just now to join, or what is left to compute too little
    assert found["shared"] or mode in ("exact joins", "predict")
    assert found["clone"] and found["network"]
