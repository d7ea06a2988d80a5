"""Cuts, passes and the lead, on a network of three blocks whose numbers can be checked by hand."""

from __future__ import annotations

import pytest
import torch

from hybridiff_core.extrapolation import History, between, factor
from hybridiff_core.modes.estimates import Alternator, Predictor
from hybridiff_core.network.lead import Lead
from hybridiff_core.network.split import Cut, Inner, Outer, Pass, Reached, Whole, balance, central_openings
from hybridiff_core.rules import FURTHEST, MADE_UP
from hybridiff_core.share import Unit, share


class Toy:
    """f(x, t, c) = ((x + 1) * 10 + t) + 100 c: three blocks, and a record of what each saw."""

    def __init__(self):
        self.seen = []

    def __call__(self, x, t, c, through):
        blocks = [lambda h: h + 1, lambda h: h * 10 + t, lambda h: h + 100 * c]
        h = torch.tensor(float(x))
        for i, block in enumerate(blocks):

            def run(state, i=i, block=block):
                self.seen.append((i, float(state[0]), t, c))
                return (block(state[0]),)

            (h,) = through.at(i, (h,), run)
        return h


MIDDLE = Cut((1, 2))


def test_a_whole_pass_computes_the_network_and_takes_z():
    through = Whole(MIDDLE)
    assert Toy()(2, 5, 3, through) == 335  # (2 + 1) * 10 + 5 + 300
    assert through.z == (torch.tensor(35.0),)
    assert Toy()(2, 5, 3, Pass()) == 335


def test_an_outer_pass_hands_h_on_and_goes_on_with_z():
    toy, handed = Toy(), []
    assert toy(2, 5, 3, Outer(MIDDLE, lambda: (torch.tensor(7.0),), handed.append)) == 307
    assert handed == [(torch.tensor(3.0),)]
    assert toy.seen == [(0, 2, 5, 3), (2, 7, 5, 3)]


def test_an_inner_pass_is_one_segment_and_nothing_else():
    toy = Toy()
    with pytest.raises(Reached) as reached:
        toy(0, 5, 3, Inner(1, (1, 2), (torch.tensor(4.0),)))
    assert reached.value.state == (torch.tensor(45.0),)
    assert toy.seen == [(1, 4, 5, 3)]


class Beside:
    """A Link to an inner device that works when it is asked for its result."""

    def __init__(self, toy, time_of):
        self.toy, self.time_of, self.out = toy, time_of, []

    def send(self, unit, h, z):
        self.out.append((unit, h, self.time_of()))

    def receive(self):
        unit, h, t = self.out.pop(0)
        with pytest.raises(Reached) as reached:
            self.toy(0, t, unit.branch, Inner(1, (1, 2), h))
        return reached.value.state


def test_a_lead_runs_the_outer_part_on_z_of_the_step_before_extrapolated():
    outer, inner, now = Toy(), Toy(), None
    unit = Unit(2, 0)
    lead = Lead(MIDDLE, Beside(inner, lambda: now))
    for now, x in ((8, 1), (7, 2)):
        lead.whole(unit, now, lambda unit, through, x=x, now=now: outer(x, now, unit.branch, through))
    # exact z: (1 + 1) * 10 + 8 = 28 at time 8, (2 + 1) * 10 + 7 = 37 at 7
    outer.seen.clear()
    now = 6
    done = lead.outer(unit, 6, lambda unit, through: outer(3, 6, unit.branch, through))
    assert done == 37 + (37 - 28) + 200  # z expected at 6 is 46
    assert outer.seen == [(0, 3, 6, 2), (2, 46, 6, 2)] and inner.seen == []
    now = 4
    done = lead.outer(unit, 4, lambda unit, through: outer(9, 4, unit.branch, through))
    # inner(h of x 3, time 6) = 4 * 10 + 6 = 46; from 37 at 7 to 46 at 6, two on: 64
    assert inner.seen == [(1, 4, 6, 2)]
    assert done == 64 + 200
    assert lead.take_error() == 0 and lead.take_error() is None
    done = lead.outer(unit, 3, lambda unit, through: outer(1, 3, unit.branch, through), hand_on=False)
    # z of time 4 is 10 * 10 + 4 = 104, 64 had been used: off by 40 / 104
    assert lead.take_error() == pytest.approx(40 / 104)
    assert done == 104 + (104 - 46) / 2 + 200
    lead.drain()
    assert inner.seen == [(1, 4, 6, 2), (1, 10, 4, 2)]


def test_with_two_segments_z_is_two_steps_behind():
    toy, now = Toy(), 0
    lead = Lead(MIDDLE, Beside(toy, lambda: now), delay=2, extrapolate=False)
    unit = Unit(0, 0)
    lead.keep(unit, 9, (torch.tensor(1.0),))
    done = []
    for now, x in ((8, 10), (7, 20), (6, 30), (5, 40)):
        done.append(float(lead.outer(unit, now, lambda unit, through, x=x, now=now: toy(x, now, 0, through))))
    assert done == [1, 1, 11 * 10 + 8, 21 * 10 + 7]


