"""Slack sandboxes, webhooks to them, and alerts to deliver."""

import json
import logging
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert, select

from coinwatch.sandbox.slack import SlackSandbox
from coinwatch.slack.webhook import open_webhook
from coinwatch.warehouse import schema

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
TOKEN = "T0SECRET/B0SECRET/xyzSECRETxyz"


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
def store(warehouse, alert_row):
    """Store an alert of a price of ten o'clock: (id, hours after ten of its run, columns)."""

    def store(alert_id, hours=0, **columns):
        run = {"ts": TEN, "raised_at": TEN + timedelta(hours=hours), "run_id": f"run {hours}"}
        row = alert_row(alert_id, **run, incident_id=f"incident of {alert_id}")
        with warehouse.begin() as connection:
            connection.execute(insert(schema.alerts), row | columns)

    return store


@pytest.fixture
def deliveries(warehouse):
    """Read columns of all alerts, by id."""

    def read(*columns):
        with warehouse.begin() as connection:
            query = select(*(schema.alerts.c[name] for name in columns)).order_by(schema.alerts.c.id)
            return [tuple(row) for row in connection.execute(query)]

    return read
