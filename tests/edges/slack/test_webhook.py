import json
import socket
import threading

import pytest

from coinwatch.app import App
from coinwatch.slack.blocks import SlackMessage
from coinwatch.slack.webhook import MessageRefused, SlackError, WebhookRefused, WebhookRevoked, open_chart_upload

SECRETS = ("T0SECRET", "B0SECRET", "xyzSECRETxyz")
CHANNEL = "C0123456789"
BOT_TOKEN = "xoxb-s3cr3t"


@pytest.fixture
def answer():
    """Serve one connection with these bytes, and hang up: bytes → origin."""
    servers = []

    def answer(content):
        server = socket.create_server(("127.0.0.1", 0))

        def serve():
            connection, _ = server.accept()
            with connection:
                while b"\r\n\r\n" not in connection.recv(65536):
                    pass
                connection.sendall(content)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.getsockname()[1]}"

    yield answer
    for server, thread in servers:
        thread.join()
        server.close()


def http(status, body, length=None):
    return f"HTTP/1.1 {status} x\r\nContent-Length: {length or len(body)}\r\n\r\n".encode() + body


def raised_by(webhook):
    """Post, and return the error, which has no secret in it or behind it."""
    with pytest.raises(SlackError) as caught:
        webhook.post(SlackMessage("hello", []))
    assert not [secret for secret in SECRETS if secret in repr(caught.value)]
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, "invalid_payload", MessageRefused),
        (403, "invalid_token", WebhookRevoked),
        (404, "no_service", WebhookRevoked),
        (410, "channel_is_archived", WebhookRevoked),
        (405, "", WebhookRefused),
    ],
)
def test_a_refusal_needs_an_operator_and_names_the_connection(connect, slack, status, body, kind):
    slack.answer_next(status, body)
    error = raised_by(connect(slack.url, "slack_failures"))
    assert (type(error), error.retryable) == (kind, False)
    assert str(error).startswith(f"slack_failures: Slack answered {status} {body!r}: ")


@pytest.mark.parametrize(
    ("status", "headers", "retry_after"),
    [(429, {"Retry-After": "30"}, 30.0), (429, {"retry-after": "7"}, 7.0), (429, {}, None), (500, {}, None)],
)
def test_a_failure_of_the_moment_is_retried_after_the_time_that_slack_asks_for(
    connect, slack, status, headers, retry_after
):
    slack.answer_next(status, "later", **headers)
    error = raised_by(connect(slack.url))
    assert (type(error), error.retryable, error.retry_after) == (SlackError, True, retry_after)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="hung up"),
        pytest.param(http(200, b"o", 2), id="broke off"),
        pytest.param(http(200, b"\xff\xfe"), id="not text"),
        pytest.param(http(200, b"<html>Please log in</html>"), id="not Slack"),
    ],
)
def test_a_response_that_is_not_slacks_ok_is_retried(connect, answer, content):
    error = raised_by(connect(answer(content)))
    assert (type(error), error.retryable) == (SlackError, True)


def test_an_unreachable_host_is_retried(connect, unused_port):
    assert raised_by(connect(f"http://127.0.0.1:{unused_port}/services")).retryable


def test_an_error_page_that_repeats_the_webhook_does_not_reveal_it(connect, answer):
    page = b"Cannot POST /T0SECRET/B0SECRET/xyzSECRETxyz, see xyzSECRETxyz"
    assert "Cannot POST ***, see ***" in str(raised_by(connect(answer(http(404, page)))))


@pytest.mark.parametrize("host", ["http://127.0.0.1:1/a b", "ftp://127.0.0.1", "http://127.0.0.1/ü"])
def test_a_connection_without_a_valid_url_needs_an_operator(connect, host):
    assert type(raised_by(connect(host))) is WebhookRefused


def test_a_fingerprint_identifies_a_webhook_and_reveals_nothing(connect):
    one, same = connect("http://127.0.0.1"), connect("http://127.0.0.1", "slack_failures")
    other = connect("http://127.0.0.1", token="T/B/other")
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert len(one.fingerprint) == 16


@pytest.fixture
def connect_bot(monkeypatch):
    """Make the bot's connection: (base URL, token, further extra)."""

    def connect(url, token=BOT_TOKEN, **extra):
        connection = {"conn_type": "slack", "password": token, "extra": {"base_url": url, **extra}}
        monkeypatch.setenv("AIRFLOW_CONN_SLACK_API_DEFAULT", json.dumps(connection))

    return connect


@pytest.mark.parametrize(
    ("token", "channel", "reason"), [("wrong", CHANNEL, "not_authed"), (BOT_TOKEN, "#alerts", "channel_not_found")]
)
def test_a_chart_that_slack_refuses_fails_nothing(slack, connect_bot, caplog, token, channel, reason):
    connect_bot(f"{slack.origin}/api/", token)
    open_chart_upload(channel)(b"png", "bitcoin")
    assert reason in caplog.messages[-1]


@pytest.mark.parametrize("content", [b"", http(200, b"<html>"), http(503, b"")], ids=["hung up", "HTML", "503"])
def test_a_chart_without_a_response_fails_nothing(connect_bot, answer, caplog, content):
    connect_bot(f"{answer(content)}/api/")
    open_chart_upload(CHANNEL)(b"png", "bitcoin")
    assert caplog.messages[-1].startswith("chart not uploaded: ")


def test_charts_need_a_token_and_a_channel(slack, connect_bot, caplog):
    assert App().slack.upload_chart is None
    assert caplog.messages == []
    connect_bot(f"{slack.origin}/api/")
    assert App().slack.upload_chart is None
    assert caplog.messages[-1].startswith("connection slack_api_default: ")
    connect_bot(f"{slack.origin}/api/", channel=CHANNEL)
    App().slack.upload_chart(b"png", "bitcoin, 24 hours")
    assert list(slack.files) == [{"id": "F0001", "title": "bitcoin, 24 hours", "channel": CHANNEL, "content": b"png"}]
