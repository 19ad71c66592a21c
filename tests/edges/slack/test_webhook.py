import json
from contextlib import ExitStack

import pytest

from coinwatch.app import App
from coinwatch.sandbox.http import Response, SandboxServer
from coinwatch.slack.blocks import SlackMessage
from coinwatch.slack.webhook import MessageRefused, SlackError, WebhookRefused, WebhookRevoked, open_chart_upload

SECRETS = ("T0SECRET", "B0SECRET", "xyzSECRETxyz")
CHANNEL = "C0123456789"
BOT_TOKEN = "xoxb-s3cr3t"


@pytest.fixture
def answer():
    """Give this response to every request: the arguments of a response → origin."""
    with ExitStack() as servers:

        def answer(*arguments, **faults):
            class Broken(SandboxServer):
                def respond(self, _):
                    return Response(*arguments, **faults)

            return servers.enter_context(Broken()).origin

        yield answer


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
    connect, slack, unused_port, status, headers, retry_after
):
    slack.answer_next(status, "later", **headers)
    error = raised_by(connect(slack.url))
    assert (type(error), error.retryable, error.retry_after) == (SlackError, True, retry_after)
    assert raised_by(connect(f"http://127.0.0.1:{unused_port}/services")).retryable


@pytest.mark.parametrize(
    ("body", "cut_after"),
    [
        pytest.param(b"", -1, id="hung up"),
        pytest.param(b"ok", 1, id="broke off"),
        pytest.param(b"\xff\xfe", None, id="not text"),
        pytest.param(b"<html>Please log in</html>", None, id="not Slack"),
    ],
)
def test_a_response_that_is_not_slacks_ok_is_retried(connect, answer, body, cut_after):
    error = raised_by(connect(answer(200, body, cut_after=cut_after)))
    assert (type(error), error.retryable) == (SlackError, True)


def test_an_error_page_that_repeats_the_webhook_does_not_reveal_it(connect, answer):
    page = b"Cannot POST /T0SECRET/B0SECRET/xyzSECRETxyz, see xyzSECRETxyz"
    assert "Cannot POST ***, see ***" in str(raised_by(connect(answer(404, page))))


@pytest.mark.parametrize("host", ["http://127.0.0.1:1/a b", "ftp://127.0.0.1", "http://127.0.0.1/ü"])
def test_a_connection_without_a_valid_url_needs_an_operator(connect, host):
    assert type(raised_by(connect(host))) is WebhookRefused


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


@pytest.mark.parametrize(("status", "cut_after"), [(200, -1), (503, None)], ids=["hung up", "503"])
def test_a_chart_without_a_response_fails_nothing(connect_bot, answer, caplog, status, cut_after):
    connect_bot(f"{answer(status, b'<html>', cut_after=cut_after)}/api/")
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
