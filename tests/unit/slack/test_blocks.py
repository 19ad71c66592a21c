from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from coinwatch.sandbox.slack import problem
from coinwatch.slack.blocks import (
    SHOWN_MAX,
    TEXT_MAX,
    AlertView,
    IssueView,
    alert_message,
    clip,
    issue_message,
    summary_message,
    worst_open,
)

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
RUN = "http://localhost:8080/dags/process_prices/runs/r"
ALERT = AlertView(
    id="move_24h-bitcoin-usd-20261122T100000Z",
    coin="bitcoin",
    currency="usd",
    rule="move_24h",
    state="firing",
    severity="critical",
    message="BTC −13.03 % in 24 h",
    ts=TEN,
    value=-13.03,
    threshold=-8.06,
    settings="sigmas 3.5, min_pct 3",
    prices=[(TEN - timedelta(hours=1), 2.0), (TEN, 1.0)],
)
ISSUE = IssueView(
    id="uploads@20261122T100000Z-open",
    state="open",
    title="S3 is behind",
    detail="12 partitions wait.",
    action="Look at the log of upload_to_s3.",
    link="http://localhost:8080/dags/process_prices",
    opened_at=TEN,
    at=TEN,
)


def fits(message):
    """Return whether the sandbox, which has the limits of the real Slack, accepts a message."""
    return problem({"text": message.text, "blocks": message.blocks}) == ""


def show(*alerts, run_url=RUN, simulated=False):
    return alert_message(alerts, run_url, simulated=simulated)


def texts(message):
    return [text["text"] for block in message.blocks for text in block.get("elements", [block.get("text")])]


def test_an_alert_shows_the_move_the_day_before_the_rule_with_its_settings_the_time_the_run_and_its_id():
    message = show(ALERT)
    assert message.text == "BTC −13.03 % in 24 h"
    section = (
        ":rotating_light: *BTC −13.03 % in 24 h*\n······················█▁ 24 h, $1.00 to $2.00\n"
        "Rule move_24h: from −8.06 % on (sigmas 3.5, min_pct 3) · critical · 2026-11-22 10:00 UTC"
    )
    context = f"<{RUN}|run> · alert `move_24h-bitcoin-usd-20261122T100000Z`"
    assert message.blocks == [
        {"type": "header", "text": {"type": "plain_text", "text": "Price alert"}},
        {"type": "section", "text": {"type": "mrkdwn", "text": section}},
        {"type": "context", "elements": [{"type": "mrkdwn", "text": context}]},
    ]


@pytest.mark.parametrize(
    ("changes", "title", "first", "last"),
    [
        ({"severity": "warning"}, "Price alert", ":warning: *BTC −13.03 % in 24 h*", "from −8.06 % on (polls 3) · w"),
        (
            {"state": "worse", "threshold": 5.0, "settings": ""},
            "Price alert, worse",
            ":rotating_light: *Worse: BTC −13.03 % in 24 h*",
            ": from +5.00 % on · critical",
        ),
        (
            {"state": "resolved", "threshold": None},
            "Price alert, resolved",
            ":white_check_mark: *BTC −13.03 % in 24 h*",
            "move_24h (polls 3) · critical",
        ),
        (
            {"state": "corrected"},
            "Price alert, corrected",
            ":information_source: *BTC −13.03 % in 24 h*",
            "from −8.06 % on (polls 3) · critical",
        ),
    ],
)
def test_each_transition_looks_different_and_shows_threshold_and_settings_if_there_are_any(changes, title, first, last):
    found, section, _ = texts(show(replace(ALERT, **{"settings": "polls 3"} | changes)))
    assert (found, section.splitlines()[0]) == (title, first)
    assert last in section.splitlines()[-1]


def test_alerts_of_one_run_are_one_message_with_the_most_urgent_first():
    resolved = replace(ALERT, id="a", coin="ripple", state="resolved", message="XRP: resolved")
    mild = replace(ALERT, id="b", coin="cardano", severity="warning", message="ADA moved", value=-9.0)
    wild = replace(ALERT, id="c", coin="ethereum", message="ETH moved", value=-40.0)
    message = show(resolved, mild, ALERT, wild)
    assert message.text == "ETH moved · BTC −13.03 % in 24 h · ADA moved · XRP: resolved"
    assert texts(message)[0] == "4 price alerts, 4 coins"
    assert texts(message)[-1] == f"<{RUN}|run> · alerts `c`, `{ALERT.id}`, `b`, `a`"
    assert (worst_open([resolved, mild, wild]), worst_open([resolved])) == (wild, None)
    assert texts(show(ALERT, replace(ALERT, id="b", rule="move_1h")))[0] == "2 price alerts"


