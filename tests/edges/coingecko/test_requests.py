from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.exc import OperationalError

from coinwatch.coingecko.requests import RequestMeter, requests_since

DAY = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.fixture
def waits():
    return []


@pytest.fixture
def meter(warehouse, clock, waits):
    """Four requests a minute; whoever waits is told, and the clock stands."""
    return RequestMeter(lambda: warehouse, clock=clock, sleep=waits.append, per_minute=4)


def counted(warehouse):
    with warehouse.begin() as connection:
        return requests_since(connection, DAY - timedelta(days=1))


def test_every_request_is_counted_by_day_and_endpoint(meter, warehouse, clock):
    for endpoint in ("prices", "history", "history"):
        assert meter.admit(endpoint) == 0
    clock.now += timedelta(hours=12)
    meter.admit("prices")
    assert counted(warehouse) == {
        DAY: {"prices": 1, "history": 2},
        DAY + timedelta(days=1): {"prices": 1},
    }


def test_requests_at_the_same_moment_wait_one_after_the_other(meter, waits):
    for _ in range(4):
        meter.admit("prices")
    assert waits == [15, 30, 45]


def test_a_request_long_after_the_one_before_does_not_wait(meter, clock, waits):
    meter.admit("prices")
    clock.now += timedelta(seconds=15)
    meter.admit("prices")
    assert waits == []


def test_another_worker_waits_for_the_same_turns(meter, warehouse, clock, waits):
    meter.admit("prices")
    RequestMeter(lambda: warehouse, clock=clock, sleep=waits.append, per_minute=4).admit("prices")
    assert waits == [15]


def test_a_turn_that_a_wrong_clock_gave_is_not_waited_for(meter, clock, waits):
    clock.now += timedelta(days=400)
    meter.admit("prices")
    clock.now -= timedelta(days=400)
    meter.admit("prices")
    assert waits == []


def test_after_an_answer_that_asks_to_wait_nobody_asks_and_nothing_is_counted(meter, warehouse, clock):
    meter.hold_off(30)
    clock.now += timedelta(seconds=12)
    assert meter.admit("prices") == 18
    assert counted(warehouse) == {}
    clock.now += timedelta(seconds=18)
    assert meter.admit("prices") == 0
    assert meter.admit("prices") == 0


def test_a_wait_that_a_wrong_clock_gave_is_not_kept(meter, clock):
    clock.now += timedelta(days=400)
    meter.hold_off(30)
    clock.now -= timedelta(days=400)
    assert meter.admit("prices") == 0


def test_a_warehouse_that_is_down_stops_no_request(clock, waits, caplog):
    def down():
        raise OperationalError("SELECT", {}, ConnectionError("nobody listens"))

    meter = RequestMeter(down, clock=clock, sleep=waits.append, per_minute=4)
    assert meter.admit("prices") == 0
    meter.hold_off(30)
    assert "the warehouse cannot be reached (nobody listens): this request is neither counted" in caplog.text
    assert "other workers are not told to wait" in caplog.text
