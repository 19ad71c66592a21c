from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event, insert, update

from coinwatch.alerts.decide import Incident, Transition
from coinwatch.alerts.incidents import detect_anomalies, read_memory, see_quarantine, store_transitions
from coinwatch.rules import load_rules
from coinwatch.settings import PROJECT_DIR
from coinwatch.statistics.compute import compute_rolling_statistics
from coinwatch.warehouse import schema
from coinwatch.warehouse.engine import open_warehouse
from coinwatch.warehouse.load import load_raw_prices

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
RULES = load_rules(PROJECT_DIR / "include" / "coinwatch.yaml")


def at(hours):
    return TEN + timedelta(hours=hours)


def incident(coin="bitcoin", rule="move_24h", state="firing", opened=0, changed=0):
    return Incident(coin, "usd", rule, state, at(opened), at(changed), at(opened), -0.1, 70_000.0)


@pytest.fixture
def connection(tmp_path):
    """A transaction of an empty warehouse on SQLite."""
    engine = open_warehouse(f"sqlite:///{tmp_path / 'warehouse.db'}")
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def store(connection, *incidents):
    transitions = [Transition(each, each.rule, price=1.0, reason="why") for each in incidents]
    return [alert["id"] for alert in store_transitions(connection, transitions, RULES, at=TEN, run_id="run")]


def test_an_alert_has_all_that_its_transition_says_and_stays_as_it_is_when_it_is_found_again(connection):
    move = Transition(incident(), "move_24h", "critical", 63940.4, -13.03, -8.06, 2.4, 24.0)
    end = replace(move, incident=incident(state="resolved", changed=1), threshold_pct=None)
    for run_id in ("run", "another"):
        store_transitions(connection, [move, end], RULES, at=at(1), run_id=run_id)
    first, last = connection.execute(schema.alerts.select().order_by("id")).mappings()
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
        "raised_at": at(1),
        "delivered_at": None,
        "delivery": "pending",
        "delivery_error": None,
        "run_id": "run",
        "incident_id": "move_24h-bitcoin-usd-20261122T100000Z",
        "message_id": None,
    }
    assert (last["id"], last["value"]) == ("move_24h-bitcoin-usd-20261122T100000Z-resolved-20261122T110000Z", None)


def test_the_newest_incident_of_a_coin_and_rule_is_remembered(connection):
    ended, other = replace(incident(state="resolved", changed=3), notified_move=0.1 + 0.2), incident("ethereum")
    assert len(store(connection, incident(), ended, other)) == 3
    assert read_memory(connection, "usd") == {"bitcoin": {"move_24h": ended}, "ethereum": {"move_24h": other}}
    assert read_memory(connection, "eur") == {}


def test_an_acknowledgement_is_kept_until_a_new_incident_begins(connection):
    i = schema.incidents
    store(connection, incident(), incident("ethereum"))
    connection.execute(update(i).values(acknowledged_at=TEN, acknowledged_by="Ada: looking into it"))
    store(connection, incident(state="worse", changed=1), incident("ethereum", opened=2, changed=2))
    rows = connection.execute(i.select().with_only_columns(i.c.coin, i.c.acknowledged_at, i.c.acknowledged_by))
    assert sorted(rows.all()) == [("bitcoin", TEN, "Ada: looking into it"), ("ethereum", None, None)]


def quarantine(connection, coin, hours, source="live", **values):
    row = {"value": "9e9", "reason": "far away", "snapshot": "s", "state": "held", "held_at": TEN}
    keys = {"coin": coin, "currency": "usd", "ts": at(hours), "source": source}
    connection.execute(insert(schema.quarantine).values({**row, **keys, **values}))


def test_quarantined_values_of_the_open_incident_or_since_the_last_one_are_decided_on_for_all_coins_at_once(connection):
    quarantine(connection, "new", 0)
    quarantine(connection, "history", 0, source="history")
    quarantine(connection, "euro", 0, currency="eur")
    for coin in ("open", "ended", "again"):
        quarantine(connection, coin, -9, state="rejected")
    quarantine(connection, "open", 0)
    quarantine(connection, "again", 4)
    ended = (incident(coin, "bad_value", "resolved", -9, -8) for coin in ("ended", "again"))
    store(connection, incident("open", "bad_value"), *ended)
    price = {"coin": "open", "currency": "usd", "price": 100, "snapshot": "s"}
    for hours, source in ((1, "live"), (-1, "live"), (2, "history")):
        connection.execute(insert(schema.prices), [{**price, "ts": at(hours), "source": source}])
    statements = []
    event.listen(connection, "before_cursor_execute", lambda *args: statements.append(args[2]))
    found = see_quarantine(connection, "usd", at(5))
    assert len(statements) == 2
    assert [(each.incident.coin, each.incident.state, each.ts) for each in found] == [
        ("again", "firing", at(4)),
        ("new", "firing", TEN),
        ("open", "resolved", at(1)),
    ]


def test_only_prices_with_statistics_are_decided_on_and_each_once(world, caplog):
    caplog.set_level("INFO")
    ingest = world.ingest_steps(world.clock.now)
    for step in [*ingest[:2], *world.process_steps()[:3]]:
        step()
    assert "bitcoin: learning, 0 of 48" in caplog.text
    for step in ingest[2:]:
        step()
    caplog.clear()
    load_raw_prices(world.app())
    assert detect_anomalies(world.app(), "run") == []
    compute_rolling_statistics(world.app())
    (message,) = detect_anomalies(world.app(), "run")
    assert "BTC" in message
    assert detect_anomalies(world.app(), "run") == []
    assert [tuple(row) for row in world.rows("alerts", "rule", "state", "ts", "run_id")] == [
        ("move_1h", "firing", world.clock.now, "run")
    ]
    assert "learning" not in caplog.text
