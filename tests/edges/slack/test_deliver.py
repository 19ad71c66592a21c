import json
import logging
import os
import signal
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert, select

from coinwatch.alerts.silences import silence
from coinwatch.health.troubles import end_trouble, raise_trouble
from coinwatch.rules import load_rules
from coinwatch.sandbox.slack import SlackSandbox
from coinwatch.settings import load_settings
from coinwatch.slack.deliver import Slack, delivery
from coinwatch.slack.outbox import Alert, store_alerts
from coinwatch.slack.webhook import SlackError, WebhookDead, WebhookRefused, open_webhook
from coinwatch.slack.webhooks import revive
from coinwatch.warehouse import schema
from coinwatch.warehouse.engine import open_warehouse

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)
NOW = TEN + 2 * HOUR
TOKEN = "T0SECRET/B0SECRET/xyzSECRETxyz"
SECRETS = ("T0SECRET", "B0SECRET", "xyzSECRETxyz")

ALERT = Alert(
    id="a-1",
    coin="bitcoin",
    currency="usd",
    rule="move_1h",
    severity="warning",
    state="firing",
    ts=TEN,
    value=-3.0,
    threshold=-2.0,
    message="BTC −3.00 % in 1 h",
    raised_at=TEN,
    run_id="scheduled__2026-11-22T10:00:00+00:00",
    incident_id="i-1",
)
SECOND = replace(ALERT, id="a-2", raised_at=NOW, incident_id="i-2", run_id="r2")
THIRD = replace(ALERT, id="a-3", raised_at=NOW + HOUR, incident_id="i-3", run_id="r3")
KEPT = "the alerts are kept, and sent again later"


@pytest.fixture
def slack():
    with SlackSandbox(clock=lambda: NOW) as sandbox:
        yield sandbox


@pytest.fixture
def failures():
    with SlackSandbox(clock=lambda: NOW) as sandbox:
        yield sandbox


@pytest.fixture
def waits():
    """The seconds that were waited on the spot."""
    return []


@pytest.fixture
def connect(monkeypatch):
    """Make a connection, and open its webhook."""

    def connect(sandbox, conn_id="slack_default", token=TOKEN):
        connection = {"conn_type": "slackwebhook", "host": sandbox.url, "password": token}
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))
        return open_webhook(conn_id)

    return connect


@pytest.fixture
def webhook(slack, connect):
    return connect(slack)


@pytest.fixture
def send(warehouse, webhook, waits, tmp_path):
    """Deliver: (now, channels) → alerts that were delivered."""

    def send(now=NOW, *, engine=warehouse, **channels):
        settings = load_settings(data_dir=tmp_path / "data")
        slack = Slack(**({"alerts": webhook, "sleep": waits.append} | channels))
        rules = load_rules(settings.config)
        base = "http://localhost:8080/"
        return delivery(settings, engine, rules, lambda: now, slack, base, simulated=False).deliver()

    return send


@pytest.fixture(autouse=True)
def _the_webhook_is_never_told(caplog, capfd, warehouse):
    """Whatever is logged, printed or stored, at whatever level: not the secret."""
    caplog.set_level(logging.DEBUG)
    yield
    with warehouse.begin() as connection:
        stored = [str(connection.execute(table.select()).all()) for table in schema.metadata.sorted_tables]
    told = "".join([*capfd.readouterr(), *(str(vars(record)) for record in caplog.get_records("call")), *stored])
    assert not [secret for secret in SECRETS if secret in told]


def store(warehouse, *alerts):
    with warehouse.begin() as connection:
        store_alerts(connection, alerts)


def trouble(warehouse, key="uploads", at=NOW):
    with warehouse.begin() as connection:
        raise_trouble(connection, key, title=f"{key}!", what="12 wait.", action="Look.", at=at)


def stored(warehouse, table=schema.alerts, *columns):
    chosen = columns or ("delivery", "delivered_at", "delivery_error")
    with warehouse.begin() as connection:
        query = select(*(table.c[name] for name in chosen)).order_by(table.c.raised_at, table.c.id)
        return [tuple(row) for row in connection.execute(query)]


