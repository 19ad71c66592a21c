import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from coinwatch.alerting.outbox import (
    Alert,
    last_alerts,
    mark_delivered,
    mark_failed,
    mark_not_configured,
    store_alerts,
    undelivered,
)
from coinwatch.analysis.anomalies import Anomaly
from coinwatch.storage import schema

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)

ANOMALY = Anomaly(
    coin="bitcoin",
    rule="move_24h",
    ts=TEN,
    price=63940.4,
    reference_price=73520.0,
    reference_ts=TEN - 24 * HOUR,
    hours=24.0,
    log_return=math.log(63940.4 / 73520.0),
    change_pct=100 * (63940.4 / 73520.0 - 1),
    threshold_pct=-8.06,
    usual_pct=2.4,
    severity="critical",
)
ALERT = Alert.of(ANOMALY, "BTC", "usd", raised_at=TEN + HOUR, run_id="run")


def later(hours, **changes):
    ts = TEN + hours * HOUR
    return Alert.of(replace(ANOMALY, ts=ts, **changes), "BTC", "usd", raised_at=ts, run_id="run")


@pytest.fixture
def connection(warehouse):
    with warehouse.begin() as connection:
        yield connection


def rows(connection):
    return [dict(row) for row in connection.execute(select(schema.alerts).order_by("id")).mappings()]


def ids(alerts):
    return [alert.id for alert in alerts]


def test_an_alert_is_stored_with_all_that_is_known_of_it(connection):
    store_alerts(connection, [ALERT])
    assert rows(connection) == [
        {
            "id": "move_24h-bitcoin-usd-20261122T100000Z",
            "coin": "bitcoin",
            "currency": "usd",
            "rule": "move_24h",
            "severity": "critical",
            "state": "firing",
            "ts": TEN,
            "value": ANOMALY.change_pct,
            "threshold": -8.06,
            "message": "BTC −13.03 % in 24 h to $63,940: 5.8× a usual day (usual is ±2.4 %)",
            "raised_at": TEN + HOUR,
            "delivered_at": None,
            "delivery": "pending",
            "delivery_error": None,
            "run_id": "run",
        }
    ]


def test_an_alert_that_is_found_again_stays_as_it_was(connection):
    store_alerts(connection, [ALERT])
    mark_delivered(connection, ALERT.id, TEN + 2 * HOUR)
    before = rows(connection)
    store_alerts(connection, [replace(ALERT, message="another", run_id="another")])
    store_alerts(connection, [])
    assert rows(connection) == before
    assert undelivered(connection, TEN) == []


def test_alerts_wait_in_the_order_in_which_they_were_raised(connection):
    alerts = [later(2), later(0), later(1)]
    store_alerts(connection, alerts)
    assert ids(undelivered(connection, TEN)) == [alerts[1].id, alerts[2].id, alerts[0].id]


def test_what_slack_did_not_take_waits_with_the_reason_and_loses_it_when_it_did(connection):
    store_alerts(connection, [ALERT])
    mark_failed(connection, ALERT.id, "Slack answered 500")
    [waiting] = undelivered(connection, TEN + 1000 * HOUR)
    assert (waiting.delivery, waiting.delivery_error, waiting.delivered_at) == ("pending", "Slack answered 500", None)
    mark_delivered(connection, ALERT.id, TEN + 2 * HOUR)
    [row] = rows(connection)
    assert (row["delivery"], row["delivery_error"], row["delivered_at"]) == ("delivered", None, TEN + 2 * HOUR)


def test_what_was_raised_without_slack_waits_only_while_it_is_of_interest(connection):
    old, new = later(0), later(5)
    store_alerts(connection, [old, new])
    mark_not_configured(connection)
    assert [row["delivery"] for row in rows(connection)] == ["not_configured", "not_configured"]
    assert ids(undelivered(connection, TEN)) == [old.id, new.id]
    assert ids(undelivered(connection, TEN + HOUR)) == [new.id]


def test_what_was_delivered_stays_delivered_when_slack_is_taken_away(connection):
    store_alerts(connection, [ALERT])
    mark_delivered(connection, ALERT.id, TEN)
    mark_not_configured(connection)
    assert rows(connection)[0]["delivery"] == "delivered"


def test_the_newest_alert_of_each_coin_and_rule_comes_with_its_log_return(connection):
    other = later(3, coin="ethereum", rule="move_1h", change_pct=5.0)
    euro = Alert.of(replace(ANOMALY, ts=TEN + 9 * HOUR), "BTC", "eur", raised_at=TEN, run_id="run")
    store_alerts(connection, [ALERT, later(2, change_pct=-20.0), other, euro])
    last = last_alerts(connection, "usd")
    assert {key: alert.ts for key, alert in last.items()} == {
        ("bitcoin", "move_24h"): TEN + 2 * HOUR,
        ("ethereum", "move_1h"): TEN + 3 * HOUR,
    }
    assert last["bitcoin", "move_24h"].log_return == pytest.approx(math.log(0.8), rel=1e-12)
    assert last["ethereum", "move_1h"].log_return == pytest.approx(math.log(1.05), rel=1e-12)
