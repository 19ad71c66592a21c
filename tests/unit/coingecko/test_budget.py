from datetime import UTC, datetime, timedelta

import pytest

from coinwatch.coingecko.requests import Budget, forecast_month

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
TODAY = NOON.replace(hour=0)
DAY = timedelta(days=1)
HOURS_LEFT = 8 * 24 + 12


def days(numbers, **requests):
    return {TODAY - DAY * number: requests for number in numbers}


@pytest.mark.parametrize(
    ("counts", "used", "hourly"),
    [
        pytest.param(days(range(1, 22), prices=24) | days([0], prices=12), 21 * 24 + 12, 1, id="a quiet month"),
        pytest.param(days([0], prices=1, history=2000), 2001, 1, id="history is not extrapolated"),
        pytest.param(days(range(1, 8), prices=96, ping=5), 7 * 101, 4, id="retries of the last days are"),
    ],
)
def test_the_rest_of_a_month_is_as_the_last_days_and_at_least_one_poll_an_hour(counts, used, hourly):
    assert forecast_month(counts, NOON, 1, 10_000) == Budget(used, used + hourly * HOURS_LEFT, 10_000)


def test_of_the_month_before_only_the_rate_of_the_last_days_counts():
    first = datetime(2026, 12, 1, 0, 30, tzinfo=UTC)
    counts = {first.replace(minute=0) - DAY: {"prices": 48}, first - 20 * DAY: {"prices": 9999}}
    assert forecast_month(counts, first, 1, None) == Budget(0, 2 * 31 * 24 - 1, None)


@pytest.mark.parametrize(
    ("budget", "short"),
    [
        pytest.param(Budget(799, 1000, 1000), False, id="enough"),
        pytest.param(Budget(800, 900, 1000), True, id="four fifths used"),
        pytest.param(Budget(10, 1001, 1000), True, id="too little at the end"),
        pytest.param(Budget(99_999, 999_999, None), False, id="no limit known"),
    ],
)
def test_a_budget_is_short_in_time(budget, short):
    assert budget.is_short is short
