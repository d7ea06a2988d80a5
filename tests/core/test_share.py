import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hybridiff_core.call import Piece, merge
from hybridiff_core.share import Unit, share


def written(units, devices):
    """The deal as text: a device's units separated by spaces, devices by bars; a unit is branch.index."""
    return " | ".join(" ".join(f"{u.branch}.{u.index}" for u in part) for part in share(units, devices))


@pytest.mark.parametrize(
    "units, devices, expected",
    [
        ([Unit(0, 0), Unit(1, 0)], 1, "0.0 1.0"),
        ([Unit(0, 0), Unit(1, 0)], 2, "0.0 | 1.0"),
        ([Unit(0, 0), Unit(1, 0)], 3, "0.0 | 1.0 | "),
        ([Unit(0, 0), Unit(1, 0), Unit(2, 0)], 2, "0.0 2.0 | 1.0"),
        # both branches of two halves: whole branches are as quick as halves, so they stay whole
        ([Unit(0, 0, 0.5), Unit(0, 1, 0.5), Unit(1, 0, 0.5), Unit(1, 1, 0.5)], 2, "0.0 0.1 | 1.0 1.1"),
        # three conds against one: taken apart, each device has two instead of three
        ([Unit(0, 0), Unit(0, 1), Unit(0, 2), Unit(1, 0)], 2, "0.0 0.2 | 0.1 1.0"),
        # what must stay here stays, and the other branch goes
        ([Unit(0, 0), Unit(1, 0, local=True)], 2, "1.0 | 0.0"),
        ([Unit(0, 0, local=True), Unit(1, 0, local=True)], 2, "0.0 1.0 | "),
    ],
)
def test_deals(units, devices, expected):
    assert written(units, devices) == expected


@given(
    st.lists(st.tuples(st.integers(0, 2), st.floats(0.01, 1.0), st.booleans()), max_size=8),
    st.integers(1, 5),
)
def test_every_unit_once_and_local_ones_here(conds, devices):
    units = [Unit(branch, index, cost, local) for index, (branch, cost, local) in enumerate(conds)]
    dealt = share(units, devices)
    assert len(dealt) == devices
    assert sorted((u for part in dealt for u in part), key=lambda u: u.index) == units
    assert not any(u.local for part in dealt[1:] for u in part)


def test_no_device_is_an_error():
    with pytest.raises(ValueError, match="devices is 0"):
        share([Unit(0, 0)], 0)


def test_merge_means_a_branch_from_two_devices_by_its_masks():
    here, there = [Unit(0, 0)], [Unit(0, 1), Unit(1, 0)]
    masks = {0: torch.tensor([1.0, 1.0, 0.0]), 1: torch.tensor([1.0, 0.0, 2.0])}
    merged = merge(
        [
            Piece(here, torch.tensor([2.0, 2.0, 0.0])),
            Piece(there[:1], torch.tensor([4.0, 9.0, 6.0])),
            Piece(there[1:], torch.ones(3)),
        ],
        lambda units: sum(masks[unit.index] for unit in units),
        batch=3,
    )
    assert merged[0].tolist() == [3.0, 2.0, 6.0]
    assert merged[1].tolist() == [1.0, 1.0, 1.0]
