from datetime import timedelta

import pytest
from sqlalchemy import Engine

from coinwatch.alerts.silences import silence
from coinwatch.health import issues

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


class Operators:
    """Report an issue at a time, and see who is notified of what."""

    def __init__(self, warehouse: Engine) -> None:
        self.warehouse = warehouse

    def report(self, at, *, detail="2 partitions", **options):
        with self.warehouse.begin() as connection:
            issues.report(connection, "uploads", title="Uploads", detail=detail, action="Look", at=at, **options)

    def resolve(self, at, detail="All there."):
        with self.warehouse.begin() as connection:
            issues.resolve(connection, "uploads", at, detail)

    def notify(self, at):
        """Send what is due, and return its states and details."""
        with self.warehouse.begin() as connection:
            due = issues.due(connection, at)
            issues.mark_notified(connection, due, at)
        return [(row.state, row.detail) for row in due]

    def call(self, function, *arguments):
        with self.warehouse.begin() as connection:
            return function(connection, *arguments)


@pytest.fixture
def operators(tmp_path):
    from coinwatch.warehouse.engine import open_warehouse

    warehouse = open_warehouse(f"sqlite:///{tmp_path}/warehouse.db")
    yield Operators(warehouse)
    warehouse.dispose()


OPENED = [("open", "2 partitions")]
RESOLVED = [("resolved", "All there. It was: 2 partitions")]


def test_operators_are_notified_when_it_opens_and_when_it_is_resolved(operators, noon):
    operators.report(noon)
    assert operators.notify(noon) == OPENED
    operators.report(noon + HOUR, detail="3 partitions")
    assert operators.notify(noon + HOUR) == []
    row = operators.call(issues.find, "uploads")
    assert (row.detail, row.opened_at, row.seen_at, row.seen_count) == ("3 partitions", noon, noon + HOUR, 2)
    operators.report(noon + 2 * HOUR)
    operators.resolve(noon + 3 * HOUR)
    operators.resolve(noon + 4 * HOUR, "Again.")
    assert operators.notify(noon + 4 * HOUR) == RESOLVED
    assert operators.notify(noon + 2 * DAY) == []
    assert operators.call(issues.find, "uploads").resolved_at == noon + 3 * HOUR


def test_a_grace_period_counts_from_the_first_report(operators, noon):
    for hour in range(2):
        assert operators.notify(noon + hour * HOUR) == []
        operators.report(noon + hour * HOUR, grace=2 * HOUR)
    assert operators.notify(noon + 2 * HOUR) == OPENED


def test_one_that_is_resolved_before_operators_were_notified_notifies_nobody(operators, noon):
    operators.report(noon)
    operators.resolve(noon)
    assert operators.notify(noon) == []


def test_it_is_due_until_it_is_delivered(operators, noon):
    operators.report(noon)
    operators.call(issues.mark_failed, ["uploads"], "HTTP 503")
    operators.report(noon + HOUR)
    assert operators.call(issues.find, "uploads").delivery_error == "HTTP 503"
    assert operators.notify(noon + HOUR) == OPENED
    assert operators.call(issues.find, "uploads").delivery_error is None


def test_a_reminder_comes_once_a_day_until_it_is_acknowledged(operators, noon):
    operators.report(noon)
    assert operators.notify(noon) == OPENED
    assert operators.notify(noon + DAY - HOUR) == []
    assert operators.notify(noon + DAY) == OPENED
    assert operators.notify(noon + DAY + HOUR) == []
    operators.call(issues.acknowledge, ["uploads"], "ann", noon + DAY)
    operators.report(noon + 2 * DAY)
    assert operators.notify(noon + 3 * DAY) == []
    operators.resolve(noon + 3 * DAY)
    assert operators.notify(noon + 3 * DAY) == RESOLVED


def test_one_that_opens_again_notifies_again_and_is_not_acknowledged(operators, noon):
    operators.report(noon)
    operators.call(issues.acknowledge, ["uploads"], "ann", noon)
    operators.notify(noon)
    operators.resolve(noon + HOUR)
    operators.notify(noon + HOUR)
    operators.report(noon + 2 * HOUR)
    assert operators.notify(noon + 2 * HOUR) == OPENED
    row = operators.call(issues.find, "uploads")
    assert (row.opened_at, row.seen_count, row.acknowledged_by, row.resolved_at) == (noon + 2 * HOUR, 1, None, None)


def test_one_that_was_away_between_two_notifications_is_the_same(operators, noon):
    operators.report(noon)
    operators.notify(noon)
    operators.resolve(noon + HOUR)
    operators.report(noon + 2 * HOUR)
    assert operators.notify(noon + 2 * HOUR) == []


def test_a_coin_that_is_added_notifies_again_and_one_that_is_removed_does_not(operators, noon):
    operators.report(noon, coins=["bitcoin", "solana"])
    assert operators.notify(noon) == OPENED
    operators.call(issues.acknowledge, ["uploads"], "ann", noon)
    operators.report(noon, coins=["bitcoin"])
    assert operators.notify(noon) == []
    operators.report(noon, coins=["bitcoin", "ethereum"])
    assert operators.notify(noon) == OPENED
    assert operators.call(issues.find, "uploads").acknowledged_at is None
    operators.report(noon, coins=["bitcoin", "ethereum", "solana"])
    operators.resolve(noon)
    assert operators.notify(noon) == RESOLVED


def test_a_silenced_key_is_not_due_until_the_silence_ends(operators, noon):
    with operators.warehouse.begin() as connection:
        silence(connection, coin="*", rule="uploads", until=noon + HOUR, reason="maintenance", at=noon)
    operators.report(noon)
    assert operators.notify(noon) == []
    assert operators.notify(noon + HOUR) == OPENED


def test_open_issues_are_found_by_prefix_oldest_first(operators, noon):
    def report(connection, key, at):
        issues.report(connection, key, title=key, detail="", action="", at=at)

    operators.call(report, "task:b", noon + HOUR)
    operators.call(report, "task:a_1", noon)
    operators.call(report, "task%", noon)
    operators.call(issues.resolve, "task:b", noon)
    operators.call(report, "task:b", noon + HOUR)
    assert [row.key for row in operators.call(issues.open_issues, "task:")] == ["task:a_1", "task:b"]
    assert [row.key for row in operators.call(issues.open_issues)] == ["task%", "task:a_1", "task:b"]
