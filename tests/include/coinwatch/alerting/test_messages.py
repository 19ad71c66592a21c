from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from coinwatch.alerting.messages import HEADER_MAX, SECTION_MAX, clip, describe, format_pct, format_price, slack_message
from coinwatch.analysis.anomalies import Anomaly

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)

DAY = Anomaly(
    coin="bitcoin",
    rule="move_24h",
    ts=TEN,
    price=63940.4,
    reference_price=73520.0,
    reference_ts=TEN - timedelta(hours=24),
    hours=24.0,
    log_return=-0.1396,
    change_pct=-13.03,
    threshold_pct=-8.06,
    usual_pct=2.4,
    severity="critical",
)
HOUR = replace(DAY, rule="move_1h", hours=1.0, change_pct=3.2, log_return=0.0315, usual_pct=0.49)


@pytest.mark.parametrize(
    ("price", "currency", "text"),
    [
        (63940.4, "usd", "$63,940"),
        (1234567.8, "jpy", "¥1,234,568"),
        (12.5, "eur", "€12.50"),
        (1.0, "gbp", "£1.00"),
        (0.99996, "usd", "$1"),
        (0.5, "usd", "$0.5"),
        (0.12345678, "usd", "$0.1235"),
        (0.00000644, "usd", "$0.00000644"),
        (1.2345e-20, "usd", "$0.00000000000000000001234"),
        (0.0123, "btc", "0.0123 BTC"),
        (95000.0, "chf", "95,000 CHF"),
    ],
)
def test_a_price_is_readable_whether_large_or_small(price, currency, text):
    assert format_price(price, currency) == text


@pytest.mark.parametrize(("value", "text"), [(-13.034, "−13.03 %"), (5.0, "+5.00 %"), (0.0, "+0.00 %")])
def test_a_change_has_its_sign_and_a_real_minus(value, text):
    assert format_pct(value) == text


def test_a_move_of_a_day_is_told_against_the_usual_day():
    assert describe(DAY, "BTC", "usd") == ("BTC −13.03 % in 24 h to $63,940: 5.8× a usual day (usual is ±2.4 %)")


def test_a_move_of_an_hour_is_told_against_the_usual_hour():
    assert describe(HOUR, "BTC", "usd") == ("BTC +3.20 % in 1 h to $63,940: 6.4× a usual hour (usual is ±0.49 %)")


@pytest.mark.parametrize(("hours", "told"), [(0.55, "in 1 h"), (1.5, "in 1 h"), (2.34, "in 2.3 h")])
def test_a_pull_that_came_late_tells_the_true_hours(hours, told):
    assert f" {told} to " in describe(replace(HOUR, hours=hours), "BTC", "usd")


def test_a_late_pull_is_told_against_what_is_usual_in_so_many_hours():
    assert describe(replace(HOUR, hours=2.34), "BTC", "usd").endswith("a usual 2.3 h (usual is ±0.49 %)")


def test_a_coin_that_hardly_moves_has_a_usual_move_all_the_same():
    assert describe(replace(HOUR, usual_pct=0.0312), "USDT", "usd").endswith("(usual is ±0.031 %)")


def test_a_wild_coin_has_no_exponent_in_its_usual_move():
    assert describe(replace(HOUR, usual_pct=120.0), "X", "usd").endswith("(usual is ±120 %)")


def test_a_coin_that_never_moved_is_told_so():
    assert describe(replace(HOUR, usual_pct=0.0), "X", "usd") == "X +3.20 % in 1 h to $63,940: it had not moved before"


def message(**changes):
    arguments = {
        "alert_id": "move_24h-bitcoin-usd-20261122T100000Z",
        "rule": "move_24h",
        "severity": "critical",
        "message": "BTC −13.03 % in 24 h",
        "threshold_pct": -8.06,
        "ts": TEN,
        "run_url": "http://localhost:8080/dags/process_prices/runs/r",
        "simulated": False,
    }
    return slack_message(**(arguments | changes))


def test_a_message_tells_what_happened_the_rule_the_time_the_run_the_severity_and_the_id():
    told = message()
    assert told.text == "BTC −13.03 % in 24 h"
    assert told.blocks == [
        {"type": "header", "text": {"type": "plain_text", "text": "Price alert"}},
        {"type": "section", "text": {"type": "mrkdwn", "text": ":rotating_light: *BTC −13.03 % in 24 h*"}},
        {
            "type": "section",
            "text": {
                "type": "mrkdwn",
                "text": "Rule *move_24h*: from −8.06 % on · price of 2026-11-22 10:00 UTC · "
                "<http://localhost:8080/dags/process_prices/runs/r|run>",
            },
        },
        {
            "type": "context",
            "elements": [{"type": "mrkdwn", "text": "critical · alert `move_24h-bitcoin-usd-20261122T100000Z`"}],
        },
    ]


def test_a_warning_looks_otherwise_than_what_is_critical():
    assert message(severity="warning").blocks[1]["text"]["text"] == ":warning: *BTC −13.03 % in 24 h*"


def test_simulated_prices_are_told_in_text_header_and_words():
    told = message(simulated=True)
    assert told.text == "[SIMULATED] BTC −13.03 % in 24 h"
    assert told.blocks[0]["text"]["text"] == "[SIMULATED] Price alert"
    assert told.blocks[2]["text"]["text"].endswith(
        "\nSimulated prices (sandbox): nothing has happened in the real market."
    )


def test_no_foreign_text_can_call_a_channel():
    told = message(message="<!channel> A&B > C")
    assert told.text == "&lt;!channel&gt; A&amp;B &gt; C"
    assert told.blocks[1]["text"]["text"] == ":rotating_light: *&lt;!channel&gt; A&amp;B &gt; C*"


def test_no_text_is_longer_than_slack_takes():
    told = message(message="x" * 5000, run_url="http://localhost/" + "r" * 5000, simulated=True)
    lengths = {block["type"]: len(block["text"]["text"]) for block in told.blocks if "text" in block}
    assert lengths == {"header": 23, "section": SECTION_MAX}
    assert HEADER_MAX == 150


def test_a_text_that_was_shortened_says_so():
    assert clip("abcdef", 4) == "abc…"
    assert clip("abcd", 4) == "abcd"
