import pytest

from hybridiff_core.plan import HybridPlan


def test_default_round_trip():
    assert HybridPlan().to_dict() == {"mode": "auto", "version": 1}
    assert HybridPlan.from_dict({"mode": "exact", "version": 1}) == HybridPlan(mode="exact")


@pytest.mark.parametrize(
    "values, words",
    [
        ({"mode": "auto", "version": 99}, "version 99, this Hybridiff reads version 1"),
        ({"mode": "auto"}, "expected a plan, got dict"),
        ([1], "expected a plan, got list"),
        ({"mode": "fast", "version": 1}, "mode is 'fast'; use one of auto, exact"),
        ({"mode": "auto", "version": 1, "speed": 3}, "unknown fields speed"),
    ],
)
def test_errors_name_the_value_and_the_way_out(values, words):
    with pytest.raises(ValueError, match=words):
        HybridPlan.from_dict(values)
