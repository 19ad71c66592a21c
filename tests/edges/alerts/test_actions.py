from datetime import timedelta

import pytest
from sqlalchemy import insert, select

from coinwatch.alerts.actions import Operator, InvalidAction
from coinwatch.health.troubles import raise_trouble
from coinwatch.slack.webhooks import mark_dead
from coinwatch.warehouse import schema

HOUR = timedelta(hours=1)
PARAMS = {"action": "silence", "coin": "bitcoin", "rule": "*", "hours": 6, "until": None, "reason": "upgrade"}


@pytest.fixture
def order(warehouse, clock):
    """Run the Dag with params."""
    from coinwatch.settings import load_settings

    return lambda **params: Operator(load_settings(), warehouse, clock).carry_out(PARAMS | params)


def silences(warehouse):
    c = schema.silences.c
    with warehouse.begin() as connection:
        return [tuple(row) for row in connection.execute(select(c.coin, c.rule, c.until, c.reason).order_by(c.id))]


def incident(noon, rule="move_1h", coin="bitcoin", state="firing"):
    return {
        "coin": coin,
        "currency": "usd",
        "rule": rule,
        "id": f"{rule}-{coin}",
        "state": state,
        "opened_at": noon,
        "changed_at": noon,
        "notified_at": noon,
        "notified_move": -0.1,
    }


def test_a_silence_lasts_for_hours_or_until_a_time(order, warehouse, noon):
    assert order() == "silent until 2026-11-22 18:00 UTC: coin bitcoin, rule * (upgrade)"
    order(coin="", rule="move_1h", until="2026-11-23T00:00:00+00:00")
    assert silences(warehouse) == [
        ("*", "move_1h", noon + 12 * HOUR, "upgrade"),
        ("bitcoin", "*", noon + 6 * HOUR, "upgrade"),
    ]


def test_a_silence_is_ended_as_it_was_set(order, warehouse):
    order()
    with pytest.raises(InvalidAction, match=r"no silence with coin \* and rule \*. There is coin bitcoin, rule \*"):
        order(action="unsilence", coin="*")
    assert order(action="unsilence") == "not silent any more: coin bitcoin, rule *"
    assert silences(warehouse) == []


def test_open_incidents_and_troubles_are_acknowledged_and_nothing_else(order, warehouse, noon):
    with warehouse.begin() as connection:
        rows = [incident(noon), incident(noon, "stale"), incident(noon, "move_24h", state="resolved")]
        connection.execute(insert(schema.incidents), [*rows, incident(noon, coin="ethereum")])
        raise_trouble(connection, "uploads", title="t", what="w", action="a", at=noon)
    assert order(action="acknowledge", reason="Ada") == "acknowledged (Ada): move_1h-bitcoin, stale-bitcoin"
    order(action="acknowledge", rule="uploads", reason="Bob")
    with warehouse.begin() as connection:
        assert connection.execute(select(schema.acknowledgements)).all() == [
            ("move_1h-bitcoin", "Ada", noon),
            ("stale-bitcoin", "Ada", noon),
            ("uploads@20261122T120000Z", "Bob", noon),
        ]
    with pytest.raises(InvalidAction, match="Open are bitcoin move_1h, ethereum move_1h, bitcoin stale, uploads"):
        order(action="acknowledge", coin="ripple")


def test_a_mended_webhook_is_used_again(order, warehouse, noon):
    with warehouse.begin() as connection:
        mark_dead(connection, "https://one", "slack_default", "410", noon)
    assert order(action="revive_webhooks") == "1 dead webhooks are tried again"


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"reason": " "}, "a silence needs a reason"),
        ({"action": "acknowledge", "reason": ""}, "an acknowledgement needs a reason"),
        ({"action": "acknowledge"}, r"nothing is open with coin bitcoin and rule \*. Open are no incidents"),
        ({"action": "unsilence"}, "There is none at all"),
        ({"until": "2026-11-22T11:00:00Z"}, "until: the silence would end at 2026-11-22 11:00 UTC, which is past"),
        ({"until": "2026-11-23T11:00:00"}, "until: time '2026-11-23T11:00:00' has no zone"),
        ({"until": "tomorrow"}, "until: Invalid isoformat string"),
        ({"action": "delete"}, "action 'delete' is not known; known are silence, unsilence, acknowledge, revive_webh"),
    ],
)
def test_what_cannot_be_done_says_what_can(order, params, said):
    with pytest.raises(InvalidAction, match=said) as caught:
        order(**params)
    assert not caught.value.retryable
