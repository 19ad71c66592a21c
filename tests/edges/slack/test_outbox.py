from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from coinwatch.alerts.decide import Incident, Transition
from coinwatch.alerts.silences import acknowledge, active_silences, silence, unsilence
from coinwatch.health.troubles import end_trouble, raise_trouble
from coinwatch.slack.outbox import (
    Alert,
    hold_back,
    mark_delivered,
    mark_failed,
    mark_not_configured,
    mark_refused,
    store_alerts,
    waiting,
)
from coinwatch.warehouse import schema

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)

INCIDENT = Incident("bitcoin", "usd", "move_24h", "firing", TEN, TEN, TEN, notified_move=-0.14, reference_price=73520.0)
TURN = Transition(
    incident=INCIDENT,
    note="move_24h",
    severity="critical",
    price=63940.4,
    change_pct=-13.03,
    threshold_pct=-8.06,
    typical_pct=2.4,
    hours=24.0,
    reference_price=73520.0,
    reference_ts=TEN - 24 * HOUR,
)
ALERT = Alert.of(TURN, "BTC", raised_at=TEN + HOUR, run_id="run")


def later(hours):
    ts = TEN + hours * HOUR
    incident = replace(INCIDENT, opened_at=ts, changed_at=ts, notified_at=ts)
    return Alert.of(replace(TURN, incident=incident), "BTC", raised_at=ts, run_id="run")


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
            "value": -13.03,
            "threshold": -8.06,
            "message": "BTC −13.03 % in 24 h to $63,940: 5.8× a usual day (usual is ±2.4 %)",
            "raised_at": TEN + HOUR,
            "delivered_at": None,
            "delivery": "pending",
            "delivery_error": None,
            "run_id": "run",
            "incident_id": "move_24h-bitcoin-usd-20261122T100000Z",
            "message_id": None,
        }
    ]


def test_an_alert_that_is_found_again_stays_as_it_was(connection):
    store_alerts(connection, [ALERT])
    mark_delivered(connection, schema.alerts, [ALERT.id], "message", TEN + 2 * HOUR)
    before = rows(connection)
    store_alerts(connection, [replace(ALERT, message="another", run_id="another")])
    store_alerts(connection, [])
    assert rows(connection) == before
    assert waiting(connection, schema.alerts, TEN) == []


def test_alerts_wait_in_the_order_in_which_they_were_raised(connection):
    alerts = [later(2), later(0), later(1)]
    store_alerts(connection, alerts)
    assert ids(waiting(connection, schema.alerts, TEN)) == [alerts[1].id, alerts[2].id, alerts[0].id]


def test_what_slack_did_not_take_waits_with_the_reason_and_loses_it_when_it_did(connection):
    store_alerts(connection, [ALERT])
    mark_failed(connection, schema.alerts, [ALERT.id], "Slack answered 500")
    [row] = waiting(connection, schema.alerts, TEN + 1000 * HOUR)
    assert (row.delivery, row.delivery_error, row.delivered_at) == ("pending", "Slack answered 500", None)
    mark_delivered(connection, schema.alerts, [ALERT.id], "message", TEN + 2 * HOUR)
    [row] = rows(connection)
    assert (row["delivery"], row["delivery_error"], row["delivered_at"]) == ("delivered", None, TEN + 2 * HOUR)


def test_what_was_raised_without_slack_waits_only_while_it_is_of_interest(connection):
    old, new = later(0), later(5)
    store_alerts(connection, [old, new])
    mark_not_configured(connection, schema.alerts)
    assert [row["delivery"] for row in rows(connection)] == ["not_configured", "not_configured"]
    assert ids(waiting(connection, schema.alerts, TEN)) == [old.id, new.id]
    assert ids(waiting(connection, schema.alerts, TEN + HOUR)) == [new.id]


def test_what_was_delivered_stays_delivered_when_slack_is_taken_away(connection):
    store_alerts(connection, [ALERT])
    mark_delivered(connection, schema.alerts, [ALERT.id], "message", TEN)
    mark_not_configured(connection, schema.alerts)
    assert rows(connection)[0]["delivery"] == "delivered"


def test_an_end_tells_no_move_that_would_break_the_rule(connection):
    end = replace(TURN, incident=replace(INCIDENT, state="resolved", changed_at=TEN + HOUR), threshold_pct=None)
    store_alerts(connection, [Alert.of(end, "BTC", raised_at=TEN, run_id="run")])
    [row] = rows(connection)
    assert (row["id"], row["incident_id"], row["state"], row["value"], row["threshold"]) == (
        "move_24h-bitcoin-usd-20261122T100000Z-resolved-20261122T110000Z",
        "move_24h-bitcoin-usd-20261122T100000Z",
        "resolved",
        None,
        None,
    )


