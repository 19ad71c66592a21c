import logging
import os
import signal
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert, select
from world import App

from coinwatch.alerts.silences import manage_alerts
from coinwatch.health import issues
from coinwatch.settings import load_settings
from coinwatch.slack import deliver
from coinwatch.slack.webhook import Slack, SlackError, Webhook, WebhookRefused, WebhookRevoked
from coinwatch.warehouse import schema
from coinwatch.warehouse.engine import open_warehouse

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)
NOW = TEN + 2 * HOUR
TOKEN = "T0SECRET/B0SECRET/xyzSECRETxyz"


class RealPrices(App):
    """The prices are not simulated."""

    simulated = False


@pytest.fixture
def waits():
    """The seconds that were waited on the spot."""
    return []


@pytest.fixture
def webhook(slack, connect):
    return connect(slack.url)


@pytest.fixture
def operators(failures, connect):
    """The webhook of the failures' channel."""
    return connect(failures.url, "slack_failures", "T/B/failures")


@pytest.fixture
def make_app(warehouse, webhook, waits, tmp_path):
    """Make an app: (now, channels) → app."""

    def make(now=NOW, *, engine=warehouse, **channels):
        app = RealPrices(load_settings(data_dir=tmp_path / "data"), lambda: now)
        slack = Slack(**({"alerts": webhook, "sleep": waits.append} | channels))
        app.__dict__ |= {"warehouse": engine, "slack": slack}
        return app

    return make


@pytest.fixture
def send(make_app):
    """Deliver: (now, channels) → alerts that were delivered."""
    return lambda *args, **channels: deliver.send_slack_alerts(make_app(*args, **channels))


@pytest.fixture(autouse=True)
def _no_secret_is_stored(warehouse):
    yield
    with warehouse.begin() as connection:
        stored = str([connection.execute(table.select()).all() for table in schema.metadata.sorted_tables])
    assert not [secret for secret in TOKEN.split("/") if secret in stored]


@pytest.fixture
def issue_states(warehouse):
    """Read (key, state, notified state) of all issues, webhooks without their fingerprint."""

    def read():
        i = schema.pipeline_issues.c
        with warehouse.begin() as connection:
            rows = connection.execute(select(i.key, i.state, i.notified_state).order_by(i.key))
            return [(key.rpartition(":")[0] or key, state, notified) for key, state, notified in rows]

    return read


def texts(sandbox, number=0):
    """Read the texts of a message's blocks."""
    blocks = [block.get("text") or block["elements"][0] for block in sandbox.messages[number]["payload"]["blocks"]]
    return [text["text"] for text in blocks]


def ids(sandbox):
    """Read the ids in the last line of each message: alerts, and issues with their state (webhooks without more)."""
    found = [texts(sandbox, number)[-1].split("`")[1::2] for number in range(len(sandbox.messages))]
    short = [[name.replace("@20261122T120000Z", "") for name in names] for names in found]
    return [[":".join(name.split(":")[:2]) for name in names] for names in short]


def test_alerts_are_delivered_once_with_one_message_for_each_run_the_oldest_first_at_slacks_pace(
    store, send, slack, waits, deliveries
):
    store("a-3", 2)
    store("a-2", 1)
    store("a-1")
    store("a-0", coin="ethereum", value=-9.0)
    assert send() == 4
    assert send() == 0
    assert ids(slack) == [["a-0", "a-1"], ["a-2"], ["a-3"]]
    assert waits == [1.0, 1.0]
    assert deliveries("id", "delivery", "delivered_at", "message_id") == [
        ("a-0", "delivered", NOW, "a-0+1"),
        ("a-1", "delivered", NOW, "a-0+1"),
        ("a-2", "delivered", NOW, "a-2"),
        ("a-3", "delivered", NOW, "a-3"),
    ]