def test_a_history_extrapolates_in_the_models_time():
    history = History()
    history.add(10, [torch.tensor(1.0)])
    assert history.at(8)[0] == 1
    history.add(9, [torch.tensor(3.0)])
    assert history.at(8.5)[0] == 4
    assert history.at(8.5, gain=0.0)[0] == 3 and history.at(8.5, gain=0.5)[0] == 3.5
    history.add(9, [torch.tensor(2.0)])  # the same time again: the newer value counts
    assert history.at(8)[0] == 3
    assert factor(5, 5, 4) == 0 and factor(1, 0, -100) == 4
    assert between(2, torch.tensor(0.0), 1, torch.tensor(10.0), 1.5) == 5


def test_predictor():
    predictor = Predictor()
    for time, value in ((4, 1.0), (3, 2.0)):
        predictor.observe(time, {0: torch.tensor(value), 1: torch.tensor(-value)})
    assert predictor.ready({0, 1}) and not predictor.ready({0})
    # slopes a step are 1 and -1; the second branch follows the mean of both
    assert predictor.estimate(1) == {0: 4, 1: -2}
    # guided with 3: -2 + 3 * 6 = 16 expected, -2 + 3 * 7 = 19 true
    assert predictor.error(1, {0: torch.tensor(5.0), 1: torch.tensor(-2.0)}, 3.0) == pytest.approx(3 / 19)


def test_with_three_branches_the_worst_pair_tells_the_error():
    predictor = Predictor()
    for time in (3, 2):
        predictor.observe(time, {branch: torch.tensor(4.0) for branch in (0, 1, 2)})
    found = predictor.error(1, {0: torch.tensor(4.0), 1: torch.tensor(4.0), 2: torch.tensor(3.0)}, 3.0)
    assert found == pytest.approx(2 / 6)  # 4 foreseen, 3 + 3 (4 - 3) computed


def test_what_a_foreseen_step_was_off_is_made_up_for_in_the_next():
    predictor = Predictor()
    for time, value in ((9, 1.0), (8, 2.0)):
        predictor.observe(time, {0: torch.tensor(value)})
    assert predictor.make_up(7, -1.0, eps := {0: torch.tensor(3.0)}) is eps  # nothing was foreseen
    assert predictor.predict(7, -2.0) == {0: 3}
    # 6 at time 6: on the line from (8, 2), 4 at time 7, not 3; the step then went twice as far as this one does
    assert predictor.make_up(6, -1.0, {0: torch.tensor(6.0)}) == {0: 6 + MADE_UP * 2 * 1}
    predictor.observe(6, {0: torch.tensor(6.0)})
    assert predictor.make_up(5, -1.0, eps) is eps


def test_a_last_step_that_goes_nowhere_makes_up_for_nothing():
    predictor = Predictor()
    for time in (3, 2):
        predictor.observe(time, {0: torch.tensor(1.0)})
    predictor.predict(1, -1.0)
    assert predictor.make_up(0, 0.0, {0: torch.tensor(5.0)}) == {0: 5}
    assert predictor.make_up(0, -1e-9, {0: torch.tensor(5.0)})[0] == 5 + MADE_UP * FURTHEST * 2


def test_alternator_completes_the_other_branch_by_the_guidance_difference():
    alternator = Alternator(gain=1.0)
    for time, c, u in ((9, 10.0, 4.0), (8, 11.0, 4.0)):  # D is 6, then 7
        alternator.observe(time, {0: torch.tensor(c), 1: torch.tensor(u)})
    done = alternator.complete(7, 1, torch.tensor(5.0))
    assert done == {1: 5, 0: 5 + 8}  # D goes on to 8
    # cond's turn at 6. At 7 cond was, between 11 at 8 and 15 at 6, 13; uncond was 5: D(7) = 8, and 9 at 6
    done = alternator.complete(6, 0, torch.tensor(15.0))
    assert done == {0: 15, 1: 15 - 9}
    still = Alternator(gain=0.0)
    still.observe(9, {0: torch.tensor(10.0), 1: torch.tensor(4.0)})
    still.observe(8, {0: torch.tensor(11.0), 1: torch.tensor(4.0)})
    assert still.complete(7, 1, torch.tensor(5.0))[0] == 5 + 7


def test_balance_gives_unequal_devices_unequal_parts():
    ten = [1.0] * 10
    cut, seconds = balance([ten, ten], 0.0, central_openings(10))
    assert cut.bounds == (2, 7) and seconds == [5, 5]
    cut, seconds = balance([ten, [2.0] * 10], 1.0, central_openings(10))
    assert max(seconds) == 8 and sum(b - a for a, b in cut.segments) in (3, 4)
    cut, seconds = balance([ten, ten, ten], 0.0, central_openings(10))
    assert len(cut.segments) == 2 and max(seconds) == 4
    cut, seconds = balance([ten, [1.0] * 10, [3.0] * 10], 0.0, central_openings(10))
    assert seconds[2] == 3 and seconds[0] + seconds[1] == 9
    assert balance([[1.0] * 3] * 4, 0.0, central_openings(3)) is None


def test_bounds_must_rise():
    for bounds in ((3, 3), (0, 2), (2,)):
        with pytest.raises(ValueError, match="do not rise"):
            Cut(bounds)


def test_the_slower_device_gets_the_branch_with_fewer_conds():
    units = [Unit(0, 0), Unit(0, 1), Unit(1, 0)]
    assert share(units, 2, [1.0, 2.0]) == [units[:2], units[2:]]
    assert share(units, 2, [2.0, 1.0]) == [units[2:], units[:2]]
