from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from coinwatch.alerts.decide import Incident, Transition
from coinwatch.sandbox.slack import problem
from coinwatch.slack.messages import (
    ALERTS_SHOWN,
    TEXT_MAX,
    AlertNote,
    TroubleNote,
    alert_message,
    clip,
    describe,
    format_pct,
    format_price,
    summary_message,
    trouble_message,
)

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
    reference_price=73520.0,
    reference_ts=TEN - timedelta(hours=24),
)
HOUR = replace(
    DAY, incident=replace(OPENED, rule="move_1h"), note="move_1h", hours=1.0, change_pct=3.2, typical_pct=0.49
)


def turn(rule, state="firing", note=None, **changes):
    """A turn of an incident of another rule."""
    incident = replace(OPENED, rule=rule, state=state)
    return replace(Transition(incident, note or rule, price=63940.4), **changes)


@pytest.fixture
def slack_takes():
    """Whether the sandbox's Slack, which guards the limits of the real one, has nothing to say against a message."""
    return lambda message: problem({"text": message.text, "blocks": message.blocks}) == ""


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
    assert describe(DAY, "BTC") == "BTC −13.03 % in 24 h to $63,940: 5.8× a usual day (usual is ±2.4 %)"


def test_a_move_of_an_hour_is_told_against_the_usual_hour():
    assert describe(HOUR, "BTC") == "BTC +3.20 % in 1 h to $63,940: 6.4× a usual hour (usual is ±0.49 %)"


@pytest.mark.parametrize(("hours", "told"), [(0.55, "in 1 h"), (1.5, "in 1 h"), (2.34, "in 2.3 h")])
def test_a_pull_that_came_late_tells_the_true_hours(hours, told):
    assert f" {told} to " in describe(replace(HOUR, hours=hours), "BTC")


def test_a_late_pull_is_told_against_what_is_usual_in_so_many_hours():
    assert describe(replace(HOUR, hours=2.34), "BTC").endswith("a usual 2.3 h (usual is ±0.49 %)")


def test_a_coin_that_hardly_moves_has_a_usual_move_all_the_same():
    assert describe(replace(HOUR, typical_pct=0.0312), "USDT").endswith("(usual is ±0.031 %)")


def test_a_wild_coin_has_no_exponent_in_its_usual_move():
    assert describe(replace(HOUR, typical_pct=120.0), "X").endswith("(usual is ±120 %)")


def test_a_coin_that_never_moved_is_told_so():
    assert describe(replace(HOUR, typical_pct=0.0), "X") == "X +3.20 % in 1 h to $63,940: it had not moved before"


@pytest.mark.parametrize(
    ("transition", "told"),
    [
        pytest.param(
            turn("limit_24h", change_pct=-6.0, threshold_pct=-5.0, hours=24.0),
            "BTC −6.00 % in 24 h to $63,940: beyond the fixed limit of −5.00 %",
            id="a fixed limit",
        ),
        pytest.param(
            turn("move_1h", "resolved", change_pct=-1.5, hours=7.2),
            "BTC has calmed down at $63,940, 7 h after the alert (−1.50 % against the price before the move)",
            id="the end of a move",
        ),
        pytest.param(
            turn("move_1h", "corrected", "spike_reverted"),
            "BTC is back at $63,940: the move of 2026-11-22 10:00 UTC was a spike",
            id="a spike",
        ),
        pytest.param(
            turn("stale", reason="3 pulls in a row had exactly this price, over 3 hours"),
            "BTC stands still at $63,940: 3 pulls in a row had exactly this price, over 3 hours",
            id="stands still",
        ),
        pytest.param(turn("stale", "resolved"), "BTC moves again, to $63,940", id="moves again"),
    ],
)
def test_what_is_no_move_is_told_in_words_too(transition, told):
    assert describe(transition, "BTC") == told


NOTE = AlertNote(
    id="move_24h-bitcoin-usd-20261122T100000Z",
    coin="bitcoin",
    rule="move_24h",
    state="firing",
    severity="critical",
    message="BTC −13.03 % in 24 h",
    ts=TEN,
    value=-13.03,
    threshold=-8.06,
    facts="Rule move_24h: from −8.06 % on (sigmas 3.5, min_pct 3)",
    chart="▁▃█ 24 h, $1 to $2",
)
RUN = "http://localhost:8080/dags/process_prices/runs/r"