def test_a_message_has_the_rule_the_run_and_the_day_before_of_which_the_worst_alert_has_a_chart(
    store, warehouse, send, slack
):
    rows = [
        {"coin": "bitcoin", "currency": "usd", "ts": TEN - number * HOUR, "price": 90000 - number * 1000}
        | {"source": "live", "snapshot": "s"}
        for number in range(26)
    ]
    with warehouse.begin() as connection:
        connection.execute(insert(schema.prices), rows)
    store("a-1", run_id="scheduled__2026-11-22T10:00:00+00:00", severity="critical")
    store("a-0", run_id="scheduled__2026-11-22T10:00:00+00:00", coin="ethereum", value=-9.0)
    store("a-2", 1, run_id="watch_feed", incident_id="incident of a-1", state="resolved")
    uploads = []
    assert send(upload_chart=lambda png, title: uploads.append((png[:4], title))) == 3
    assert uploads == [(b"\x89PNG", "bitcoin, 24 hours to 2026-11-22 10:00 UTC")]
    header, section, _, context = texts(slack)
    assert header == "2 price alerts, 2 coins"
    assert section.splitlines()[1:] == [
        "▁▁▂▂▂▃▃▃▃▄▄▄▅▅▅▆▆▆▆▇▇▇██ 24 h, $67,000 to $90,000",
        "Rule move_1h: from −2.00 % on (sigmas 6, min_pct 1) · critical · 2026-11-22 10:00 UTC",
    ]
    run = "http://airflow/dags/process_prices/runs/scheduled__2026-11-22T10%3A00%3A00%2B00%3A00"
    assert context == f"<{run}|run> · alerts `a-1`, `a-0`"
    assert texts(slack, 1)[-1] == "<http://airflow/dags/watch_feed|run> · alert `a-2`"


def test_the_first_failure_stops_delivery_and_the_next_run_sends_the_rest(store, send, slack, deliveries):
    store("a-1")
    send()
    store("a-2", 1)
    store("a-3", 2)
    slack.answer_next(500, "rollup_error")
    with pytest.raises(SlackError) as caught:
        send()
    assert deliveries("delivery", "delivery_error") == [
        ("delivered", None),
        ("pending", str(caught.value)),
        ("pending", None),
    ]
    assert send() == 2
    assert ids(slack) == [["a-1"], ["a-2"], ["a-3"]]
    assert deliveries("delivery", "delivery_error") == [("delivered", None)] * 3


def test_429_three_times_then_500_then_ok_delivers_once_after_the_waits_that_slack_asks_for(store, send, slack, waits):
    store("a-1")
    for seconds in ("1", "2", "30"):
        slack.answer_next(429, "rate_limited", **{"Retry-After": seconds})
    slack.answer_next(500, "rollup_error")
    with pytest.raises(SlackError) as caught:
        send()
    # The retry policy waits for longer ones, which frees the slot.
    assert (waits, caught.value.retry_after) == ([1.0, 2.0], 30.0)
    # No other task posts before.
    with pytest.raises(SlackError) as caught:
        send(NOW + timedelta(seconds=20))
    assert caught.value.retry_after == 10.0
    with pytest.raises(SlackError, match="500"):
        send(NOW + timedelta(seconds=30))
    assert send(NOW + timedelta(seconds=30)) == 1
    assert ids(slack) == [["a-1"]]
    # Nor does a task wait again and again.
    store("a-2")
    for _ in range(4):
        slack.answer_next(429, "rate_limited", **{"Retry-After": "3"})
    with pytest.raises(SlackError):
        send(NOW + HOUR)
    assert waits == [1.0, 2.0, 3.0, 3.0, 3.0]


@pytest.mark.parametrize(
    ("killed_before", "sent"), [("send", [["a-1"], ["a-2"]]), ("mark", [["a-1"], ["a-1"], ["a-2"]])]
)
def test_a_kill_loses_no_alert_and_sends_only_the_unmarked_one_twice(
    store, warehouse, warehouse_url, webhook, send, slack, kill_at_line, killed_before, sent
):
    store("a-1")
    store("a-2", 1)
    warehouse.dispose()

    class Dying:
        url = webhook.client.url

        def send(self, **message):
            response = webhook.client.send(**message) if killed_before == "mark" else None
            os.kill(os.getpid(), signal.SIGKILL)
            return response

    dying = Webhook("slack_default", Dying())
    assert kill_at_line(lambda: send(engine=open_warehouse(warehouse_url), alerts=dying), 0)
    assert send() == 2
    assert ids(slack) == sent


def test_without_slack_alerts_wait_until_there_is_one_or_they_are_old(store, send, slack, deliveries, caplog):
    store("a-1")
    store("a-2", 1, ts=TEN + HOUR)
    assert send(alerts=None) == 0
    assert [record.args for record in caplog.records if record.levelno >= logging.WARNING] == [
        ("slack_default", 2, 24.0)
    ]
    assert deliveries("delivery", "delivered_at") == [("not_configured", None)] * 2
    assert send(TEN + 25 * HOUR) == 1
    assert ids(slack) == [["a-2"]]
    assert deliveries("delivery") == [("not_configured",), ("delivered",)]


