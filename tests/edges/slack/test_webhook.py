import json
import logging
from datetime import UTC, datetime

import pytest

from coinwatch.sandbox.http import Response, SandboxServer
from coinwatch.sandbox.slack import SlackSandbox
from coinwatch.slack.messages import SlackMessage
from coinwatch.slack.webhook import MessageRefused, SlackError, WebhookDead, WebhookRefused, open_webhook, post

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
TOKEN = "T0SECRET/B0SECRET/xyzSECRETxyz"
SECRETS = ("T0SECRET", "B0SECRET", "xyzSECRETxyz")
MESSAGE = SlackMessage("hello", [])


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


@pytest.mark.parametrize(
    ("status", "body", "kind", "told"),
    [
        (
            400,
            "invalid_payload",
            MessageRefused,
            "it does not take this message, which is kept in the warehouse",
        ),
        *(
            (
                status,
                body,
                WebhookDead,
                (
                    "the webhook is dead, and gets nothing more. Put a new one into the connection slack_default; the "
                    "alerts are kept and sent by the first run after it is mended"
                ),
            )
            for status, body in ((403, "invalid_token"), (404, "no_service"), (410, "channel_is_archived"))
        ),
        (
            405,
            "",
            WebhookRefused,
            (
                "it will not take these messages. Check the webhook in the connection slack_default; the alerts are "
                "kept and sent by the first run after it is mended"
            ),
        ),
    ],
)
def test_what_is_refused_has_to_be_mended_by_somebody(webhook, slack, status, body, kind, told):
    slack.answer_next(status, body)
    with pytest.raises(WebhookRefused) as caught:
        post(webhook, MESSAGE)
    assert type(caught.value) is kind
    assert told_without_secret(caught) == f"Slack answered {status} {body!r}: {told}"
    assert not caught.value.retryable


def test_a_failure_names_the_connection_of_its_webhook(webhook, slack):
    slack.answer_next(410, "channel_is_archived")
    with pytest.raises(WebhookDead, match="into the connection slack_failures"):
        post(webhook, MESSAGE, "slack_failures")


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
