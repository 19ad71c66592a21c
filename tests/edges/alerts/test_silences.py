from datetime import timedelta
from types import SimpleNamespace

import pytest
from sqlalchemy import insert, select

from coinwatch.alerts.silences import active_silences, manage_alerts
from coinwatch.errors import InvalidAction
from coinwatch.health import issues
from coinwatch.warehouse import schema

HOUR = timedelta(hours=1)
PARAMS = {"action": "silence", "coin": "bitcoin", "rule": "*", "hours": 6, "until": None, "reason": "upgrade"}


@pytest.fixture
def warehouse_url(tmp_path):
    return f"sqlite:///{tmp_path / 'warehouse.db'}"


@pytest.fixture
def apply(warehouse, clock):
    """Run the step with params."""
    return lambda **params: manage_alerts(SimpleNamespace(warehouse=warehouse, clock=clock), PARAMS | params)


@pytest.fixture
def silences(warehouse):
    """Read the silences that hold at a time."""

    def read(at):
        with warehouse.begin() as connection:
            return [(row.coin, row.rule, row.until, row.reason) for row in active_silences(connection, at)]

    return read


@pytest.fixture
def report(warehouse, noon):
    def report(key):
        with warehouse.begin() as connection:
            issues.report(connection, key, title="t", detail="d", action="a", at=noon)

    return report


def test_a_silence_lasts_for_hours_or_until_a_time_and_the_same_one_again_replaces_it(apply, silences, noon):
    apply(reason="first")
    apply()
    apply(coin="", rule=" move_1h ", until="2026-11-23T00:00:00+00:00")
    everything = [("*", "move_1h", noon + 12 * HOUR, "upgrade"), ("bitcoin", "*", noon + 6 * HOUR, "upgrade")]
    assert silences(noon) == everything
    assert silences(noon + 6 * HOUR) == everything[:1]


def test_a_silence_is_ended_by_its_coin_and_rule(apply, silences, noon):
    apply()
    with pytest.raises(InvalidAction, match=r"coin bitcoin, rule \*$"):
        apply(action="unsilence", coin="*")
    apply(action="unsilence")
    assert silences(noon) == []


def test_open_incidents_of_the_coin_and_rule_are_acknowledged(apply, warehouse, incident_row, noon):
    rows = [
        incident_row("a"),
        incident_row("b", rule="stale"),
        incident_row("c", rule="move_24h", state="resolved"),
        incident_row("d", coin="ethereum", state="worse"),
    ]
    with warehouse.begin() as connection:
        connection.execute(insert(schema.incidents), rows)
    apply(action="acknowledge", reason="Ada")
    c = schema.incidents.c
    with warehouse.begin() as connection:
        query = select(c.id, c.acknowledged_at, c.acknowledged_by).order_by(c.id)
        assert connection.execute(query).all() == [
            ("a", noon, "Ada"),
            ("b", noon, "Ada"),
            ("c", None, None),
            ("d", None, None),
        ]


def test_an_issue_is_acknowledged_by_its_key(apply, warehouse, report, noon):
    report("uploads")
    report("late")
    apply(action="acknowledge", coin="*", rule="uploads", reason="Bob")
    i = schema.pipeline_issues.c
    with warehouse.begin() as connection:
        query = select(i.key, i.acknowledged_at, i.acknowledged_by).order_by(i.key)
        assert connection.execute(query).all() == [("late", None, None), ("uploads", noon, "Bob")]
    with pytest.raises(InvalidAction, match=r"late, uploads$"):
        apply(action="acknowledge", coin="ripple")


def test_revoked_webhooks_are_re_enabled(apply, warehouse, report):
    report("webhook:slack_default:0123")
    report("uploads")
    apply(action="reenable_webhooks", reason="")
    with warehouse.begin() as connection:
        assert [row.key for row in issues.open_issues(connection)] == ["uploads"]


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"reason": " "}, "reason"),
        ({"action": "acknowledge", "reason": ""}, "reason"),
        ({"action": "acknowledge"}, "none$"),
        ({"action": "unsilence"}, "none$"),
        ({"until": "2026-11-22T11:00:00Z"}, "until: 2026-11-22 11:00 UTC"),
        ({"until": "2026-11-23T11:00:00"}, "until: "),
        ({"until": "tomorrow"}, "until: "),
        ({"action": "delete"}, "silence, unsilence, acknowledge, reenable_webhooks$"),
    ],
)
def test_an_action_that_cannot_be_done_changes_nothing_and_names_what_can(apply, silences, noon, params, reason):
    with pytest.raises(InvalidAction, match=reason) as caught:
        apply(**params)
    assert not caught.value.retryable
    assert silences(noon) == []