def texts(sandbox):
    return [message["payload"]["text"] for message in sandbox.messages]


def ids_in(sandbox):
    """What the last line of each message names."""
    return [message["payload"]["blocks"][-1]["elements"][0]["text"].split("`")[1::2] for message in sandbox.messages]


DELIVERED = ("delivered", NOW, None)


def test_each_alert_is_delivered_once_the_oldest_first_and_at_slacks_pace(warehouse, send, slack, waits):
    store(warehouse, THIRD, SECOND, ALERT)
    assert send() == 3
    assert send() == 0
    assert ids_in(slack) == [["a-1"], ["a-2"], ["a-3"]]
    assert stored(warehouse) == [DELIVERED] * 3
    assert waits == [1.0, 1.0]


def test_a_message_tells_the_setting_of_the_rule_links_to_the_run_and_draws_the_day_before(warehouse, send, slack):
    store(warehouse, ALERT)
    prices = [
        {"coin": "bitcoin", "currency": "usd", "ts": TEN - number * HOUR, "price": 90000 - number * 1000}
        | {"source": "live", "snapshot": "s"}
        for number in range(26)
    ]
    with warehouse.begin() as connection:
        connection.execute(insert(schema.prices), prices)
    send()
    header, section, context = slack.messages[0]["payload"]["blocks"]
    assert section["text"]["text"].splitlines() == [
        ":warning: *BTC −3.00 % in 1 h*",
        "▁▁▂▂▂▃▃▃▃▄▄▄▅▅▅▆▆▆▆▇▇▇██ 24 h, $67,000 to $90,000",
        ("Rule move_1h: from −2.00 % on (sigmas 6, min_pct 1) · warning · 2026-11-22 10:00 UTC"),
    ]
    assert context["elements"][0]["text"] == (
        "<http://localhost:8080/dags/process_prices/runs/scheduled__2026-11-22T10%3A00%3A00%2B00%3A00|run> "
        "· alert `a-1`"
    )
    assert header["text"]["text"] == "Price alert"


class Shown:
    """A channel that keeps what it was shown."""

    def __init__(self):
        self.titles = []

    def show(self, content, title):
        self.titles.append((content[:4], title))
        return True


def test_the_worst_of_a_message_has_a_picture_where_there_is_a_bot_and_an_end_has_none(warehouse, send):
    worst = replace(ALERT, id="a-0", coin="ethereum", value=-9.0)
    over = replace(ALERT, id="a-9", raised_at=NOW, state="resolved", run_id="r9")
    store(warehouse, ALERT, worst, over)
    prices = [
        {"coin": "ethereum", "currency": "usd", "ts": TEN - number * HOUR, "price": 100 + number}
        | {"source": "live", "snapshot": "s"}
        for number in range(3)
    ]
    with warehouse.begin() as connection:
        connection.execute(insert(schema.prices), prices)
    shown = Shown()
    assert send(pictures=shown) == 3
    assert shown.titles == [(b"\x89PNG", "ethereum, 24 hours to 2026-11-22 10:00 UTC")]


def test_what_watch_feed_found_links_to_it(warehouse, send, slack):
    store(warehouse, replace(ALERT, run_id="watch_feed"))
    send()
    context = slack.messages[0]["payload"]["blocks"][-1]
    assert context["elements"][0]["text"] == "<http://localhost:8080/dags/watch_feed|run> · alert `a-1`"


def test_what_one_run_found_is_one_message(warehouse, send, slack):
    other = replace(ALERT, id="a-0", coin="ethereum", message="ETH −9.00 % in 1 h", value=-9.0)
    store(warehouse, ALERT, other, SECOND)
    assert send() == 3
    assert ids_in(slack) == [["a-0", "a-1"], ["a-2"]]
    assert stored(warehouse, schema.alerts, "id", "message_id") == [
        ("a-0", "a-0+1"),
        ("a-1", "a-0+1"),
        ("a-2", "a-2"),
    ]