def told(*notes, run_url=RUN, simulated=False):
    return alert_message(notes, run_url, simulated=simulated)


def texts(message):
    return [text["text"] for block in message.blocks for text in block.get("elements", [block.get("text")])]


def test_an_alert_tells_what_happened_the_last_day_the_rule_its_setting_the_time_the_run_and_its_id():
    message = told(NOTE)
    assert message.text == "BTC −13.03 % in 24 h"
    assert message.blocks == [
        {"type": "header", "text": {"type": "plain_text", "text": "Price alert"}},
        {
            "type": "section",
            "text": {
                "type": "mrkdwn",
                "text": ":rotating_light: *BTC −13.03 % in 24 h*\n▁▃█ 24 h, $1 to $2\n"
                "Rule move_24h: from −8.06 % on (sigmas 3.5, min_pct 3) · critical · 2026-11-22 10:00 UTC",
            },
        },
        {
            "type": "context",
            "elements": [{"type": "mrkdwn", "text": f"<{RUN}|run> · alert `move_24h-bitcoin-usd-20261122T100000Z`"}],
        },
    ]


@pytest.mark.parametrize(
    ("changes", "title", "line"),
    [
        ({"severity": "warning"}, "Price alert", ":warning: *BTC −13.03 % in 24 h*"),
        ({"state": "worse"}, "Price alert, worse", ":rotating_light: *Worse: BTC −13.03 % in 24 h*"),
        ({"state": "resolved"}, "Price alert, over", ":white_check_mark: *BTC −13.03 % in 24 h*"),
        ({"state": "corrected"}, "Price alert, corrected", ":information_source: *BTC −13.03 % in 24 h*"),
    ],
)
def test_each_turn_of_an_incident_has_a_look_of_its_own(changes, title, line):
    message = told(replace(NOTE, **changes))
    assert texts(message)[0] == title
    assert texts(message)[1].partition("\n")[0] == line


def test_several_coins_of_a_run_make_one_message_what_needs_somebody_first():
    over = replace(NOTE, id="a", coin="ripple", state="resolved", message="XRP is back")
    mild = replace(NOTE, id="b", coin="cardano", severity="warning", message="ADA moved", value=-9.0)
    wild = replace(NOTE, id="c", coin="ethereum", message="ETH moved", value=-40.0)
    message = told(over, mild, NOTE, wild)
    assert message.text == "ETH moved · BTC −13.03 % in 24 h · ADA moved · XRP is back"
    assert texts(message)[0] == "4 price alerts, 4 coins"
    assert texts(message)[-1] == f"<{RUN}|run> · alerts `c`, `{NOTE.id}`, `b`, `a`"


def test_two_alerts_of_one_coin_are_not_said_to_be_of_two():
    assert texts(told(NOTE, replace(NOTE, id="b", rule="move_1h")))[0] == "2 price alerts"


def test_a_move_of_the_whole_market_fits_into_one_message_that_slack_takes(slack_takes):
    notes = [replace(NOTE, id=f"a-{number}", message=f"{number} " + "&" * 400) for number in range(1000)]
    message = told(*notes, simulated=True)
    assert slack_takes(message)
    assert [block["type"] for block in message.blocks] == ["header", *["section"] * (ALERTS_SHOWN + 3), "context"]
    assert texts(message)[-3].endswith("more, all in the warehouse")


def test_simulated_prices_are_told_in_text_header_and_words():
    message = told(NOTE, simulated=True)
    assert message.text == "[SIMULATED] BTC −13.03 % in 24 h"
    assert texts(message)[0] == "[SIMULATED] Price alert"
    assert texts(message)[2] == "Simulated prices (sandbox): nothing has happened in the real market."


def test_no_foreign_text_can_call_a_channel():
    message = told(replace(NOTE, message="<!channel> A&B > C", chart=""))
    assert message.text == "&lt;!channel&gt; A&amp;B &gt; C"
    assert texts(message)[1].startswith(":rotating_light: *&lt;!channel&gt; A&amp;B &gt; C*\nRule")
    trouble = trouble_message([replace(TROUBLE, title="<!here>", what="<!here>", action="<!here>")], simulated=False)
    assert "<!here>" not in trouble.text + "".join(texts(trouble)[1:])


