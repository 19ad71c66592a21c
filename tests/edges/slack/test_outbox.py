from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert, select

from coinwatch.alerts.decide import Incident, Transition
from coinwatch.alerts.silences import silence
from coinwatch.slack import outbox
from coinwatch.slack.outbox import Alert
from coinwatch.warehouse import schema

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)
PENDING = ("pending", None)


@pytest.fixture
def connection(warehouse):
    with warehouse.begin() as connection:
        yield connection


@pytest.fixture
def store(connection, alert):
    """Store alerts: (id, changes), … ."""

    def store(*alerts):
        outbox.store_alerts(connection, [replace(alert, id=name, **changes) for name, changes in alerts])

    return store


def deliveries(connection):
    a = schema.alerts.c
    return [tuple(row) for row in connection.execute(select(a.delivery, a.delivery_error).order_by(a.id))]


def test_an_alert_has_all_that_its_transition_says(connection):
    incident = Incident("bitcoin", "usd", "move_24h", "firing", TEN, TEN, TEN)
    move = Transition(incident, "move_24h", "critical", 63940.4, -13.03, -8.06, 2.4, 24.0)
    end = replace(move, incident=replace(incident, state="resolved", changed_at=TEN + HOUR), threshold_pct=None)
    alerts = [Alert.of(each, "BTC", raised_at=TEN + HOUR, run_id="run") for each in (move, end)]
    outbox.store_alerts(connection, alerts)
    first, last = connection.execute(select(schema.alerts).order_by("id")).mappings()
    assert {**first, "message": "sentence"} == {
        "id": "move_24h-bitcoin-usd-20261122T100000Z",
        "coin": "bitcoin",
        "currency": "usd",
        "rule": "move_24h",
        "severity": "critical",
        "state": "firing",
        "ts": TEN,
        "value": -13.03,
        "threshold": -8.06,
        "message": "sentence",
        "raised_at": TEN + HOUR,
        "delivered_at": None,
        "delivery": "pending",
        "delivery_error": None,
        "run_id": "run",
        "incident_id": "move_24h-bitcoin-usd-20261122T100000Z",
        "message_id": None,
    }
    assert (last["id"], last["value"]) == ("move_24h-bitcoin-usd-20261122T100000Z-resolved-20261122T110000Z", None)


def test_an_alert_that_is_found_again_stays_delivered(connection, store):
    store(("a", {}))
    outbox.mark_delivered(connection, ["a"], "a", TEN)
    before = connection.execute(select(schema.alerts)).all()
    store(("a", {"message": "another", "run_id": "another"}))
    store()
    outbox.mark_not_configured(connection)
    assert connection.execute(select(schema.alerts)).all() == before
    assert outbox.due(connection, TEN) == []


def test_alerts_are_due_in_the_order_in_which_they_were_raised(connection, store):
    store(("a", {"raised_at": TEN + 2 * HOUR}), ("b", {"raised_at": TEN}), ("c", {"raised_at": TEN + HOUR}))
    assert [row.id for row in outbox.due(connection, TEN)] == ["b", "c", "a"]


def test_an_alert_that_slack_did_not_accept_stays_due_with_the_reason_at_any_age(connection, store):
    store(("a", {}))
    outbox.mark_failed(connection, ["a"], "HTTP 500")
    assert [row.id for row in outbox.due(connection, TEN + 1000 * HOUR)] == ["a"]
    assert deliveries(connection) == [("pending", "HTTP 500")]
    outbox.mark_delivered(connection, ["a"], "a", TEN)
    assert deliveries(connection) == [("delivered", None)]


def test_an_alert_raised_without_slack_is_due_while_its_price_is_recent(connection, store):
    store(("a", {}), ("b", {"ts": TEN + 5 * HOUR}))
    outbox.mark_not_configured(connection)
    assert [row.id for row in outbox.due(connection, TEN)] == ["a", "b"]
    assert [row.id for row in outbox.due(connection, TEN + HOUR)] == ["b"]


def test_a_refused_alert_is_not_due(connection, store):
    store(("a", {}))
    outbox.mark_refused(connection, ["a"], "invalid_blocks")
    assert outbox.due(connection, TEN) == []
    assert deliveries(connection) == [("refused", "invalid_blocks")]


@pytest.mark.parametrize(
    ("coin", "rule", "expected"),
    [
        ("bitcoin", "move_1h", ["silenced", "pending"]),
        ("*", "move_1h", ["silenced", "pending"]),
        ("bitcoin", "*", ["silenced", "silenced"]),
        ("*", "*", ["silenced", "silenced"]),
        ("ethereum", "*", ["pending", "pending"]),
    ],
)
def test_a_silence_holds_the_alerts_of_its_coin_and_rule_until_it_ends(connection, store, coin, rule, expected):
    store(("a", {}), ("b", {"rule": "stale", "incident_id": "i-2"}))
    silence(connection, coin=coin, rule=rule, until=TEN + 5 * HOUR, reason="upgrade", at=TEN)
    outbox.hold(connection, TEN + 5 * HOUR)
    assert deliveries(connection) == [PENDING, PENDING]
    outbox.hold(connection, TEN + 4 * HOUR)
    assert [delivery for delivery, _ in deliveries(connection)] == expected


def test_the_end_of_an_incident_that_was_never_notified_is_held(connection, store):
    store(("a", {}))
    silence(connection, coin="*", rule="*", until=TEN + 5 * HOUR, reason="upgrade", at=TEN)
    outbox.hold(connection, TEN)
    store(("b", {"state": "resolved"}))
    outbox.hold(connection, TEN + 6 * HOUR)
    assert [delivery for delivery, _ in deliveries(connection)] == ["silenced", "held"]


def test_the_end_of_an_incident_whose_alert_is_due_is_due(connection, store):
    store(("a", {}), ("b", {"state": "resolved"}))
    outbox.hold(connection, TEN)
    assert deliveries(connection) == [PENDING, PENDING]


def test_of_an_acknowledged_incident_worse_is_held_and_the_end_is_due(connection, store, incident_row):
    incident = incident_row("i-1", acknowledged_at=TEN, acknowledged_by="Ada")
    connection.execute(insert(schema.incidents), [incident, incident_row("i-2", coin="ethereum")])
    store(
        ("a", {}),
        ("b", {"state": "worse"}),
        ("c", {"state": "resolved"}),
        ("d", {"state": "worse", "incident_id": "i-2"}),
    )
    outbox.hold(connection, TEN)
    assert deliveries(connection) == [PENDING, ("held", "acknowledged"), PENDING, PENDING]
