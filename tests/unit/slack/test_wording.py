from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from coinwatch.alerts.decide import Incident, Transition
from coinwatch.slack.wording import describe, format_duration, format_pct, format_price, format_utc

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
OPENED = Incident("bitcoin", "usd", "move_24h", "firing", TEN, TEN, TEN)
DAY = Transition(
    incident=OPENED,
    note="move_24h",
    severity="critical",
    price=63940.4,
    change_pct=-13.03,
    threshold_pct=-8.06,
    typical_pct=2.4,
    hours=24.0,
)
HOUR = replace(
    DAY, incident=replace(OPENED, rule="move_1h"), note="move_1h", hours=1.0, change_pct=3.2, typical_pct=0.49
)


def transition(rule, state="firing", note=None, **changes):
    incident = replace(OPENED, rule=rule, state=state)
    return replace(Transition(incident, note or rule, price=63940.4), **changes)


@pytest.mark.parametrize(
    ("price", "currency", "text"),
    [
        (63940.4, "usd", "$63,940"),
        (1234567.8, "jpy", "¥1,234,568"),
        (12.5, "eur", "€12.50"),
        (1.0, "gbp", "£1.00"),
        (0.99996, "usd", "$1"),
        (0.12345678, "usd", "$0.1235"),
        (1.2345e-20, "usd", "$0.00000000000000000001234"),
        (0.0123, "btc", "0.0123 BTC"),
        (95000.0, "chf", "95,000 CHF"),
    ],
)
def test_a_price_is_readable_at_any_size(price, currency, text):
    assert format_price(price, currency) == text


def test_a_change_has_a_sign_and_a_real_minus_and_a_time_is_in_utc():
    assert [format_pct(value) for value in (-13.034, 5.0, 0.0)] == ["−13.03 %", "+5.00 %", "+0.00 %"]
    assert format_utc(TEN + timedelta(seconds=59)) == "2026-11-22 10:00 UTC"
    durations = [format_duration(TEN, TEN + timedelta(hours=hours)) for hours in (0.5, 5.25, 47.9, 75)]
    assert durations == ["30 min", "5 h 15 min", "47 h 54 min", "3 days"]


SENTENCES = {
    "BTC −13.03 % in 24 h to $63,940: 5.8× the typical 24 h move of ±2.4 %": DAY,
    "BTC +3.20 % in 1 h to $63,940: 6.4× the typical 1 h move of ±0.49 %": HOUR,
    "BTC +3.20 % in 2.3 h to $63,940: 6.4× the typical 2.3 h move of ±0.49 %": replace(HOUR, hours=2.34),
    "BTC +3.20 % in 1 h to $63,940: 101.0× the typical 1 h move of ±0.031 %": replace(HOUR, typical_pct=0.0312),
    "BTC +3.20 % in 1 h to $63,940: 0.0× the typical 1 h move of ±120 %": replace(HOUR, hours=1.5, typical_pct=120.0),
    "BTC +3.20 % in 1 h to $63,940: it had not moved before": replace(HOUR, typical_pct=0.0),
    "BTC −6.00 % in 24 h to $63,940: beyond the fixed limit of −5.00 %": transition(
        "limit_24h", change_pct=-6.0, threshold_pct=-5.0, hours=24.0
    ),
    "BTC: resolved at $63,940, 7 h after the alert (−1.50 % from the price before the move)": transition(
        "move_1h", "resolved", change_pct=-1.5, hours=7.2
    ),
    "BTC: back at $63,940, the move of 2026-11-22 10:00 UTC was a spike": transition(
        "move_1h", "corrected", "spike_reverted"
    ),
    "BTC: stale price, $63,940: why": transition("stale", reason="why"),
    "BTC: price moves again, $63,940": transition("stale", "resolved"),
    "BTC: why; nothing is computed from it": transition("bad_value", reason="why"),
    "BTC: price accepted again at $63,940, why; rejected values stay in quarantine": transition(
        "bad_value", "resolved", reason="why"
    ),
    "BTC: resolved, why; rejected values stay in quarantine": transition(
        "bad_value", "resolved", price=None, reason="why"
    ),
    "BTC: new level of $63,940 confirmed, why; the quarantined values are stored": transition(
        "bad_value", "resolved", "level_confirmed", reason="why"
    ),
}


@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_transition_is_one_sentence(sentence):
    assert describe(SENTENCES[sentence], "BTC") == sentence
