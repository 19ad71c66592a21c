from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from coinwatch.alerts.silences import acknowledge
from coinwatch.health.troubles import end_trouble, open_troubles, raise_trouble
from coinwatch.slack.outbox import mark_delivered
from coinwatch.warehouse import schema

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def connection(warehouse):
    with warehouse.begin() as connection:
        yield connection


def raised(connection, hours, what="12 wait.", **options):
    return raise_trouble(
        connection, "uploads", title="S3", what=what, action="Look.", at=TEN + hours * HOUR, link="http://a", **options
    )


def told(connection):
    c = schema.trouble_messages.c
    query = select(c.id, c.state, c.what, c.action, c.delivery).order_by(c.raised_at, c.id)
    return [tuple(row) for row in connection.execute(query)]


def take(connection):
    """Slack takes what waits."""
    ids = [row.id for row in connection.execute(select(schema.trouble_messages.c.id))]
    mark_delivered(connection, schema.trouble_messages, ids, "m", TEN)


BEGUN = ("uploads@20261122T100000Z-begun", "begun", "12 wait.", "Look.", "pending")


def test_a_trouble_is_told_once_however_often_it_is_seen(connection):
    assert [raised(connection, 0), raised(connection, 1, "13 wait."), raised(connection, 2, "14 wait.")] == [
        True,
        False,
        False,
    ]
    assert told(connection) == [BEGUN]
    assert [dict(row._mapping) for row in open_troubles(connection)] == [
        {
            "key": "uploads",
            "id": "uploads@20261122T100000Z",
            "state": "open",
            "title": "S3",
            "what": "14 wait.",
            "action": "Look.",
            "link": "http://a",
            "since": TEN,
            "last_seen": TEN + 2 * HOUR,
            "times": 3,
            "told_at": TEN,
            "over_at": None,
        }
    ]


def test_its_end_is_told_once(connection):
    raised(connection, 0)
    take(connection)
    assert end_trouble(connection, "uploads", TEN + HOUR, "All is there.")
    assert not end_trouble(connection, "uploads", TEN + 2 * HOUR)
    assert told(connection)[1] == (
        "uploads@20261122T100000Z-over",
        "over",
        "All is there. It was: 12 wait.",
        "",
        "pending",
    )
    assert open_troubles(connection) == []


def test_what_was_no_trouble_has_no_end(connection):
    assert not end_trouble(connection, "uploads", TEN)
    assert told(connection) == []


def test_what_ended_before_it_could_be_told_is_told_in_one_message(connection):
    raised(connection, 0)
    end_trouble(connection, "uploads", TEN + HOUR)
    assert [(row[1], row[4]) for row in told(connection)] == [("begun", "superseded"), ("over", "pending")]


def test_a_trouble_that_comes_again_is_a_new_one(connection):
    raised(connection, 0)
    end_trouble(connection, "uploads", TEN + HOUR)
    assert raised(connection, 2)
    assert [(row.since, row.times, row.over_at) for row in open_troubles(connection)] == [(TEN + 2 * HOUR, 1, None)]
    assert [row[0] for row in told(connection)] == [
        "uploads@20261122T100000Z-begun",
        "uploads@20261122T100000Z-over",
        "uploads@20261122T120000Z-begun",
    ]


def test_it_is_reminded_of_once_a_day(connection):
    for hours in range(50):
        raised(connection, hours)
        take(connection)
    assert [row[0] for row in told(connection)] == [
        "uploads@20261122T100000Z-begun",
        "uploads@20261122T100000Z-reminder-20261123T100000Z",
        "uploads@20261122T100000Z-reminder-20261124T100000Z",
    ]


def test_who_has_acknowledged_it_is_not_reminded(connection):
    raised(connection, 0)
    take(connection)
    acknowledge(connection, ["uploads@20261122T100000Z"], "Ada", TEN)
    assert not raised(connection, 30)


def test_who_has_not_been_told_yet_is_not_reminded_either(connection):
    raised(connection, 0)
    assert not raised(connection, 30)
    assert told(connection) == [BEGUN]


def test_what_has_to_last_is_told_only_then(connection):
    assert not raised(connection, 0, lasting=2 * HOUR)
    assert not raised(connection, 1, lasting=2 * HOUR)
    assert open_troubles(connection) == []
    assert raised(connection, 2, lasting=2 * HOUR)
    assert told(connection) == [BEGUN]


def test_what_did_not_last_is_not_told(connection):
    raised(connection, 0, lasting=2 * HOUR)
    assert not end_trouble(connection, "uploads", TEN + HOUR)
    assert not raised(connection, 3, lasting=2 * HOUR)
    assert told(connection) == []