def turn(number, state, incident="i-1", **changes):
    return replace(ALERT, id=f"a-{number}", state=state, incident_id=incident, **changes)


def deliveries(connection, table=schema.alerts):
    query = select(table.c.delivery, table.c.delivery_error).order_by(table.c.id)
    return [tuple(row) for row in connection.execute(query)]


SILENCED = ("silenced", "silenced until 2026-11-22 15:00 UTC: the exchange is closed")


@pytest.mark.parametrize(
    ("coin", "rule", "expected"),
    [
        ("bitcoin", "move_24h", [SILENCED, ("pending", None)]),
        ("*", "move_24h", [SILENCED, ("pending", None)]),
        ("bitcoin", "*", [SILENCED, SILENCED]),
        ("*", "*", [SILENCED, SILENCED]),
        ("ethereum", "*", [("pending", None), ("pending", None)]),
    ],
)
def test_a_silence_keeps_back_what_it_is_about(connection, coin, rule, expected):
    store_alerts(connection, [turn(1, "firing"), turn(2, "firing", "i-2", rule="move_1h")])
    silence(connection, coin=coin, rule=rule, until=TEN + 5 * HOUR, reason="the exchange is closed", at=TEN)
    hold_back(connection, TEN + 4 * HOUR)
    assert deliveries(connection) == expected


def test_a_silence_ends_by_its_time_or_by_hand(connection):
    silence(connection, coin="bitcoin", rule="*", until=TEN + HOUR, reason="x", at=TEN)
    silence(connection, coin="*", rule="*", until=TEN + 2 * HOUR, reason="y", at=TEN)
    assert [row.reason for row in active_silences(connection, TEN)] == ["y", "x"]
    assert [row.reason for row in active_silences(connection, TEN + HOUR)] == ["y"]
    assert unsilence(connection, coin="*", rule="*") == 1
    assert unsilence(connection, coin="*", rule="*") == 0
    assert active_silences(connection, TEN + HOUR) == []


def test_a_silence_that_is_over_before_it_begins_is_refused(connection):
    with pytest.raises(ValueError, match="which is past"):
        silence(connection, coin="*", rule="*", until=TEN, reason="x", at=TEN)


def test_the_end_of_what_nobody_was_told_of_is_not_told_either(connection):
    store_alerts(connection, [turn(1, "firing")])
    silence(connection, coin="*", rule="*", until=TEN + 5 * HOUR, reason="the exchange is closed", at=TEN)
    hold_back(connection, TEN)
    store_alerts(connection, [turn(2, "resolved")])
    hold_back(connection, TEN + 6 * HOUR)
    assert deliveries(connection) == [SILENCED, ("held", "nobody was told that it began")]


def test_the_end_of_what_waits_to_be_told_waits_too(connection):
    store_alerts(connection, [turn(1, "firing"), turn(2, "resolved")])
    hold_back(connection, TEN)
    assert deliveries(connection) == [("pending", None)] * 2


def test_what_is_acknowledged_does_not_tell_that_it_got_worse_but_that_it_is_over(connection):
    store_alerts(connection, [turn(1, "firing"), turn(2, "worse"), turn(3, "resolved"), turn(4, "worse", "i-2")])
    acknowledge(connection, ["i-1"], "Ada looks at it", TEN)
    acknowledge(connection, ["i-1"], "again", TEN)
    hold_back(connection, TEN)
    assert deliveries(connection) == [("pending", None), ("held", "acknowledged"), ("pending", None), ("pending", None)]


def test_a_silence_of_everything_is_about_the_market_only_and_a_trouble_is_silenced_by_its_key(connection):
    for key in ("uploads", "late"):
        raise_trouble(connection, key, title=key, what="w", action="a", at=TEN)
    silence(connection, coin="*", rule="*", until=TEN + 5 * HOUR, reason="x", at=TEN)
    silence(connection, coin="*", rule="late", until=TEN + 5 * HOUR, reason="the exchange is closed", at=TEN)
    hold_back(connection, TEN)
    end_trouble(connection, "late", TEN + HOUR)
    hold_back(connection, TEN + 6 * HOUR)
    assert deliveries(connection, schema.trouble_messages) == [
        SILENCED,
        ("held", "nobody was told that it began"),
        ("pending", None),
    ]


def test_what_slack_never_takes_does_not_wait_any_more_and_says_why(connection):
    store_alerts(connection, [ALERT])
    mark_refused(connection, schema.alerts, [ALERT.id], "invalid_blocks")
    assert waiting(connection, schema.alerts, TEN) == []
    assert deliveries(connection) == [("refused", "invalid_blocks")]
