from datetime import UTC, datetime, timedelta

import pytest

from coinwatch.coingecko.requests import Budget, forecast_month

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
TODAY = NOON.replace(hour=0)
DAY = timedelta(days=1)
HOURS_LEFT = 8 * 24 + 12


def test_a_quiet_month_needs_one_request_an_hour_to_its_end():
    counts = {TODAY - DAY * number: {"prices": 24} for number in range(1, 22)} | {TODAY: {"prices": 12}}
    assert forecast_month(counts, NOON, 1, 10_000) == Budget(21 * 24 + 12, 21 * 24 + 12 + HOURS_LEFT, 10_000)


def test_history_is_counted_and_not_extrapolated():
    assert forecast_month({TODAY: {"prices": 1, "history": 2000}}, NOON, 1, None) == Budget(
        2001, 2001 + HOURS_LEFT, None
    )


def test_retries_and_polls_by_hand_of_the_last_days_are_extrapolated():
    counts = {TODAY - DAY * number: {"prices": 96, "ping": 5} for number in range(1, 8)}
    assert forecast_month(counts, NOON, 1, None) == Budget(7 * 101, 7 * 101 + 4 * HOURS_LEFT, None)


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
