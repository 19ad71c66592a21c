from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from coinwatch.slack.webhooks import (
    fingerprint,
    is_dead,
    mark_dead,
    mark_paused,
    mark_well,
    revive,
    seconds_to_wait,
)
from coinwatch.warehouse import schema

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)


@pytest.fixture
def connection(warehouse):
    with warehouse.begin() as connection:
        yield connection


def test_a_webhook_is_dead_until_another_one_is_in_its_place_or_somebody_says_that_it_lives(connection):
    mark_dead(connection, "https://one", "slack_default", "Slack answered 410", TEN)
    assert (is_dead(connection, "https://one"), is_dead(connection, "https://two")) == (True, False)
    assert connection.execute(select(schema.webhooks)).all() == [
        (fingerprint("https://one"), "slack_default", "Slack answered 410", TEN, None)
    ]
    assert "one" not in fingerprint("https://one")
    assert revive(connection) == 1
    assert not is_dead(connection, "https://one")


def test_a_webhook_is_left_alone_for_as_long_as_slack_asked_for(connection):
    mark_paused(connection, "https://one", "slack_default", "Slack answered 429", TEN + timedelta(seconds=90))
    assert seconds_to_wait(connection, "https://one", TEN) == 90.0
    assert seconds_to_wait(connection, "https://one", TEN + timedelta(seconds=91)) == 0.0
    assert seconds_to_wait(connection, "https://two", TEN) == 0.0
    assert not is_dead(connection, "https://one")
    assert revive(connection) == 0


def test_one_that_has_worked_is_as_any_other(connection):
    mark_paused(connection, "https://one", "slack_default", "Slack answered 429", TEN + timedelta(seconds=90))
    mark_well(connection, "https://one")
    assert seconds_to_wait(connection, "https://one", TEN) == 0.0