def test_old_alerts_are_one_summary_before_the_others(store, send, slack, deliveries):
    store("a-1")
    store("a-2", 1)
    store("a-3", 2)
    slack.answer_next(503, "")
    with pytest.raises(SlackError):
        send()
    assert send(NOW + timedelta(hours=23, minutes=30)) == 3
    assert ids(slack) == [["a-1"], ["a-3"]]
    assert texts(slack)[0] == "Delivered late: 2 alerts"
    assert deliveries("id", "message_id") == [("a-1", "a-1+1"), ("a-2", "a-1+1"), ("a-3", "a-3")]


@pytest.mark.parametrize(
    ("coin", "rule", "hours", "expected"),
    [
        ("bitcoin", "move_1h", 4, ["silenced", "delivered"]),
        ("*", "move_1h", 4, ["silenced", "delivered"]),
        ("bitcoin", "*", 4, ["silenced", "silenced"]),
        ("*", "*", 4, ["silenced", "silenced"]),
        ("ethereum", "*", 4, ["delivered", "delivered"]),
        ("*", "*", 5, ["delivered", "delivered"]),
    ],
)
def test_a_silence_holds_the_alerts_of_its_coin_and_rule_until_it_ends(
    store, silence, send, deliveries, coin, rule, hours, expected
):
    store("a")
    store("b", rule="stale")
    silence(coin, rule, TEN + 5 * HOUR)
    send(TEN + hours * HOUR)
    # What was silenced is never sent.
    assert send(TEN + 5 * HOUR) == 0
    assert [delivery for (delivery,) in deliveries("delivery")] == expected


def test_the_end_of_an_incident_that_was_never_notified_is_held(store, silence, send, deliveries):
    store("a", incident_id="i")
    silence("*", "*", NOW + HOUR)
    send()
    store("b", incident_id="i", state="resolved")
    store("c", incident_id="j")
    store("d", incident_id="j", state="resolved")
    assert send(NOW + HOUR) == 2
    assert deliveries("delivery") == [("silenced",), ("held",), ("delivered",), ("delivered",)]


def test_of_an_acknowledged_incident_worse_is_held_and_the_end_is_sent(
    store, warehouse, send, deliveries, incident_row
):
    acknowledged = incident_row("i", acknowledged_at=TEN, acknowledged_by="Ada")
    with warehouse.begin() as connection:
        connection.execute(insert(schema.incidents), [acknowledged, incident_row("j", coin="ethereum")])
    for alert_id, incident_id, state in (("a", "i", "firing"), ("b", "i", "worse"), ("c", "i", "resolved")):
        store(alert_id, incident_id=incident_id, state=state)
    store("d", incident_id="j", state="worse")
    assert send() == 3
    sent = ("delivered", None)
    assert deliveries("delivery", "delivery_error") == [sent, ("held", "acknowledged"), sent, sent]


def test_a_message_that_slack_refuses_is_sent_as_text_and_then_holds_up_no_other(store, send, slack, deliveries):
    store("a-1")
    slack.answer_next(400, "invalid_blocks")
    assert send() == 1
    assert slack.messages[0]["payload"].get("blocks", []) == []
    store("a-2", 1)
    store("a-3", 2)
    slack.answer_next(400, "invalid_blocks")
    slack.answer_next(400, "invalid_payload")
    assert send() == 1
    assert send() == 0
    assert deliveries("delivery") == [("delivered",), ("refused",), ("delivered",)]


def test_a_revoked_webhook_is_an_issue_in_the_other_channel_until_a_new_one_replaces_it(
    store, send, slack, failures, operators, connect, issue_states
):
    store("a-1")
    slack.answer_next(410, "channel_is_archived")
    assert send(failures=operators) == 0
    store("a-2", 1)
    assert send(failures=operators) == 0
    assert (ids(slack), ids(failures)) == ([], [["webhook:slack_default"]])
    assert issue_states() == [("webhook:slack_default", "open", "open")]
    assert send(alerts=connect(slack.url, token="T/B/new"), failures=operators) == 2
    assert ids(slack) == [["a-1"], ["a-2"]]
    assert issue_states() == [("webhook:slack_default", "resolved", "resolved")]
    assert len(failures.messages) == 2