def test_simulated_prices_are_marked_in_text_header_and_words():
    message = show(ALERT, simulated=True)
    assert message.text == "[SIMULATED] BTC −13.03 % in 24 h"
    assert texts(message)[0] == "[SIMULATED] Price alert"
    assert texts(message)[2] == "Simulated prices (sandbox): nothing happened in the real market."


def test_no_foreign_text_can_mention_a_channel():
    message = show(replace(ALERT, message="<!channel> A&B > C", prices=[]))
    assert message.text == "&lt;!channel&gt; A&amp;B &gt; C"
    assert texts(message)[1].startswith(":rotating_light: *&lt;!channel&gt; A&amp;B &gt; C*\nRule")
    issue = issue_message([replace(ISSUE, title="<!here>", detail="<!here>", action="<!here>")], simulated=False)
    assert "<!here>" not in issue.text + "".join(texts(issue)[1:])


def test_no_message_is_longer_than_slack_accepts():
    long = replace(ALERT, message="x" * 9000, settings="y" * 9000, id="i" * 9000)
    assert fits(show(long, run_url="http://localhost/" + "r" * 9000, simulated=True))
    assert len(show(long).text) == TEXT_MAX
    whole_market = show(*[replace(ALERT, id=f"{number}", message="&" * 400) for number in range(1000)], simulated=True)
    assert fits(whole_market)
    assert [block["type"] for block in whole_market.blocks] == ["header", *["section"] * (SHOWN_MAX + 3), "context"]
    assert texts(whole_market)[-3].endswith("more, all in the warehouse")
    issue = replace(ISSUE, title="x" * 9000, detail="x" * 9000, action="x" * 9000)
    assert fits(issue_message([issue] * 60, simulated=True))
    assert fits(summary_message([long] * 60, 24, simulated=True))
    assert (clip("abcdef", 4), clip("abcd", 4)) == ("abc…", "abcd")


def test_an_issue_shows_what_happened_and_what_to_do_and_that_it_is_not_about_the_market():
    message = issue_message([ISSUE], simulated=False)
    assert message.text == "Pipeline issue: S3 is behind (opened)"
    assert texts(message) == [
        "Pipeline issue: S3 is behind",
        (
            ":wrench: *S3 is behind*: opened\n12 partitions wait.\n"
            "*What to do:* Look at the log of upload_to_s3.\n"
            "since 2026-11-22 10:00 UTC · <http://localhost:8080/dags/process_prices|details>"
        ),
        "Not about the market · issue `uploads@20261122T100000Z-open`",
    ]


def test_a_reminder_and_a_resolved_issue_show_how_long_it_was_open():
    later = replace(ISSUE, state="reminder", link=None, at=TEN + timedelta(hours=25))
    since = "since 2026-11-22 10:00 UTC, 25 h 0 min"
    (_, section, _) = texts(issue_message([later], simulated=False))
    assert section.splitlines()[::3] == [":hourglass: *S3 is behind*: still open", since]
    title, section, _ = texts(issue_message([replace(later, state="resolved", action="")], simulated=True))
    assert title == "[SIMULATED] Pipeline issue resolved: S3 is behind"
    assert section == f":white_check_mark: *S3 is behind*: resolved\n12 partitions wait.\n{since}"


def test_issues_that_are_due_together_are_one_message():
    message = issue_message([ISSUE, replace(ISSUE, id="", title="late", state="resolved")], simulated=False)
    assert message.text == "Pipeline issue: S3 is behind (opened) · late (resolved)"
    assert texts(message)[0] == "2 pipeline issues"
    assert texts(message)[-1] == f"Not about the market · issue `{ISSUE.id}`, sent without the warehouse"


def test_old_alerts_are_listed_in_one_summary():
    later = replace(ALERT, ts=TEN + timedelta(hours=1), state="resolved", message="BTC: back")
    message = summary_message([ALERT, later], 24, simulated=False)
    assert message.text == "2 alerts from more than 24 hours ago, which could not be delivered then"
    assert texts(message) == [
        "Delivered late: 2 alerts",
        f"{message.text}. All of them are in the warehouse.",
        "• 2026-11-22 10:00 UTC BTC −13.03 % in 24 h\n• 2026-11-22 11:00 UTC resolved: BTC: back",
        f"the first is `{ALERT.id}`",
    ]
    many = summary_message([ALERT] * 5000, 24, simulated=False)
    assert fits(many)
    shown = sum(text.count("•") for text in texts(many))
    assert texts(many)[-2].endswith(f"… and {5000 - shown} more, all in the warehouse")
