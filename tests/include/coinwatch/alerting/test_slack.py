import json
import logging
import os
import signal
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from coinwatch.alerting.messages import SlackMessage
from coinwatch.alerting.outbox import Alert, store_alerts
from coinwatch.alerting.slack import SlackError, WebhookRefused, deliver, open_webhook, post
from coinwatch.sandbox.http import Response, SandboxServer
from coinwatch.sandbox.slack import SlackSandbox
from coinwatch.storage import schema
from coinwatch.storage.warehouse import open_warehouse

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
NOW = TEN + timedelta(hours=2)
TOKEN = "T0SECRET/B0SECRET/xyzSECRETxyz"
SECRETS = ("T0SECRET", "B0SECRET", "xyzSECRETxyz")
MESSAGE = SlackMessage("hello", [])

ALERT = Alert(
    id="move_1h-bitcoin-usd-1",
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
)
SECOND = replace(ALERT, id="move_1h-bitcoin-usd-2", raised_at=NOW)
THIRD = replace(ALERT, id="move_1h-bitcoin-usd-3", raised_at=NOW)


@pytest.fixture
def slack():
    with SlackSandbox(clock=lambda: NOW) as sandbox:
        yield sandbox


@pytest.fixture
def connect(monkeypatch):
    """Make the connection, and open its webhook."""

    def connect(url, token=TOKEN):
        connection = {"conn_type": "slackwebhook", "host": url, "password": token}
        monkeypatch.setenv("AIRFLOW_CONN_SLACK_DEFAULT", json.dumps(connection))
        return open_webhook()

    return connect


@pytest.fixture
def webhook(slack, connect):
    return connect(slack.url)


@pytest.fixture(autouse=True)
def _the_webhook_is_never_told(caplog, capfd):
    """Whatever is logged or printed, at whatever level: not the secret."""
    caplog.set_level(logging.DEBUG)
    yield
    told = "".join([*capfd.readouterr(), *(record.getMessage() for record in caplog.get_records("call"))])
    assert not [secret for secret in SECRETS if secret in told]


class Fixed(SandboxServer):
    """A Slack that always answers the same."""

    def __init__(self, response):
        super().__init__()
        self._response = response

    def respond(self, _):
        return self._response


def told_without_secret(caught):
    text = f"{caught.value!r} {caught.value}"
    assert not [secret for secret in SECRETS if secret in text]
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return str(caught.value)


def store(warehouse, *alerts):
    with warehouse.begin() as connection:
        store_alerts(connection, alerts)


def deliveries(warehouse):
    with warehouse.begin() as connection:
        c = schema.alerts.c
        query = select(c.delivery, c.delivered_at, c.delivery_error).order_by(c.id)
        return [tuple(row) for row in connection.execute(query)]


def send(warehouse, webhook, now=NOW):
    return deliver(warehouse, webhook, lambda: now, "http://localhost:8080/", simulated=False)


def ids_in(slack):
    return [
        message["payload"]["blocks"][-1]["elements"][0]["text"].partition("`")[2].rstrip("`")
        for message in slack.messages
    ]


def test_each_alert_is_delivered_once_the_oldest_first(warehouse, webhook, slack):
    store(warehouse, THIRD, SECOND, ALERT)
    assert send(warehouse, webhook) == 3
    assert send(warehouse, webhook) == 0
    assert ids_in(slack) == [ALERT.id, SECOND.id, THIRD.id]
    assert deliveries(warehouse) == [("delivered", NOW, None)] * 3


def test_a_message_links_to_the_run_that_raised_it(warehouse, webhook, slack):
    store(warehouse, ALERT)
    deliver(warehouse, webhook, lambda: NOW, "http://localhost:8080/", simulated=True)
    payload = slack.messages[0]["payload"]
    assert payload["text"] == "[SIMULATED] BTC −3.00 % in 1 h"
    assert (
        "<http://localhost:8080/dags/process_prices/runs/scheduled__2026-11-22T10%3A00%3A00%2B00%3A00|run>"
        in payload["blocks"][2]["text"]["text"]
    )


def test_the_first_failure_stops_and_what_was_not_sent_is_sent_by_the_next_run(warehouse, webhook, slack):
    store(warehouse, ALERT)
    send(warehouse, webhook)
    store(warehouse, SECOND, THIRD)
    slack.answer_next(500, "rollup_error")
    with pytest.raises(SlackError) as caught:
        send(warehouse, webhook)
    told = "Slack answered 500 'rollup_error'; the alerts are kept, and sent again later"
    assert told_without_secret(caught) == told
    assert deliveries(warehouse) == [("delivered", NOW, None), ("pending", None, told), ("pending", None, None)]
    assert send(warehouse, webhook) == 2
    assert ids_in(slack) == [ALERT.id, SECOND.id, THIRD.id]
    assert deliveries(warehouse) == [("delivered", NOW, None)] * 3


@pytest.mark.parametrize(
    ("killed_before", "sent"), [("send", [ALERT.id, SECOND.id]), ("mark", [ALERT.id, ALERT.id, SECOND.id])]
)
def test_a_kill_loses_no_alert_and_doubles_only_the_one_that_was_not_marked_yet(
    warehouse, warehouse_url, webhook, slack, kill_at_line, killed_before, sent
):
    store(warehouse, ALERT, SECOND)
    warehouse.dispose()

    class Dying:
        def send(self, **message):
            answer = webhook.send(**message) if killed_before == "mark" else None
            os.kill(os.getpid(), signal.SIGKILL)
            return answer

    assert kill_at_line(lambda: send(open_warehouse(warehouse_url), Dying()), 0)
    assert send(warehouse, webhook) == 2
    assert ids_in(slack) == sent


