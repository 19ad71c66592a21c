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


def test_a_silence_lasts_for_hours_or_until_a_time_the_same_one_again_replaces_it_and_it_can_be_ended(
    apply, silences, noon
):
    apply(reason="first")
    apply()
    apply(coin="", rule=" move_1h ", until="2026-11-23T00:00:00+00:00")
    market, bitcoin = ("*", "move_1h", noon + 12 * HOUR, "upgrade"), ("bitcoin", "*", noon + 6 * HOUR, "upgrade")
    assert silences(noon) == [market, bitcoin]
    assert silences(noon + 6 * HOUR) == [market]
    with pytest.raises(InvalidAction, match=r"coin \*, rule move_1h; coin bitcoin, rule \*$"):
        apply(action="unsilence", coin="*")
    apply(action="unsilence")
    assert silences(noon) == [market]


def test_open_incidents_of_the_coin_and_rule_are_acknowledged_or_an_issue_by_its_key(
    apply, warehouse, incident_row, report, noon
):
    rows = [
        incident_row("a"),
        incident_row("b", rule="stale"),
        incident_row("c", rule="move_24h", state="resolved"),
        incident_row("d", coin="ethereum", state="worse"),
    ]
    with warehouse.begin() as connection:
        connection.execute(insert(schema.incidents), rows)
    report("uploads")
    report("late")
    apply(action="acknowledge", reason="Ada")
    apply(action="acknowledge", coin="*", rule="uploads", reason="Bob")

    def acknowledged(table, name):
        columns = (table.c[name], table.c.acknowledged_at, table.c.acknowledged_by)
        with warehouse.begin() as connection:
            return connection.execute(select(*columns).order_by(table.c[name])).all()

    ada, nobody = (noon, "Ada"), (None, None)
    expected = [("a", *ada), ("b", *ada), ("c", *nobody), ("d", *nobody)]
    assert acknowledged(schema.incidents, "id") == expected
    assert acknowledged(schema.pipeline_issues, "key") == [("late", *nobody), ("uploads", noon, "Bob")]
    with pytest.raises(InvalidAction, match=r"ethereum move_1h, late, uploads$"):
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
