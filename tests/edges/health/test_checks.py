from datetime import timedelta

import pytest
from sqlalchemy import delete, insert

from coinwatch.health import issues
from coinwatch.health.checks import check_feed, deliver_waiting
from coinwatch.slack.webhook import SlackError
from coinwatch.warehouse import schema

HOUR = timedelta(hours=1)
QUARTER = timedelta(minutes=15)
TWO = {"coins": ("bitcoin", "ethereum")}


@pytest.fixture
def warehouse(world):
    return world.warehouse()


@pytest.fixture
def check(world, warehouse):
    """Check the feed at a time with some settings, and return the keys of the open issues."""

    def check(at, **settings):
        world.clock.now = at
        app = world.app(settings=world.settings.model_copy(update=settings))
        titles = check_feed(app)
        with warehouse.begin() as connection:
            found = issues.open_issues(connection)
        assert titles == [issue.title for issue in found]
        return [issue.key for issue in found]

    return check


@pytest.fixture
def store(warehouse):
    """Store a price of each coin."""

    def store(ts, *coins):
        common = {"currency": "usd", "ts": ts, "price": 1, "source": "live", "snapshot": "s"}
        with warehouse.begin() as connection:
            connection.execute(insert(schema.prices), [{"coin": coin} | common for coin in coins or ["bitcoin"]])

    return store


@pytest.fixture
def issue(warehouse):
    def issue(key):
        with warehouse.begin() as connection:
            return issues.find(connection, key)

    return issue


@pytest.fixture
def raise_alerts(warehouse, alert_row):
    """Store two alerts of noon."""

    def raise_alerts():
        with warehouse.begin() as connection:
            connection.execute(insert(schema.alerts), [alert_row(name) for name in "ab"])

    return raise_alerts


def test_stale_prices_are_one_issue_that_names_the_coins(check, store, noon, issue):
    store(noon, "bitcoin", "ethereum")
    assert check(noon + 2 * HOUR, **TWO) == []
    assert check(noon + 2 * HOUR + QUARTER, **TWO) == ["stale"]
    assert issue("stale").coins == "bitcoin,ethereum"
    store(noon + 2 * HOUR, "ethereum")
    assert check(noon + 2 * HOUR + QUARTER, **TWO) == ["stale"]
    stale = issue("stale")
    assert (stale.coins, stale.title) == ("bitcoin", "No fresh price of bitcoin")
    assert stale.detail.endswith("Newest price of bitcoin: 2026-11-22T12:00:00Z.")
    assert check(noon + 2 * HOUR + QUARTER, coins=("ethereum",)) == []
    assert issue("stale").state == "resolved"


def test_a_new_coin_has_two_hours_for_its_first_price(check, store, noon, warehouse, issue):
    store(noon)
    assert check(noon, **TWO) == ["no_price"]
    assert issue("no_price").coins == "ethereum"
    for hours, due in ((1, []), (2, ["no_price"])):
        with warehouse.begin() as connection:
            assert [row.key for row in issues.due(connection, noon + hours * HOUR)] == due
    store(noon, "ethereum")
    assert check(noon, **TWO) == []


def test_a_run_is_late_half_an_hour_after_the_hour_unless_a_task_failed(check, store, report, raise_alerts, noon):
    late = noon + timedelta(minutes=90)
    store(noon)
    assert check(late - timedelta(minutes=1)) == []
    assert check(late) == ["late"]
    store(noon + HOUR)
    assert check(late) == []
    report("task:a.b")
    assert check(late + HOUR) == ["task:a.b"]
    # Nor are alerts that a revoked webhook holds up a second issue.
    raise_alerts()
    report("webhook:x")
    assert check(late + HOUR) == ["task:a.b", "webhook:x"]


def test_alerts_that_wait_for_an_hour_are_an_issue_until_they_are_delivered(
    world, check, store, raise_alerts, noon, issue
):
    store(noon)
    raise_alerts()
    assert check(noon + timedelta(minutes=59)) == []
    world.slack.answer_next(503, "")
    assert deliver_waiting(world.app()) == 0, "the watch does not fail"
    assert check(noon + HOUR) == ["undelivered"]
    assert "2 alerts are pending, the oldest since 2026-11-22T12:00:00Z" in issue("undelivered").detail
    assert "503" in issue("undelivered").detail
    world.slack.answer_next(401, "")
    with pytest.raises(SlackError):
        deliver_waiting(world.app())
    assert deliver_waiting(world.app()) == 2
    assert check(noon + HOUR) == []


def test_uploads_that_are_pending_for_two_hours_are_an_issue(world, check, warehouse, noon, issue):
    world.run()
    bucket = {"s3_bucket": "prices"}
    assert check(noon, **bucket) == []
    assert issue("uploads") is None
    with warehouse.begin() as connection:
        connection.execute(insert(schema.pending_uploads), [{"layer": "raw", "hour": noon}])
        connection.execute(delete(schema.log_positions).where(schema.log_positions.c.log.startswith("manifest")))
    assert check(noon, **bucket) == ["uploads"]
    size = (world.settings.archive_path / "manifest.jsonl").stat().st_size
    detail = f"1 partitions and {size:,} bytes of the archive's manifest are not in s3://prices."
    assert (issue("uploads").detail, issue("uploads").notify_after) == (detail, noon + 2 * HOUR)
    for step in world.process_steps():
        step()
    assert check(noon, **bucket) == []


@pytest.mark.parametrize(("requests", "found"), [(7_999, []), (8_000, ["budget"])])
def test_a_short_request_budget_is_an_issue(check, store, warehouse, noon, requests, found):
    store(noon)
    with warehouse.begin() as connection:
        used = {"day": noon.replace(hour=0), "endpoint": "history", "requests": requests}
        connection.execute(insert(schema.api_requests), [used])
    assert check(noon) == found
    with warehouse.begin() as connection:
        connection.execute(delete(schema.api_requests))
    assert check(noon) == []


def test_a_quarantined_value_is_decided_on_without_a_run_of_process_prices(world, check, warehouse, store, noon):
    store(noon)
    value = {"coin": "bitcoin", "currency": "usd", "source": "live", "value": "0.01", "reason": "too low"}
    value |= {"state": "held", "snapshot": "s", "held_at": noon}
    with warehouse.begin() as connection:
        connection.execute(insert(schema.quarantine), [value | {"ts": noon + hour * HOUR} for hour in (1, 2)])
    check(noon + 2 * HOUR)
    found = world.rows("alerts", "coin", "rule", "state", "run_id")
    assert found == [("bitcoin", "bad_value", "firing", "watch_feed")]
