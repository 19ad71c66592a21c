from datetime import timedelta

import pytest
from sqlalchemy import Engine

from coinwatch.health import issues

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


class Operators:
    """Report an issue at a time, and see which notifications are due."""

    def __init__(self, warehouse: Engine) -> None:
        self.warehouse = warehouse

    def call(self, function, *arguments, **options):
        with self.warehouse.begin() as connection:
            return function(connection, *arguments, **options)

    def report(self, at, *, key="uploads", detail="2 partitions", **options):
        self.call(issues.report, key, title="Uploads", detail=detail, action="Look", at=at, **options)

    def resolve(self, at, detail="All there."):
        self.call(issues.resolve, "uploads", at, detail)

    def acknowledge(self, at):
        self.call(issues.acknowledge, ["uploads"], "ann", at)

    def row(self):
        return self.call(issues.find, "uploads")

    def notify(self, at):
        """Mark what is due as notified, and return its states and details."""
        due = self.call(issues.due, at)
        self.call(issues.mark_notified, due, at)
        return [(row.state, row.detail) for row in due]


@pytest.fixture
def operators(warehouse):
    return Operators(warehouse)


OPENED = [("open", "2 partitions")]
RESOLVED = [("resolved", "All there. It was: 2 partitions")]


def test_operators_are_notified_when_it_opens_and_when_it_is_resolved(operators, noon):
    operators.report(noon)
    assert operators.notify(noon) == OPENED
    operators.report(noon + HOUR, detail="3 partitions")
    assert operators.notify(noon + HOUR) == []
    row = operators.row()
    assert (row.detail, row.opened_at, row.seen_at, row.seen_count) == ("3 partitions", noon, noon + HOUR, 2)
    operators.report(noon + 2 * HOUR)
    operators.resolve(noon + 3 * HOUR)
    operators.resolve(noon + 4 * HOUR, "Again.")
    assert operators.notify(noon + 4 * HOUR) == RESOLVED
    assert operators.notify(noon + 2 * DAY) == []
    assert operators.row().resolved_at == noon + 3 * HOUR


def test_a_grace_period_counts_from_the_first_report(operators, noon):
    for hour in range(2):
        assert operators.notify(noon + hour * HOUR) == []
        operators.report(noon + hour * HOUR, grace=2 * HOUR)
    assert operators.notify(noon + 2 * HOUR) == OPENED


def test_it_is_due_until_it_is_delivered_or_resolved_before(operators, noon):
    operators.report(noon)
    operators.call(issues.mark_failed, ["uploads"], "HTTP 503")
    operators.report(noon + HOUR)
    assert operators.row().delivery_error == "HTTP 503"
    assert operators.notify(noon + HOUR) == OPENED
    assert operators.row().delivery_error is None
    operators.resolve(noon + HOUR)
    assert operators.notify(noon + HOUR) == RESOLVED
    operators.report(noon + HOUR)
    operators.resolve(noon + HOUR)
    assert operators.notify(noon + HOUR) == [], "operators do not know that it was open"


def test_a_reminder_comes_once_a_day_until_it_is_acknowledged(operators, noon):
    operators.report(noon)
    assert operators.notify(noon) == OPENED
    assert operators.notify(noon + DAY - HOUR) == []
    assert operators.notify(noon + DAY) == OPENED
    assert operators.notify(noon + DAY + HOUR) == []
    operators.acknowledge(noon + DAY)
    operators.report(noon + 2 * DAY)
    assert operators.notify(noon + 3 * DAY) == []
    operators.resolve(noon + 3 * DAY)
    assert operators.notify(noon + 3 * DAY) == RESOLVED


def test_one_that_opens_again_notifies_again_and_is_not_acknowledged(operators, noon):
    operators.report(noon)
    operators.acknowledge(noon)
    operators.notify(noon)
    operators.resolve(noon)
    operators.report(noon)
    assert operators.notify(noon) == [], "between two notifications it is the same"
    operators.resolve(noon + HOUR)
    operators.notify(noon + HOUR)
    operators.report(noon + 2 * HOUR)
    assert operators.notify(noon + 2 * HOUR) == OPENED
    row = operators.row()
    assert (row.opened_at, row.seen_count, row.acknowledged_by, row.resolved_at) == (noon + 2 * HOUR, 1, None, None)


def test_a_coin_that_is_added_notifies_again_and_one_that_is_removed_does_not(operators, noon):
    operators.report(noon, coins=["bitcoin", "solana"])
    assert operators.notify(noon) == OPENED
    operators.acknowledge(noon)
    operators.report(noon, coins=["bitcoin"])
    assert operators.notify(noon) == []
    operators.report(noon, coins=["bitcoin", "ethereum"])
    assert operators.notify(noon) == OPENED
    assert operators.row().acknowledged_at is None
    operators.report(noon, coins=["bitcoin", "ethereum", "solana"])
    operators.resolve(noon)
    assert operators.notify(noon) == RESOLVED


def test_a_silenced_key_is_not_due_until_the_silence_ends(operators, silence, noon):
    silence("*", "uploads", noon + HOUR)
    operators.report(noon)
    assert operators.notify(noon) == []
    assert operators.notify(noon + HOUR) == OPENED


def test_open_issues_are_found_by_prefix_oldest_first(operators, noon):
    for key, at in (("task:b", noon + HOUR), ("task:a_1", noon), ("task%", noon)):
        operators.report(at, key=key)
    assert [row.key for row in operators.call(issues.open_issues, "task:")] == ["task:a_1", "task:b"]
    operators.call(issues.resolve, "task:b", noon)
    assert [row.key for row in operators.call(issues.open_issues)] == ["task%", "task:a_1"]
