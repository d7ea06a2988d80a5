"""A run begins alone and takes its worker in when that is ready: no run waits for a helper."""

import re

import pytest

from .comfy_server import Comfy, make_models
from .conftest import Bench
from .test_exact import LIMIT
from .test_second_model import compared

STEPS = 600  # enough for a worker to get ready on the way


@pytest.fixture(scope="module")
def comfy(comfyui_root, tmp_path_factory):
    """A server of this file's own, as users have it: other tests' servers wait for their workers."""
    make_models(comfyui_root)
    server = Comfy(comfyui_root, tmp_path_factory.mktemp("start") / "base", HYBRIDIFF_WAIT="0")
    yield server
    server.stop()


def test_a_first_run_begins_at_once_and_the_next_is_shared_from_its_first_step(bench):
    side = bench("sd3")
    side.settings["steps"] = STEPS
    off, report = side.compare()
    assert off <= 1e-4  # of so many steps
    (loading,) = report["loadings"]
    assert report["first_step_s"] < loading["seconds"] + 1.0
    (joined,) = (line for line in report["lines"] if "joined" in line)
    step = int(re.search(r"joined at step (\d+) of 600", joined)[1])
    helpers = [record["helpers"] for record in report["steps"]]
    assert 2 < step < STEPS and set(helpers[: step - 1]) == {0} and helpers[step - 1] == 1

    off, report = bench("sd3").compare()
    assert off <= 1e-5
    assert report["steps"][0]["helpers"] == 1, report["lines"]


def test_a_run_that_is_over_before_its_worker_is_ready_says_so(bench):
    side = bench("sd3")
    side.devices = ("cpu", "cpu")  # a worker that is not there yet
    side.settings["steps"] = 2
    side.negative = side.text(2)
    extra = side.text(3)
    side.positive = side.graph.add("ConditioningCombine", conditioning_1=side.positive, conditioning_2=extra)
    off, report = side.compare()
    assert off <= 1e-5
    assert any("was not ready before the run's end" in line for line in report["lines"])


def test_predicted_steps_need_no_worker_to_begin(bench):
    side = bench("sd3")
    side.plan = {"mode": "predict", "warmup": "fixed", "start_step": 4, "parallel_steps": 6, "tolerance": 0.0}
    side.settings["steps"] = 12
    side.devices = ("cpu", "cpu", "cpu")
    _, report = side.compare()
    assert {"predicted", "exact"} == {record["work"] for record in report["steps"]}


@pytest.mark.full
def test_at_cfg_1_steps_are_divided_by_tokens_from_the_first_run_on(comfyui_root, tmp_path):
    make_models(comfyui_root)
    server = Comfy(comfyui_root, tmp_path / "base", HYBRIDIFF_WAIT="0")
    try:
        for window in (5, 6):  # another plan, so that ours is run again and KSampler is not
            side = Bench(server, "sd3", size=80)  # twenty steps that take longer than a worker's start
            side.plan = {"mode": "exact", "slope_window": window}
            side.settings |= {"steps": 20, "cfg": 1.0, "seed": 10**6}
            off, report = side.compare()
            assert off <= LIMIT
            ways = [step["way"] if step["helpers"] else "" for step in report["steps"]]
            assert "tokens" in ways, report["lines"]
        assert set(ways[1:]) == {"tokens"}, report["lines"]
    finally:
        server.stop()


@pytest.mark.full
def test_a_guider_of_two_models_has_its_worker_join_on_the_way(comfyui_root, tmp_path):
    """The first model is the larger one: a helper is of use where it is done before this process would be with both."""
    make_models(comfyui_root)
    server = Comfy(comfyui_root, tmp_path / "base", HYBRIDIFF_WAIT="0")
    try:
        for steps in (STEPS // 2, 20):
            side = Bench(server, "sd3")
            other, large = side.model, {"unet_name": "sd3_depth6.safetensors", "weight_dtype": "default"}
            side.model = side.graph.add("UNETLoader", **large)
            side.settings["steps"] = steps
            off, report = compared(side, other)
            assert off <= 1e-4
            helpers = [record["helpers"] for record in report["steps"]]
            busy = any("is left out: it takes" in line for line in report["lines"])  # with something else
            assert helpers[0] == 0 and (busy or sum(helpers[-5:]) >= 4), (helpers, report["lines"])
        assert busy or helpers == [0, *[1] * 19], (helpers, report["lines"])
    finally:
        server.stop()
