import json
import logging

import pytest
from coinwatch.connections import open_slack

from coinwatch.sandbox.http import Response, SandboxServer
from coinwatch.sandbox.slack import SlackSandbox
from coinwatch.slack.pictures import open_pictures

TOKEN = "xoxb-s3cr3t"
CHANNEL = "C0123456789"


@pytest.fixture
def slack(clock):
    with SlackSandbox(clock=clock) as sandbox:
        yield sandbox


@pytest.fixture
def connect(monkeypatch):
    """Make the bot's connection: (base URL, token, further extra)."""

    def connect(url, token=TOKEN, **extra):
        connection = {"conn_type": "slack", "password": token, "extra": {"base_url": url, **extra}}
        monkeypatch.setenv("AIRFLOW_CONN_SLACK_API_DEFAULT", json.dumps(connection))

    return connect


@pytest.fixture(autouse=True)
def _the_token_is_never_told(caplog, capfd):
    caplog.set_level(logging.DEBUG)
    yield
    told = "".join([*capfd.readouterr(), *(str(vars(record)) for record in caplog.get_records("call"))])
    assert "s3cr3t" not in told


def test_a_picture_is_uploaded_and_shown_in_the_channel(slack, connect):
    connect(f"{slack.origin}/api/")
    assert open_pictures(CHANNEL).show(b"png", "bitcoin, 24 hours")
    assert list(slack.files) == [{"id": "F0001", "title": "bitcoin, 24 hours", "channel": CHANNEL, "content": b"png"}]


@pytest.mark.parametrize(
    ("token", "channel", "said"),
    [("wrong", CHANNEL, "not_authed"), (TOKEN, "#alerts", "channel_not_found")],
)
def test_what_slack_does_not_take_is_told_and_no_failure(slack, connect, caplog, token, channel, said):
    connect(f"{slack.origin}/api/", token)
    assert not open_pictures(channel).show(b"png", "bitcoin")
    assert caplog.messages[-1] == (
        f"the picture is not shown: Slack says {said}. Check the connection slack_api_default"
    )


class Torn(SandboxServer):
    """Hangs up, or answers what is no JSON."""

    def __init__(self, response):
        super().__init__()
        self._response = response

    def respond(self, _):
        return self._response


@pytest.mark.parametrize("response", [Response(200, b"", cut_after=-1), Response(200, b"<html>"), Response(503, b"")])
def test_a_slack_that_is_away_is_told_and_no_failure(connect, caplog, response):
    with Torn(response) as server:
        connect(f"{server.origin}/api/")
        assert not open_pictures(CHANNEL).show(b"png", "bitcoin")
    assert caplog.messages[-1].startswith("the picture is not shown: Slack ")


def test_pictures_need_a_token_and_a_channel(slack, connect, caplog):
    assert open_slack().pictures is None
    assert caplog.messages == []
    connect(f"{slack.origin}/api/")
    assert open_slack().pictures is None
    assert caplog.messages[-1].startswith("connection slack_api_default: pictures need the bot token as its password")
    connect(f"{slack.origin}/api/", channel=CHANNEL)
    assert open_slack().pictures.show(b"png", "bitcoin")
