import pytest

from hybridiff_core.account import Steps, bands, device_times, one_device_call_s, speed_up, table, timeline
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
    assert view["total"] == 6 and view["done"]


def test_one_devices_time_goes_by_this_processs_part():
    report = run(mode="exact")
    for record in report["steps"]:
        record.update(share=0.625, way="tokens")  # the other device is slower, and both computed the text
    assert one_device_call_s(report) == pytest.approx(1.6)
    assert "mode: exact, by tokens" in table(report)


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


def test_the_speed_up_is_one_devices_time_for_all_calls():
    report = run()
    assert one_device_call_s(report) == 2.0
    # without the first call: five of 2 s on one device, four of 1.25 s here
    assert speed_up(report) == 2.0
    assert speed_up({**report, "steps": []}) is None


def test_a_call_that_one_device_computed_counts_as_it_is():
    alone = [{**record, "helpers": 0, "conds": [2], "compute_s": []} for record in run()["steps"]]
    assert speed_up({**run(), "steps": [{**a, "work": "exact", "seconds": 2.0} for a in alone]}) == 1.0


def test_the_table_says_stages_figures_and_reasons():
    report = run()
    report["lines"] = ["the worker on there is out: gone; this process took over"]
    text = table(report)
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line}
    assert rows["warm-up"] == ["3", "0", "2", "3.75", "1.250", "6.00"]
    assert rows["middle"] == ["2", "3", "4", "1.25", "0.625", "4.00"]
    assert rows["finish"] == ["1", "5", "5", "1.25", "1.250", "2.00"]
    assert "2.00x" in text and "12.00 MiB" in text and "- the worker on there is out" in text
