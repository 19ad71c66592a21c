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


def test_without_connections_coingecko_is_keyless_and_nothing_else_is_configured(app, connect):
    found = app()
    assert found.client.base_url == "https://api.coingecko.com/api/v3"
    assert (found.slack.alerts, found.slack.failures, found.s3, found.simulated) == (None, None, None, False)
    assert found.airflow_url == "http://localhost:8080"
    connect("coingecko_default", conn_type="http", extra={"simulated": True})
    assert app().simulated


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
        pytest.param({"host": "https://proxy.local/api/v3/"}, "https://proxy.local/api/v3", id="url"),
        pytest.param({}, "https://api.coingecko.com/api/v3", id="only a key"),
    ],
)
def test_the_base_url_comes_from_the_connection(app, connect, connection, url):
    connect("coingecko_default", conn_type="http", password="k", **connection)
    assert app().client.base_url == url


@pytest.mark.parametrize(
    ("client", "connection", "text"),
    [
        pytest.param("client", {"extra": {"plan": "gold"}}, "allowed are demo and pro", id="plan"),
        pytest.param("client", {"host": "x/api/v3"}, "the whole base URL into the host", id="no scheme"),
        pytest.param("client", {"host": "https://x", "port": 81}, "the whole base URL into the host", id="port"),
        pytest.param("client", {"host": "https://me:secret@host"}, "the key into the password", id="key before host"),
        pytest.param("client", {"host": "https://host?key=secret"}, "the key into the password", id="key in a query"),
        pytest.param("warehouse", {"conn_type": "sqlite"}, "the path of the SQLite file", id="no path"),
        pytest.param("warehouse", {"conn_type": "mysql"}, "allowed are postgres and sqlite", id="database"),
    ],
)
def test_a_wrong_connection_says_what_to_do(app, connect, client, connection, text):
    conn_id = {"client": "coingecko_default", "warehouse": "warehouse_default"}[client]
    connect(conn_id, **{"conn_type": "http", **connection})
    with pytest.raises(ConnectionProblem) as error:
        getattr(app(), client)
    assert text in str(error.value)
    assert "secret" not in str(error.value)
    assert not error.value.retryable


def test_requests_are_paced_by_the_plan_unless_the_settings_do(app, connect, monkeypatch):
    def interval():
        return app().client.meter.interval.total_seconds()

    assert interval() == 12
    connect("coingecko_default", conn_type="http")
    assert interval() == 12, "without a key"
    connect("coingecko_default", conn_type="http", password="k")
    assert interval() == 2, "demo"
    connect("coingecko_default", conn_type="http", password="k", extra={"plan": "pro"})
    assert interval() == 0.24
    monkeypatch.setenv("COINWATCH_COINGECKO_PER_MINUTE", "60")
    assert interval() == 1


def test_the_warehouse_is_in_the_data_folder_unless_its_connection_says_where(app, connect, tmp_path):
    assert app().warehouse_url == f"sqlite:///{tmp_path}/warehouse.db"
    connect("warehouse_default", conn_type="sqlite", host=f"{tmp_path}/elsewhere.db")
    assert app().warehouse.url.database == f"{tmp_path}/elsewhere.db"
    # SQLAlchemy's psycopg driver sends many rows as one batch.
    connect("warehouse_default", conn_type="postgres", host="db", login="me", password="p", schema="prices")
    assert app().warehouse_url == "postgresql+psycopg://me:p@db/prices"


def test_the_connections_values_for_s3_win(app, connect, monkeypatch):
    """MinIO, for example, may need buckets in the path."""
    monkeypatch.setenv("COINWATCH_S3_BUCKET", "prices")
    extra = {"endpoint_url": "http://minio:9000", "region_name": "us-east-1"}
    wanted = {"s3": {"addressing_style": "path"}, "read_timeout": 99}
    connect("aws_default", conn_type="aws", login="k", password="s", extra=extra | {"config_kwargs": wanted})
    config = app().s3._client.meta.config
    assert (config.s3["addressing_style"], config.read_timeout, config.connect_timeout) == ("path", 99, 10)
    connect("aws_default", conn_type="aws", login="k", password="s", extra=extra)
    assert app().s3._client.meta.config.read_timeout == 30