@pytest.mark.parametrize("is_new", [True, False], ids=["a new webhook", "re-enabled"])
def test_without_another_channel_a_revoked_webhook_fails_the_task_once(
    store, make_app, send, slack, connect, issue_states, caplog, is_new
):
    store("a-1")
    slack.answer_next(410, "channel_is_archived")
    with pytest.raises(WebhookRevoked):
        send()
    caplog.clear()
    assert send() == 0
    warned = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [line.partition(":")[0] for line in warned] == [
        "1 alerts wait",
        "no channel accepts this pipeline issue (open)",
    ]
    if is_new:
        assert send(alerts=connect(slack.url, token="T/B/new")) == 1
    else:
        manage_alerts(make_app(), {"action": "reenable_webhooks", "coin": "", "rule": ""})
        assert send() == 1
    # Nobody was notified that it opened.
    assert ids(slack) == [["a-1"]]
    assert issue_states() == [("webhook:slack_default", "resolved", None)]


def test_a_revoked_failures_channel_is_an_issue_in_the_alerts_channel(
    report, send, slack, failures, operators, issue_states
):
    report()
    failures.answer_next(404, "no_service")
    assert send(failures=operators) == 0
    assert (ids(failures), ids(slack)) == ([], [["uploads-open", "webhook:slack_failures"]])
    # The connection was removed.
    send()
    assert issue_states() == [("uploads", "open", "open"), ("webhook:slack_failures", "resolved", "resolved")]
    assert ids(slack)[1:] == [["webhook:slack_failures"]]


def test_issues_that_are_due_together_are_one_message_in_their_own_channel_or_after_the_alerts(
    store, report, send, slack, failures, operators
):
    store("a-1")
    report()
    report("late")
    assert send(failures=operators) == 1
    assert (ids(slack), ids(failures)) == ([["a-1"]], [["late-open", "uploads-open"]])
    store("a-2")
    report("budget")
    assert send() == 1
    assert send() == 0
    assert ids(slack)[1:] == [["a-2"], ["budget-open"]]


def test_what_an_issue_is_sent_for_is_part_of_its_id(report, warehouse, make_app, slack):
    for hours in (0, 1, 24, 48):
        report(at=NOW + hours * HOUR)
        assert deliver.send_issues(make_app(NOW + hours * HOUR))
    with warehouse.begin() as connection:
        issues.resolve(connection, "uploads", NOW + 72 * HOUR)
    assert deliver.send_issues(make_app(NOW + 72 * HOUR))
    reminder = "uploads@20261123T120000Z-reminder"
    assert ids(slack) == [["uploads-open"], ["uploads-reminder"], [reminder], ["uploads-resolved"]]


def test_issues_are_sent_while_the_alerts_channel_is_down_and_its_error_is_raised(
    store, report, send, slack, failures, operators
):
    report("first")
    send(alerts=None, failures=operators)
    store("a-1")
    report("second")
    slack.answer_next(503, "down")
    with pytest.raises(SlackError, match="'down'"):
        send(failures=operators)
    assert ids(failures) == [["first-open"], ["second-open"]]


def test_an_issue_stays_due_until_a_channel_accepts_it(report, warehouse, make_app, slack, failures, operators):
    report()
    failures.answer_next(503, "first")
    slack.answer_next(503, "second")
    assert not deliver.send_issues(make_app(failures=operators))
    with warehouse.begin() as connection:
        assert "'second'" in issues.find(connection, "uploads").delivery_error
    assert deliver.send_issues(make_app(failures=operators))
    assert (ids(failures), ids(slack)) == ([["uploads-open"]], [])


def test_an_issue_can_be_posted_without_the_warehouse(make_app, slack, failures, operators):
    app = make_app(engine=None, failures=operators)
    issue = {"title": "Task x failed", "detail": "d", "action": "a", "link": "http://airflow/log"}
    assert deliver.post_issue(app, **issue)
    failures.answer_next(503, "")
    assert deliver.post_issue(app, **issue)
    for sandbox in (slack, failures):
        sandbox.answer_next(503, "")
    assert not deliver.post_issue(app, **issue)
    assert (len(failures.messages), len(slack.messages)) == (1, 1)


def test_a_webhook_without_a_valid_url_is_not_revoked(store, send, connect, issue_states):
    store("a-1")
    with pytest.raises(WebhookRefused):
        send(alerts=connect("http://127.0.0.1:1/a b"))
    assert issue_states() == []
