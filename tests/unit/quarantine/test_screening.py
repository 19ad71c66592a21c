from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from coinwatch.quarantine.screening import Decision, Value, outliers, screen

START = datetime(2026, 1, 1, tzinfo=UTC)


def values(*prices):
    return [
        Value(START + timedelta(hours=number), None if price is None else Decimal(str(price)))
        for number, price in enumerate(prices)
    ]


@pytest.fixture
def decide(rules):
    """Decide on values after one of 100: 'a' for accepted, 'h' for held, 'r' and a number for releasing."""

    def decide(*prices):
        first, *others = values(100, *prices)
        decisions = screen(others, rules.defaults.bad_value, accepted=first)
        return ["h" if each.reason else f"r{len(each.released)}" if each.released else "a" for each in decisions]

    return decide


@pytest.mark.parametrize(
    ("prices", "decided"),
    [
        pytest.param([125, 94], ["a", "a"], id="25 percent is allowed"),
        pytest.param([125.1], ["h"], id="more is not"),
        pytest.param([None, 0.5, 100], ["h", "h", "a"], id="not a number, and a decimal shift"),
        pytest.param([60, 60, 60], ["h", "h", "r2"], id="three that agree are released"),
        pytest.param([60, 62.9, 60], ["h", "h", "r2"], id="within 5 percent"),
        pytest.param([60, 63.1, 60], ["h", "h", "h"], id="further apart they do not agree"),
        pytest.param([60, 60, 100, 60], ["h", "h", "a", "h"], id="a price in line separates them"),
        pytest.param([60, None, 60, 60], ["h", "h", "h", "h"], id="and so does a value that is not a number"),
        pytest.param([1000, 60, 60, 60], ["h", "h", "h", "r2"], id="one that does not agree stays quarantined"),
        pytest.param([60, 60, 60, 59, 100], ["h", "h", "r2", "a", "h"], id="the new level counts then"),
    ],
)
def test_values_are_accepted_quarantined_or_released(decide, prices, decided):
    assert decide(*prices) == decided


def test_the_first_value_of_all_is_accepted(rules):
    assert screen(values(5), rules.defaults.bad_value) == [Decision(values(5)[0])]


@pytest.mark.parametrize(
    ("prices", "alone"),
    [
        pytest.param([100, 1000, 101], [1], id="ten times"),
        pytest.param([100, 10, 101], [1], id="a tenth"),
        pytest.param([100, 60, 60, 61], [], id="a new level has a neighbour"),
        pytest.param([1000, 100, 101], [], id="the first has no one before it"),
        pytest.param([100, 124, 101], [], id="near enough"),
    ],
)
def test_a_point_of_history_far_from_both_neighbours_is_found(rules, prices, alone):
    points = {START + timedelta(hours=hour): Decimal(price) for hour, price in enumerate(prices)}
    assert outliers(points, rules.defaults.bad_value) == {START + timedelta(hours=hour) for hour in alone}
