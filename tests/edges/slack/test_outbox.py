from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert

from coinwatch.alerts.silences import silence
from coinwatch.slack import outbox
from coinwatch.warehouse import schema

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)
PENDING = ("pending", None)


@pytest.fixture
def silence_until_three(warehouse):
    def silence_until_three(coin, rule):
        with warehouse.begin() as connection:
            silence(connection, coin=coin, rule=rule, until=TEN + 5 * HOUR, reason="upgrade", at=TEN)

    return silence_until_three


@pytest.fixture
def hold(warehouse, deliveries):
    """Hold what is not to be sent at a time, and read all deliveries."""

    def hold(at=TEN):
        with warehouse.begin() as connection:
            outbox.hold(connection, at)
        return deliveries("delivery", "delivery_error")

    return hold


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
def test_a_silence_holds_the_alerts_of_its_coin_and_rule_until_it_ends(
    store, silence_until_three, hold, coin, rule, expected
):
    store("a")
    store("b", rule="stale")
    silence_until_three(coin, rule)
    assert hold(TEN + 5 * HOUR) == [PENDING, PENDING]
    assert [delivery for delivery, _ in hold(TEN + 4 * HOUR)] == expected


def test_the_end_of_an_incident_that_was_never_notified_is_held(store, silence_until_three, hold):
    store("a", incident_id="i")
    silence_until_three("*", "*")
    hold()
    store("b", incident_id="i", state="resolved")
    store("c", incident_id="j")
    store("d", incident_id="j", state="resolved")
    assert [delivery for delivery, _ in hold(TEN + 6 * HOUR)] == ["silenced", "held", "pending", "pending"]


def test_of_an_acknowledged_incident_worse_is_held_and_the_end_is_due(store, warehouse, hold, incident_row):
    acknowledged = incident_row("i", acknowledged_at=TEN, acknowledged_by="Ada")
    with warehouse.begin() as connection:
        connection.execute(insert(schema.incidents), [acknowledged, incident_row("j", coin="ethereum")])
    store("a", incident_id="i")
    store("b", incident_id="i", state="worse")
    store("c", incident_id="i", state="resolved")
    store("d", incident_id="j", state="worse")
    assert hold() == [PENDING, ("held", "acknowledged"), PENDING, PENDING]