def test_the_first_failure_stops_and_what_was_not_sent_is_sent_by_the_next_run(warehouse, send, slack):
    store(warehouse, ALERT)
    send()
    store(warehouse, SECOND, THIRD)
    slack.answer_next(500, "rollup_error")
    with pytest.raises(SlackError) as caught:
        send()
    told = f"Slack answered 500 'rollup_error'; {KEPT}"
    assert str(caught.value) == told
    assert stored(warehouse) == [DELIVERED, ("pending", None, told), ("pending", None, None)]
    assert send() == 2
    assert ids_in(slack) == [["a-1"], ["a-2"], ["a-3"]]
    assert stored(warehouse) == [DELIVERED] * 3


def test_429_three_times_then_500_then_ok_sends_once_and_waits_as_asked(warehouse, send, slack, waits):
    store(warehouse, ALERT)
    for seconds in ("1", "2", "30"):
        slack.answer_next(429, "rate_limited", **{"Retry-After": seconds})
    slack.answer_next(500, "rollup_error")
    with pytest.raises(SlackError) as caught:
        send()
    # Short waits on the spot; a long one is the retry policy's, which frees the slot.
    assert (waits, caught.value.retry_after) == ([1.0, 2.0], 30.0)
    # Whichever task comes meanwhile leaves Slack alone.
    with pytest.raises(SlackError, match="nothing for another 10 s") as caught:
        send(NOW + timedelta(seconds=20))
    assert caught.value.retry_after == 10.0
    with pytest.raises(SlackError, match="Slack answered 500"):
        send(NOW + timedelta(seconds=30))
    assert send(NOW + timedelta(seconds=30)) == 1
    assert send(NOW + timedelta(seconds=30)) == 0
    assert ids_in(slack) == [["a-1"]]


def test_short_waits_come_to_an_end(warehouse, send, slack, waits):
    store(warehouse, ALERT)
    for _ in range(4):
        slack.answer_next(429, "rate_limited", **{"Retry-After": "3"})
    with pytest.raises(SlackError) as caught:
        send()
    assert (waits, caught.value.retry_after) == ([3.0] * 3, 3.0)


def test_after_five_hours_without_slack_everything_comes_once_and_in_order(warehouse, send, slack):
    turns = [
        replace(ALERT, id=f"a-{number}", raised_at=TEN + number * HOUR, run_id=f"r{number}", state=state)
        for number, state in enumerate(["firing", "worse", "resolved"])
    ]
    for number in range(5):
        store(warehouse, *turns[number : number + 1])
        slack.answer_next(503, "")
        with pytest.raises(SlackError):
            send(TEN + number * HOUR)
    trouble(warehouse, "undelivered", TEN + HOUR)
    assert send(TEN + 5 * HOUR) == 3
    assert send(TEN + 6 * HOUR) == 0
    assert ids_in(slack) == [["a-0"], ["a-1"], ["a-2"], ["undelivered@20261122T110000Z-over"]]


@pytest.mark.parametrize(
    ("killed_before", "sent"), [("send", [["a-1"], ["a-2"]]), ("mark", [["a-1"], ["a-1"], ["a-2"]])]
)
def test_a_kill_loses_no_alert_and_doubles_only_the_one_that_was_not_marked_yet(
    warehouse, warehouse_url, webhook, send, slack, kill_at_line, killed_before, sent
):
    store(warehouse, ALERT, SECOND)
    warehouse.dispose()

    class Dying:
        url = webhook.url

        def send(self, **message):
            answer = webhook.send(**message) if killed_before == "mark" else None
            os.kill(os.getpid(), signal.SIGKILL)
            return answer

    assert kill_at_line(lambda: send(engine=open_warehouse(warehouse_url), alerts=Dying()), 0)
    assert send() == 2
    assert ids_in(slack) == sent


def test_without_slack_alerts_wait_and_say_so_and_are_delivered_once_there_is_one(warehouse, send, slack, caplog):
    store(warehouse, ALERT, SECOND)
    assert send(alerts=None) == 0
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        (
            "no connection slack_default: 2 alerts are stored and wait; they are sent if the connection exists within "
            "24 hours"
        )
    ]
    assert stored(warehouse) == [("not_configured", None, None)] * 2
    assert send() == 2
    assert ids_in(slack) == [["a-1"], ["a-2"]]


