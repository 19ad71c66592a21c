from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.exc import OperationalError

from coinwatch.coingecko.requests import Budget, RequestMeter, budget, requests_since
from coinwatch.coingecko.response_errors import RateLimited

DAY = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.fixture
def waits():
    return []


@pytest.fixture
def meter(warehouse, clock, waits):
    """Four requests a minute; waits are noted, and the clock does not move."""
    return RequestMeter(lambda: warehouse, clock=clock, sleep=waits.append, per_minute=4)


def counted(warehouse):
    with warehouse.begin() as connection:
        return requests_since(connection, DAY - timedelta(days=1))


def test_every_request_is_counted_by_day_and_endpoint(meter, warehouse, clock):
    for endpoint in ("prices", "history", "history"):
        meter.wait_turn(endpoint)
    clock.now += timedelta(hours=12)
    meter.wait_turn("prices")
    assert counted(warehouse) == {
        DAY: {"prices": 1, "history": 2},
        DAY + timedelta(days=1): {"prices": 1},
    }


def test_requests_of_all_workers_at_the_same_moment_wait_one_after_the_other(meter, warehouse, clock, waits):
    other = RequestMeter(lambda: warehouse, clock=clock, sleep=waits.append, per_minute=4)
    for each in (meter, other, meter, other):
        each.wait_turn("prices")
    assert waits == [15, 30, 45]
    clock.now += timedelta(minutes=1)
    meter.wait_turn("prices")
    assert waits == [15, 30, 45]


def test_what_a_wrong_clock_set_does_not_count(meter, clock, waits):
    clock.now += timedelta(days=400)
    meter.wait_turn("prices")
    meter.back_off(30)
    clock.now -= timedelta(days=400)
    meter.wait_turn("prices")
    assert waits == []


def test_no_worker_sends_or_counts_a_request_before_retry_at(meter, warehouse, clock):
    meter.back_off(30)
    clock.now += timedelta(seconds=12)
    with pytest.raises(RateLimited) as failure:
        meter.wait_turn("prices")
    assert failure.value.retry_after == 18
    assert counted(warehouse) == {}
    clock.now += timedelta(seconds=18)
    meter.wait_turn("prices")
    meter.wait_turn("prices")
    assert counted(warehouse) == {DAY: {"prices": 2}}


def test_without_a_warehouse_requests_are_sent(clock, waits, caplog):
    def down():
        raise OperationalError("SELECT", {}, ConnectionError("connection refused"))

    meter = RequestMeter(down, clock=clock, sleep=waits.append, per_minute=4)
    meter.wait_turn("prices")
    meter.back_off(30)
    assert caplog.text.count("warehouse unavailable (connection refused)") == 2


def test_the_budget_counts_the_requests_of_a_poll(make_world):
    world = make_world(coins=tuple(f"coin-{number}" for number in range(251)))
    app = world.app()
    app.client.simple_price(["bitcoin"], "usd")
    assert budget(app) == Budget(used=1, forecast=1 + 2 * (8 * 24 + 12), limit=10_000)
