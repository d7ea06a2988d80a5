"""Which device is found slower, by given times."""

import pytest

from hybridiff_core.paces import Paces, Pacing
from hybridiff_core.report import RunReport, StepRecord
from hybridiff_core.share import Unit, by_conds, share
from hybridiff_core.team import Team
from hybridiff_core.workers.devices import Place

UNITS = [Unit(0, 0), Unit(1, 0)]
LABELS = ("here", "cuda:1")


def dealt(pacing, units=UNITS):
    return [len(mine) for mine in share(units, len(pacing.labels), pacing.paces)]


def take(pacing, *calls, units=UNITS):
    """Calls in which the devices took so many seconds for a unit."""
    for paces in calls:
        loads = again(units, len(paces))(pacing.paces)
        pacing.take(loads, [pace * load for pace, load in zip(paces, loads)], max(paces), again(units, len(paces)))


def again(units, devices):
    """How `units` are dealt by other paces, as loads."""
    return lambda paces: by_conds(units, 1, paces or [1.0] * devices).loads(devices)


def test_a_device_five_times_slower_is_known_after_two_calls_and_in_the_next_run_from_the_first():
    known = Paces()
    pacing = Pacing(known, "model", LABELS)
    take(pacing, (0.2, 1.0))
    assert dealt(pacing) == [1, 1]
    take(pacing, (0.2, 1.0))
    assert dealt(pacing) == [2, 0]
    assert dealt(Pacing(known, "model", LABELS)) == [2, 0]
    assert dealt(Pacing(known, "another model", LABELS)) == [1, 1]


def test_one_slow_call_decides_nothing():
    pacing = Pacing(Paces(), "model", LABELS)
    take(pacing, (0.2, 0.2), (0.2, 3.0), (0.2, 0.2))
    assert dealt(pacing) == [1, 1]


def test_what_was_found_on_a_busy_machine_is_found_otherwise_later():
    known = Paces()
    take(Pacing(known, "model", LABELS), (0.2, 0.9), (0.2, 0.9))
    pacing = Pacing(known, "model", ("here", "cuda:1"))
    pacing.paces = None  # some runs later it is asked again
    take(pacing, (0.2, 0.2), (0.2, 0.2))
    assert dealt(Pacing(known, "model", LABELS)) == [1, 1]


@pytest.mark.parametrize(("paces", "expected"), [((0.2, 0.41), [1, 1]), ((0.2, 0.5), [2, 0]), ((0.001, 0.005), [1, 1])])
def test_units_are_dealt_anew_only_where_it_gains_enough(paces, expected):
    pacing = Pacing(Paces(), "model", LABELS)
    take(pacing, paces, paces)
    assert dealt(pacing) == expected


def test_three_units_go_to_unlike_devices_by_pace():
    pacing = Pacing(Paces(), "model", LABELS)
    units = [*UNITS, Unit(2, 0)]
    take(pacing, (0.3, 0.2), (0.3, 0.2), units=units)
    assert dealt(pacing, units) == [1, 2]


def test_sharing_that_takes_longer_than_one_device_alone_is_a_loss():
    for walls, loses in (((0.5, 0.39), False), ((0.5, 0.45), True)):
        pacing = Pacing(Paces(alone={"model": 0.4}), "model", LABELS)
        for wall in walls:
            pacing.take([1.0, 1.0], [0.2, 0.2], wall, again(UNITS, 2))
        assert pacing.loses is loses


def test_a_loss_is_judged_though_a_device_had_no_part_and_no_time():
    paces, devices = Paces(alone={"model": 0.1}), [Device("cuda:1"), Device("cuda:2")]
    team = Team(devices, RunReport("exact", ["here"]), None, known=paces, model="model")
    team.at_pace_of("model")
    record = StepRecord(1.0, [1, 1, 0], compute_s=[0.2, 0.2], lanes=[0, 1])
    deal = by_conds(UNITS, 1, [1.0, 1.0, 1.0])
    for _ in range(2):
        team.judging.learn(record, deal, 0.3, lambda paces: deal)
        team.judging.judge(deal)
    assert len(team.exchanges) == 1


class Device:
    """Of a worker, only where it is."""

    def __init__(self, name):
        self.place = Place(name, name, "cpu")
