"""Slack sandboxes, webhooks to them, and alerts to deliver."""

import json
import logging
from datetime import UTC, datetime

import pytest

from coinwatch.sandbox.slack import SlackSandbox
from coinwatch.slack.outbox import Alert
from coinwatch.slack.webhook import open_webhook

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
TOKEN = "T0SECRET/B0SECRET/xyzSECRETxyz"


@pytest.fixture
def warehouse_url(tmp_path):
    """An SQLite warehouse; PostgreSQL is covered by the tests of the pipeline."""
    return f"sqlite:///{tmp_path / 'warehouse.db'}"


@pytest.fixture
def slack(clock):
    """The Slack of the alerts' channel."""
    with SlackSandbox(clock=clock) as sandbox:
        yield sandbox


@pytest.fixture
def failures(clock):
    """The Slack of the failures' channel."""
    with SlackSandbox(clock=clock) as sandbox:
        yield sandbox


@pytest.fixture
def connect(monkeypatch):
    """Make a connection, and open its webhook: (host, connection id, token)."""

    def connect(host, conn_id="slack_default", token=TOKEN):
        connection = {"conn_type": "slackwebhook", "host": host, "password": token}
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))
        return open_webhook(conn_id)

    return connect


@pytest.fixture(autouse=True)
def _no_secret_is_logged(caplog, capfd):
    caplog.set_level(logging.DEBUG)
    yield
    output = "".join([*capfd.readouterr(), *(str(vars(record)) for record in caplog.get_records("call"))])
    assert not [secret for secret in (*TOKEN.split("/"), "s3cr3t") if secret in output]


@pytest.fixture
def alert():
    """An alert of a move of an hour."""
    return Alert(
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