def test_what_was_raised_without_slack_is_not_sent_when_nobody_cares_any_more(warehouse, send, slack):
    store(warehouse, ALERT, replace(SECOND, ts=TEN + HOUR))
    send(alerts=None)
    assert send(TEN + 25 * HOUR) == 1
    assert ids_in(slack) == [["a-2"]]
    assert stored(warehouse)[0] == ("not_configured", None, None)


def test_what_is_too_old_to_matter_comes_in_one_summary_before_the_rest(warehouse, send, slack):
    store(warehouse, ALERT, SECOND, THIRD)
    slack.answer_next(503, "")
    with pytest.raises(SlackError):
        send()
    assert send(NOW + timedelta(hours=24, minutes=30)) == 3
    assert texts(slack) == [
        "2 alerts from more than 24 hours ago, which could not be delivered then",
        "BTC −3.00 % in 1 h",
    ]
    assert stored(warehouse, schema.alerts, "id", "message_id") == [("a-1", "a-1+1"), ("a-2", "a-1+1"), ("a-3", "a-3")]


def test_what_slack_did_not_take_is_sent_however_long_its_outage_lasts(warehouse, send, slack):
    store(warehouse, ALERT)
    slack.answer_next(503, "")
    with pytest.raises(SlackError):
        send()
    assert send(TEN + timedelta(days=30)) == 1


def test_a_silenced_alert_is_stored_and_not_sent(warehouse, send, slack):
    store(warehouse, ALERT)
    with warehouse.begin() as connection:
        silence(connection, coin="bitcoin", rule="move_1h", until=NOW + HOUR, reason="upgrade", at=TEN)
    assert send() == 0
    assert send(NOW + 2 * HOUR) == 0
    assert texts(slack) == []
    assert stored(warehouse) == [("silenced", None, "silenced until 2026-11-22 13:00 UTC: upgrade")]


def test_a_message_that_slack_does_not_understand_comes_as_text_and_holds_nothing_up(warehouse, send, slack):
    store(warehouse, ALERT, SECOND)
    slack.answer_next(400, "invalid_blocks")
    assert send() == 2
    assert [message["payload"].get("blocks", []) == [] for message in slack.messages] == [True, False]
    assert stored(warehouse) == [DELIVERED] * 2


def test_a_message_that_slack_never_takes_is_kept_and_holds_nothing_up(warehouse, send, slack):
    store(warehouse, ALERT, SECOND)
    slack.answer_next(400, "invalid_blocks")
    slack.answer_next(400, "invalid_payload")
    assert send() == 1
    told = "Slack answered 400 'invalid_payload': it does not take this message, which is kept in the warehouse"
    assert stored(warehouse) == [("refused", None, told), DELIVERED]


@pytest.mark.parametrize(
    ("status", "body"), [(403, "invalid_token"), (404, "no_service"), (410, "channel_is_archived")]
)
def test_a_dead_webhook_is_told_through_the_failure_channel_and_gets_nothing_more(
    warehouse, send, slack, failures, connect, status, body
):
    other = connect(failures, "slack_failures", "T/B/failures")
    store(warehouse, ALERT)
    slack.answer_next(status, body)
    assert send(failures=other) == 0
    assert texts(failures) == ["Coinwatch itself: Slack refuses the webhook of slack_default (began)"]
    store(warehouse, SECOND)
    assert send(failures=other) == 0
    assert texts(slack) == []
    assert [row[0] for row in stored(warehouse)] == ["pending", "pending"]
    new = connect(slack, token="T/B/new")
    assert send(alerts=new, failures=other) == 2
    assert ids_in(slack) == [["a-1"], ["a-2"]]
    assert texts(failures)[1:] == ["Coinwatch itself: Slack refuses the webhook of slack_default (is over)"]