def test_no_text_is_longer_than_slack_takes(slack_takes):
    long = replace(NOTE, message="x" * 9000, facts="y" * 9000, chart="z" * 9000, id="i" * 9000)
    assert slack_takes(told(long, run_url="http://localhost/" + "r" * 9000, simulated=True))
    assert slack_takes(told(*[replace(long, id=f"{number}") for number in range(60)]))
    trouble = replace(TROUBLE, title="x" * 9000, what="x" * 9000, action="x" * 9000)
    assert slack_takes(trouble_message([trouble] * 60, simulated=True))
    assert slack_takes(summary_message("alerts", [long] * 60, 24, simulated=True))
    assert len(told(long).text) == TEXT_MAX


TROUBLE = TroubleNote(
    id="uploads@20261122T100000Z-begun",
    state="begun",
    title="S3 has not got everything",
    what="12 partitions wait.",
    action="Look at the log of upload_to_s3.",
    link="http://localhost:8080/dags/process_prices",
    since=TEN,
    raised_at=TEN,
)


def test_a_trouble_tells_what_happened_and_what_to_do_and_that_it_is_not_about_the_market():
    message = trouble_message([TROUBLE], simulated=False)
    assert message.text == "Coinwatch itself: S3 has not got everything (began)"
    assert texts(message) == [
        "Coinwatch itself: S3 has not got everything",
        (
            ":wrench: *S3 has not got everything*: began\n12 partitions wait.\n"
            "*What to do:* Look at the log of upload_to_s3.\n"
            "since 2026-11-22 10:00 UTC · <http://localhost:8080/dags/process_prices|look>"
        ),
        "Not about the market · trouble `uploads@20261122T100000Z-begun`",
    ]


@pytest.mark.parametrize(
    ("hours", "duration"), [(0.5, "30 min"), (5.25, "5 h 15 min"), (47.9, "47 h 54 min"), (75, "3 days")]
)
def test_the_end_of_a_trouble_tells_how_long_it_lasted(hours, duration):
    over = replace(TROUBLE, state="over", action="", link=None, raised_at=TEN + timedelta(hours=hours))
    message = trouble_message([over], simulated=True)
    assert texts(message)[0] == "[SIMULATED] Coinwatch itself: S3 has not got everything - over"
    assert texts(message)[1] == (
        ":white_check_mark: *S3 has not got everything*: is over\n12 partitions wait.\n"
        f"since 2026-11-22 10:00 UTC, {duration}"
    )


def test_troubles_of_the_same_moment_make_one_message():
    other = replace(TROUBLE, id="b", title="late")
    message = trouble_message([TROUBLE, other], simulated=False)
    assert texts(message)[0] == "Coinwatch itself: 2 troubles"
    assert message.text == "Coinwatch itself: S3 has not got everything (began) · late (began)"


def test_what_could_not_be_told_in_time_is_named_in_one_message(slack_takes):
    later = replace(NOTE, ts=TEN + timedelta(hours=1), state="resolved", message="BTC is back")
    message = summary_message("alerts", [NOTE, later], 24, simulated=False)
    assert message.text == "2 alerts from more than 24 hours ago, which could not be delivered then"
    assert texts(message) == [
        "Delivered late: 2 alerts",
        f"{message.text}. Each stands in the warehouse.",
        "• 2026-11-22 10:00 UTC BTC −13.03 % in 24 h\n• 2026-11-22 11:00 UTC resolved: BTC is back",
        f"the first is `{NOTE.id}`",
    ]
    many = summary_message("alerts", [NOTE] * 5000, 24, simulated=False)
    assert slack_takes(many)
    shown = sum(text.count("•") for text in texts(many))
    assert texts(many)[-2].endswith(f"… and {5000 - shown} more, all in the warehouse")


def test_a_text_that_was_shortened_says_so():
    assert clip("abcdef", 4) == "abc…"
    assert clip("abcd", 4) == "abcd"