def test_without_slack_alerts_wait_and_say_so_and_are_delivered_once_there_is_one(warehouse, webhook, slack, caplog):
    store(warehouse, ALERT, SECOND)
    assert send(warehouse, None) == 0
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        (
            "no connection slack_default: 2 alerts are stored and wait; they are sent if the connection exists within "
            "24 hours"
        )
    ]
    assert deliveries(warehouse) == [("not_configured", None, None)] * 2
    assert send(warehouse, webhook) == 2
    assert ids_in(slack) == [ALERT.id, SECOND.id]


def test_what_was_raised_without_slack_is_not_sent_when_nobody_cares_any_more(warehouse, webhook, slack):
    store(warehouse, ALERT, replace(SECOND, ts=TEN + timedelta(hours=1)))
    send(warehouse, None)
    assert send(warehouse, webhook, now=TEN + timedelta(hours=25)) == 1
    assert ids_in(slack) == [SECOND.id]
    assert deliveries(warehouse)[0] == ("not_configured", None, None)


def test_what_slack_did_not_take_is_sent_however_long_its_outage_lasts(warehouse, webhook, slack):
    store(warehouse, ALERT)
    slack.answer_next(503, "")
    with pytest.raises(SlackError):
        send(warehouse, webhook)
    assert send(warehouse, webhook, now=TEN + timedelta(days=30)) == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [(400, "invalid_payload"), (403, "invalid_token"), (404, "no_service"), (410, "channel_is_archived")],
)
def test_a_webhook_that_is_refused_has_to_be_checked_by_somebody(webhook, slack, status, body):
    slack.answer_next(status, body)
    with pytest.raises(WebhookRefused) as caught:
        post(webhook, MESSAGE)
    assert told_without_secret(caught) == (
        f"Slack answered {status} {body!r}: it will not take these messages. Check the webhook in the connection "
        "slack_default; the alerts are kept and sent by the first run after it is mended"
    )
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("headers", "retry_after"), [({"Retry-After": "30"}, 30.0), ({"retry-after": "7"}, 7.0), ({}, None)]
)
def test_too_many_messages_are_tried_again_after_the_wait_that_slack_asks_for(webhook, slack, headers, retry_after):
    slack.answer_next(429, "rate_limited", **headers)
    with pytest.raises(SlackError) as caught:
        post(webhook, MESSAGE)
    assert (caught.value.retryable, caught.value.retry_after) == (True, retry_after)
    assert told_without_secret(caught) == (
        "Slack answered 429 'rate_limited'; the alerts are kept, and sent again later"
    )


@pytest.mark.parametrize(
    "response",
    [
        pytest.param(Response(200, b"ok", cut_after=-1), id="hung up"),
        pytest.param(Response(200, b"ok", cut_after=1), id="broke off"),
        pytest.param(Response(200, b"\xff\xfe"), id="no text"),
    ],
)
def test_an_answer_that_got_lost_on_the_way_is_an_outage(connect, response):
    with Fixed(response) as server, pytest.raises(SlackError) as caught:
        post(connect(server.origin), MESSAGE)
    assert told_without_secret(caught).startswith("Slack cannot be reached (")
    assert caught.value.retryable


def test_a_host_that_nobody_listens_on_is_an_outage(connect, unused_port):
    with pytest.raises(SlackError) as caught:
        post(connect(f"http://127.0.0.1:{unused_port}/services"), MESSAGE)
    assert told_without_secret(caught) == (
        "Slack cannot be reached (URLError); the alerts are kept, and sent again later"
    )
    assert caught.value.retryable


def test_an_answer_that_is_not_slacks_is_no_delivery(connect):
    with Fixed(Response(200, b"<html>Please log in</html>")) as server, pytest.raises(SlackError) as caught:
        post(connect(server.origin), MESSAGE)
    assert told_without_secret(caught) == (
        "Slack answered 200 '<html>Please log in</html>' and not 'ok', so it was not Slack; the alerts are kept, and "
        "sent again later"
    )


def test_an_error_page_that_repeats_the_address_does_not_give_it_away(connect):
    page = f"Cannot POST /{TOKEN}, see xyzSECRETxyz".encode()
    with Fixed(Response(404, page)) as server, pytest.raises(WebhookRefused) as caught:
        post(connect(server.origin), MESSAGE)
    assert told_without_secret(caught).startswith("Slack answered 404 'Cannot POST ***, see ***': ")


@pytest.mark.parametrize("host", ["http://127.0.0.1:1/a b", "ftp://127.0.0.1", "http://127.0.0.1/ü"])
def test_a_connection_that_makes_no_url_has_to_be_checked_by_somebody(connect, host):
    with pytest.raises(WebhookRefused) as caught:
        post(connect(host), MESSAGE)
    assert told_without_secret(caught).startswith("the webhook is no URL that can be asked (")
    assert "Check host and password of the connection slack_default" in str(caught.value)
    assert not caught.value.retryable