def test_without_a_failure_channel_the_task_fails_once_and_the_alerts_wait_for_another_webhook(
    warehouse, send, slack, connect, caplog
):
    store(warehouse, ALERT)
    slack.answer_next(410, "channel_is_archived")
    with pytest.raises(WebhookDead, match="Put a new one into the connection slack_default"):
        send()
    caplog.clear()
    assert send() == 0
    warned = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warned[0].startswith("1 messages wait: the webhook of the connection slack_default is dead.")
    assert warned[1].startswith("trouble, which no channel can tell of: Slack refuses the webhook of slack_default: ")
    assert len(warned) == 2
    assert send(alerts=connect(slack, token="T/B/new")) == 1
    assert texts(slack) == [
        "BTC −3.00 % in 1 h",
        "Coinwatch itself: Slack refuses the webhook of slack_default (is over)",
    ]


def test_a_webhook_that_was_mended_where_it_is_is_used_again_when_somebody_says_so(warehouse, send, slack):
    store(warehouse, ALERT)
    slack.answer_next(410, "channel_is_archived")
    with pytest.raises(WebhookDead):
        send()
    with warehouse.begin() as connection:
        assert revive(connection) == 1
    assert send() == 1


def test_troubles_go_to_their_own_channel_and_alerts_to_theirs(warehouse, send, slack, failures, connect):
    store(warehouse, ALERT)
    trouble(warehouse)
    assert send(failures=connect(failures, "slack_failures")) == 1
    assert texts(slack) == ["BTC −3.00 % in 1 h"]
    assert texts(failures) == ["Coinwatch itself: uploads! (began)"]


def test_troubles_come_after_the_alerts_where_there_is_one_channel_for_both(warehouse, send, slack):
    store(warehouse, ALERT)
    trouble(warehouse)
    trouble(warehouse, "late")
    assert send() == 1
    assert texts(slack) == ["BTC −3.00 % in 1 h", "Coinwatch itself: late! (began) · uploads! (began)"]
    assert send() == 0
    assert len(slack.messages) == 2


def test_a_dead_failure_channel_is_told_through_the_other_one(warehouse, send, slack, failures, connect):
    trouble(warehouse)
    failures.answer_next(404, "no_service")
    send(failures=connect(failures, "slack_failures", "T/B/failures"))
    assert texts(failures) == []
    assert texts(slack) == ["Coinwatch itself: uploads! (began) · Slack refuses the webhook of slack_failures (began)"]


def test_operators_hear_of_troubles_also_while_the_alerts_channel_is_down(warehouse, send, slack, failures, connect):
    store(warehouse, ALERT)
    trouble(warehouse)
    slack.answer_next(503, "")
    with pytest.raises(SlackError, match="Slack answered 503"):
        send(failures=connect(failures, "slack_failures"))
    assert texts(failures) == ["Coinwatch itself: uploads! (began)"]


def test_without_alerts_channel_troubles_still_have_theirs(warehouse, send, failures, connect):
    trouble(warehouse)
    send(alerts=None, failures=connect(failures, "slack_failures"))
    assert texts(failures) == ["Coinwatch itself: uploads! (began)"]


def test_the_first_failure_is_the_one_that_is_told(warehouse, send, slack, failures, connect):
    store(warehouse, ALERT)
    trouble(warehouse)
    slack.answer_next(503, "first")
    failures.answer_next(503, "second")
    with pytest.raises(SlackError, match="'first'"):
        send(failures=connect(failures, "slack_failures"))


def test_old_troubles_come_in_one_summary_too(warehouse, send, slack):
    trouble(warehouse, "late", TEN)
    trouble(warehouse, "uploads", TEN + HOUR)
    with warehouse.begin() as connection:
        end_trouble(connection, "late", TEN + 2 * HOUR)
    send(TEN + timedelta(days=2))
    assert texts(slack) == [
        "2 messages about Coinwatch itself from more than 24 hours ago, which could not be delivered then"
    ]


def test_a_webhook_without_a_usable_url_does_not_count_as_dead(warehouse, send, connect):
    class Nowhere:
        url = "http://127.0.0.1:1/a b"

    store(warehouse, ALERT)
    for _ in range(2):
        with pytest.raises(WebhookRefused, match="the webhook is no URL"):
            send(alerts=connect(Nowhere))
