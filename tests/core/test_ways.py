"""How a call is divided, and which way is taken, by given times."""

import itertools

import pytest

from hybridiff_core.network.tokens import SHARES, Form
from hybridiff_core.share import Unit, Way, by_conds, by_rows, by_rows_and_tokens, by_tokens
from hybridiff_core.ways import TRIED, Tried, Ways

ONE, TWO = [Unit(0, 0)], [Unit(0, 0), Unit(1, 0)]
FORM = Form(blocks=8, attends=tuple(range(8)), tokens=1024, text=77, bytes_a_token=8 * 2 * 512 * 4)


def items(deal, devices):
    """Each device's (branch, batch item) pairs of what is not divided by tokens."""
    return [
        [
            (unit.branch, row)
            for parcel in deal.parcels
            if parcel.devices == (device,)
            for unit in parcel.units
            for row in range(*(parcel.rows or (0, deal.batch)))
        ]
        for device in range(devices)
    ]


@pytest.mark.parametrize(
    ("units", "batch", "paces", "counts"),
    [
        (ONE, 4, [1, 1], [2, 2]),
        (ONE, 3, [1, 1], [2, 1]),
        (ONE, 8, [1, 1, 1], [3, 3, 2]),
        (ONE, 5, [1, 1.5], [3, 2]),
        (TWO, 2, [1, 1, 1, 1], [1, 1, 1, 1]),
        (TWO, 3, [1, 2], [4, 2]),
        ([Unit(0, 0, local=True), Unit(1, 0)], 4, [1, 1], [4, 4]),
    ],
)
def test_batch_items_go_to_the_devices_by_pace_each_once(units, batch, paces, counts):
    deal = by_rows(units, batch, paces)
    dealt = items(deal, len(paces))
    assert list(map(len, dealt)) == counts
    assert sorted(item for mine in dealt for item in mine) == [
        (unit.branch, row) for unit in units for row in range(batch)
    ]
    assert sum(deal.loads(len(paces))) == pytest.approx(len(units))


def test_units_of_the_same_items_are_one_forward():
    deal = by_rows(TWO, 2, [1, 100])
    assert [(parcel.units, parcel.rows) for parcel in deal.parcels] == [(tuple(TWO), None)]


@pytest.mark.parametrize(("paces", "tokens"), [([1, 1], [512, 512]), ([1, 3], [806, 217]), ([1, 1, 1, 1], [256] * 4)])
def test_devices_that_divide_by_tokens_are_done_at_one_time(paces, tokens):
    deal = by_tokens(ONE, 1, paces, FORM)
    (parcel,) = deal.parcels
    bounds = parcel.bounds
    assert bounds[0] == 0 and bounds[-1] == SHARES
    assert [FORM.tokens * (b - a) // SHARES for a, b in itertools.pairwise(bounds)] == pytest.approx(tokens, abs=2)
    done = [load * pace for load, pace in zip(deal.loads(len(paces)), paces)]
    assert max(done) == pytest.approx(min(done), rel=0.01)


def test_a_device_too_slow_for_the_text_alone_gets_no_tokens():
    deal = by_tokens(ONE, 1, [1, 1, 40], FORM)
    assert [parcel.devices for parcel in deal.parcels] == [(0, 1)]


def test_four_devices_and_two_branches_are_two_groups_of_two():
    deal = by_tokens(TWO, 1, [1, 1, 1, 1], FORM)
    assert sorted(parcel.devices for parcel in deal.parcels) == [(0, 2), (1, 3)]
    assert all(len(parcel.units) == 1 for parcel in deal.parcels)


def test_two_unlike_devices_divide_both_branches():
    deal = by_tokens(TWO, 1, [1, 2], FORM)
    (parcel,) = deal.parcels
    assert parcel.devices == (0, 1) and parcel.units == tuple(TWO)
    # 1.5 for equal tokens; each computes the text, and the slow one takes twice as long for it
    assert 2 / max(load * pace for load, pace in zip(deal.loads(2), [1, 2])) == pytest.approx(1.40, abs=0.02)


def test_the_odd_item_is_divided():
    deal = by_rows_and_tokens(ONE, 3, [1, 1], FORM)
    assert items(deal, 2) == [[(0, 0)], [(0, 1)]]
    assert [(parcel.rows, parcel.devices) for parcel in deal.parcels if parcel.bounds] == [((2, 3), (0, 1))]
    assert by_rows_and_tokens(ONE, 4, [1, 1], FORM) is None
    assert by_rows_and_tokens(ONE, 1, [1, 1], FORM) is None


class Choice:
    """Calls by whatever is picked, which take given seconds."""

    def __init__(self, seconds, alone_s=1.0, paces=(1.0, 1.0), form=FORM):
        self.seconds, self.alone_s, self.paces = seconds, alone_s, list(paces)
        self.deals = [by_conds(ONE, 1, self.paces), by_tokens(ONE, 1, self.paces, form)]
        self.ways = Ways(Tried())

    def take(self, calls):
        taken = []
        for _ in range(calls):
            deal = self.ways.pick(self.deals, self.paces, True, self.alone_s)
            taken.append(deal.way)
            self.ways.note(deal.way, self.seconds[deal.way])
        return taken


def test_a_way_that_is_faster_stays():
    assert Choice({Way.TOKENS: 0.6}).take(6) == [Way.TOKENS] * 6


def test_a_way_that_is_slower_than_it_should_be_is_left_after_two_calls():
    taken = Choice({Way.TOKENS: 1.2, Way.CONDS: 1.0}).take(6)
    assert taken == [Way.TOKENS] * TRIED + [Way.CONDS] * (6 - TRIED)


def test_a_way_that_cannot_gain_is_not_tried():
    choice = Choice({Way.CONDS: 0.005}, alone_s=0.005, paces=(0.005, 0.005))
    assert choice.take(3) == [Way.CONDS] * 3  # eight exchanges take longer than half of it


def test_without_times_it_goes_by_what_ways_should_take():
    deals = [by_conds(TWO, 1, [1, 1]), by_tokens(TWO, 1, [1, 1], FORM)]
    assert Ways().pick(deals, [1, 1], False).way is Way.CONDS
    deals = [by_conds(TWO, 1, [1, 2]), by_tokens(TWO, 1, [1, 2], FORM)]
    assert Ways().pick(deals, [1, 2], False).way is Way.TOKENS
