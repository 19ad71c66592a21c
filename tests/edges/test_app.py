import json

import pytest

from coinwatch.app import App, ConnectionProblem
from coinwatch.settings import load_settings


@pytest.fixture
def connect(monkeypatch):
    def connect(conn_id, **connection):
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))

    return connect


@pytest.fixture
def app(tmp_path):
    """A new app, as each task has one."""
    return lambda: App(load_settings(data_dir=tmp_path))


def test_without_connections_coingecko_is_keyless_and_nothing_else_is_configured(app):
    found = app()
    assert found.client.base_url == "https://api.coingecko.com/api/v3"
    assert (found.slack.alerts, found.slack.failures, found.s3, found.simulated) == (None, None, None, False)
    assert found.airflow_url == "http://localhost:8080"


def test_alerts_and_pipeline_issues_have_a_channel_each(app, connect):
    connect("slack_default", conn_type="slackwebhook", password="https://hooks.slack.com/services/T/B/alerts")
    assert app().slack.failures is None
    connect("slack_failures", conn_type="slackwebhook", password="https://hooks.slack.com/services/T/B/failures")
    slack = app().slack
    assert [webhook.client.url.rpartition("/")[2] for webhook in (slack.alerts, slack.failures)] == [
        "alerts",
        "failures",
    ]


@pytest.mark.parametrize(
    ("connection", "url"),
    [
        pytest.param(
            {"host": "https://pro-api.coingecko.com/api/v3/"}, "https://pro-api.coingecko.com/api/v3", id="url"
        ),
        pytest.param({"host": "proxy.local/api/v3", "port": 81}, "https://proxy.local:81/api/v3", id="host and port"),
        pytest.param({"host": "proxy.local/api", "schema": "http"}, "http://proxy.local/api", id="schema"),
        pytest.param({}, "https://api.coingecko.com/api/v3", id="only a key"),
    ],
)
def test_the_base_url_comes_from_the_connection(app, connect, connection, url):
    connect("coingecko_default", conn_type="http", password="k", **connection)
    assert app().client.base_url == url


@pytest.mark.parametrize(
    ("connection", "text"),
    [
        pytest.param({"extra": {"plan": "gold"}}, "allowed are demo and pro", id="plan"),
        pytest.param({"host": "x", "schema": "api/v3"}, "put the whole base URL into the host", id="schema"),
        pytest.param({"host": "https://me:secret@host/api/v3"}, "put the key into the password", id="key before host"),
        pytest.param({"host": "https://host/api/v3?key=secret"}, "put the key into the password", id="key in a query"),
    ],
)
def test_a_wrong_connection_to_coingecko_says_what_to_do(app, connect, connection, text):
    connect("coingecko_default", conn_type="http", **connection)
    with pytest.raises(ConnectionProblem) as error:
        app().client  # noqa: B018 - created at first use
    assert text in str(error.value)
    assert "secret" not in str(error.value)
    assert not error.value.retryable


@pytest.mark.parametrize(
    ("connection", "seconds"),
    [
        pytest.param(None, 12, id="no connection"),
        pytest.param({}, 12, id="no key"),
        pytest.param({"password": "k"}, 2, id="demo"),
        pytest.param({"password": "k", "extra": {"plan": "pro"}}, 0.24, id="pro"),
    ],
)
def test_requests_are_paced_by_the_plan(app, connect, connection, seconds):
    if connection is not None:
        connect("coingecko_default", conn_type="http", **connection)
    assert app().client.meter.interval.total_seconds() == seconds


def test_requests_are_paced_by_the_settings_first(app, monkeypatch):
    monkeypatch.setenv("COINWATCH_COINGECKO_PER_MINUTE", "60")
    assert app().client.meter.interval.total_seconds() == 1


def test_the_warehouse_is_in_the_data_folder_unless_its_connection_says_where(app, connect, tmp_path):
    assert app().warehouse_url == f"sqlite:///{tmp_path}/warehouse.db"
    connect("warehouse_default", conn_type="sqlite", host=f"{tmp_path}/elsewhere.db")
    assert app().warehouse.url.database == f"{tmp_path}/elsewhere.db"
    # SQLAlchemy's psycopg driver sends many rows as one batch.
    connect("warehouse_default", conn_type="postgres", host="db", login="me", password="p", schema="prices")
    assert app().warehouse_url == "postgresql+psycopg://me:p@db/prices"


@pytest.mark.parametrize(
    ("connection", "text"),
    [
        pytest.param({"conn_type": "sqlite"}, "the path of the SQLite file", id="no path"),
        pytest.param({"conn_type": "mysql"}, "allowed are postgres and sqlite", id="type"),
    ],
)
def test_a_wrong_connection_to_the_warehouse_says_what_to_do(app, connect, connection, text):
    connect("warehouse_default", **connection)
    with pytest.raises(ConnectionProblem, match=text):
        app().warehouse  # noqa: B018 - created at first use


def test_the_connections_values_for_s3_come_before_ours(app, connect, monkeypatch):
    """A server such as MinIO may find buckets by their path only."""
    monkeypatch.setenv("COINWATCH_S3_BUCKET", "prices")
    extra = {"endpoint_url": "http://minio:9000", "region_name": "us-east-1"}
    wanted = {"s3": {"addressing_style": "path"}, "read_timeout": 99}
    connect("aws_default", conn_type="aws", login="k", password="s", extra=extra | {"config_kwargs": wanted})
    config = app().s3._client.meta.config
    assert (config.s3["addressing_style"], config.read_timeout, config.connect_timeout) == ("path", 99, 10)
    connect("aws_default", conn_type="aws", login="k", password="s", extra=extra)
    assert app().s3._client.meta.config.read_timeout == 30


def test_the_sandbox_says_that_its_prices_are_simulated(app, connect):
    connect("coingecko_default", conn_type="http", extra={"simulated": True})
    assert app().simulated
