import pytest

from hybridiff_core import lines
from hybridiff_core.account import Steps, bands, device_times, headline, table, timeline
from hybridiff_core.gain import Gain, gain_of, one_device_call
from hybridiff_core.report import RunReport, StepRecord

STAGES = ["warm-up"] * 3 + ["parallelism"] * 2 + ["fully-connecting"]
WORKS = ["exact"] * 3 + ["predicted", "exact", "exact"]


def run(mode="predict", extra=()):
    """Six steps on two devices, 1 s of computing each where shared; one predicted for nothing."""
    report = RunReport(mode, ["here", "there"], total=6)
    for step, (stage, work) in enumerate(zip(STAGES, WORKS)):
        shared = work == "exact"
        report.steps.append(StepRecord(
            sigma=6.0 - step, conds=[1, 1] if shared else [], compute_s=[1.0, 1.0] if shared else [],
            lanes=[0, 1] if shared else [],
            wait_s=0.25 if shared else 0.0, bytes_sent=1 << 20, bytes_received=1 << 20, helpers=int(shared), step=step,
            stage=stage, work=work, rel_mae=0.5 - step / 10 if shared else None, seconds=1.25 if shared else 0.0,
        ))  # fmt: skip
    report.steps += extra
    report.end(finished=True)
    report.seconds = sum(record.seconds for record in report.steps)
    return report.to_dict()


def test_what_is_waited_for_is_the_transfer():
    times = device_times(run()["steps"][0], 2)
    assert times == [
        {"compute": 1.0, "transfer": 0.0, "wait": 0.25},
        {"compute": 1.0, "transfer": 0.25, "wait": 0.0},
    ]
    quick = {"compute_s": [2.0, 0.5], "wait_s": 0.0, "lanes": [0, 1]}
    assert device_times(quick, 2)[1] == {"compute": 0.5, "transfer": 0.0, "wait": 1.5}


def test_times_belong_to_the_devices_that_had_something_to_do():
    record = {"compute_s": [2.0, 0.5], "wait_s": 0.0, "lanes": [0, 2]}
    assert [times["compute"] for times in device_times(record, 3)] == [2.0, 0.0, 0.5]
    assert device_times({"compute_s": [], "wait_s": 0.0, "lanes": []}, 2)[1]["compute"] == 0.0


def test_the_stages_of_a_run():
    view = timeline(run())
    assert bands(view["steps"]) == [("warm-up", 0, 2), ("parallelism", 3, 4), ("fully-connecting", 5, 5)]
    assert [step["rel_mae"] for step in view["steps"]] == pytest.approx([0.5, 0.4, 0.3, None, 0.1, 0.0])
    assert view["total"] == 6 and view["state"] == "done"


def test_one_devices_time_goes_by_this_processs_part():
    report = run(mode="exact")
    for record in report["steps"]:
        record.update(share=0.625, way="tokens")  # the other device is slower, and both computed the text
    assert one_device_call(report) == (pytest.approx(1.6), False)
    assert "by parts of the image" in table(report)


def test_a_run_in_exact_mode_has_one_band():
    assert bands(timeline(run(mode="exact"))["steps"]) == [(None, 0, 5)]


def test_calls_of_a_step_are_put_together():
    steps = Steps()
    for sigma in (2.0, 2.0, 1.0):
        steps.add({**run()["steps"][0], "step": None, "sigma": sigma, "rel_mae": float("inf")}, "auto", 2)
    assert [(step["step"], step["seconds"], step["bytes"]) for step in steps.found] == [
        (0, 2.5, 4 << 20),
        (1, 1.25, 2 << 20),
    ]
    assert steps.found[0]["rel_mae"] is None


def test_the_gain_is_one_devices_time_for_all_calls():
    report = run()
    assert one_device_call(report) == (2.0, False)
    assert gain_of(report) == Gain(6 * 2.0 / (5 * 1.25), False)  # the predicted step took no time
    report["seconds"] += 3.0  # loading, for one device as for two
    assert gain_of(report) == Gain(pytest.approx((3.0 + 12.0) / (3.0 + 6.25)), False)
    assert gain_of({**report, "steps": []}) is None


def alone(seconds):
    return {"helpers": 0, "conds": [2], "compute_s": [], "lanes": [], "seconds": seconds, "work": "exact"}


def test_a_call_that_one_device_computed_counts_as_it_is():
    report = run()
    report["steps"] = [{**record, **alone(2.0)} for record in report["steps"]]
    report["seconds"] = 12.0
    assert gain_of(report) == Gain(1.0, True)
    report["steps"][0]["seconds"] = report["waited_s"] = 7.0  # for workers: one device would not have waited
    report["seconds"] = 17.0
    assert gain_of(report) == Gain(10.0 / 17.0, True)


def test_no_gain_is_more_than_the_devices_allow():
    report = run(mode="exact")
    for record in report["steps"]:
        record.update(work="exact", compute_s=[9.0, 1.0], lanes=[0, 1], helpers=1, conds=[1, 1], seconds=1.25)
    report["seconds"] = 6 * 1.25
    assert gain_of(report) == Gain(2.0, False)
    report["steps"][1].update(alone(50.0))  # another program had the device
    report["seconds"] += 50.0 - 1.25
    assert gain_of(report).measured and gain_of(report).times < 2.0


@pytest.mark.parametrize(
    "own, helper, why", [("cuda:0 (A)", "cuda:0 (A) (process 2)", "same"), ("cuda:0", "cpu", "cpu")]
)
def test_no_gain_is_shown_where_it_would_mean_nothing(own, helper, why):
    report = run() | {"devices": [own, helper]}
    assert gain_of(report) is None and timeline(report)["no_gain"] == why
    assert "so no gain is shown" in headline(timeline(report))[2]


def test_a_run_that_did_not_end_says_so():
    stopped = run() | {"state": "stopped"}
    assert gain_of(stopped) is None and headline(timeline(stopped))[0] == "stopped at step 6 of 6"
    assert headline(timeline(stopped | {"state": "failed", "steps": []}))[0] == "failed before the first step"


def test_the_reason_comes_first_and_with_its_way_out():
    report = run() | {
        "lines": ["cuda:1 joined at step 3 of 6, when it was ready", lines.RAN_ON_ONE_DEVICE(reason=lines.CFG_1())]
    }
    said = timeline(report)["told"]
    assert [entry["cause"] for entry in said] == ["CFG_1", "JOINED"]
    assert headline(timeline(report))[2:] == [report["lines"][1], f"What to do: {lines.CFG_1.way_out}"]


def test_the_table_says_stages_figures_and_reasons():
    report = run()
    report["lines"] = ["the worker on there is out: gone; this process took over"]
    text = table(report)
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line}
    assert rows["start"] == ["3", "0", "2", "3.75", "1.250", "6.00"]
    assert rows["middle"] == ["2", "3", "4", "1.25", "0.625", "4.00"]
    assert rows["end"] == ["1", "5", "5", "1.25", "1.250", "2.00"]
    assert text.startswith(
        "6.2 s, 1.92x as fast as one (estimated)\n2 GPUs: 5 of 6 steps shared, close to KSampler's picture"
    )
    assert "12.00 MiB" in text and "- the worker on there is out" in text
