import json
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from coinwatch.connections import (
    ConnectionProblem,
    airflow_url,
    as_of_time,
    open_coingecko,
    open_default_warehouse,
    open_s3,
    open_slack,
    prices_are_simulated,
)

from coinwatch.settings import load_settings
from coinwatch.slack.deliver import Slack


@pytest.fixture
def connect(monkeypatch):
    def connect(conn_id, **connection):
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))

    return connect


def open_client():
    def no_warehouse():
        raise AssertionError("nothing was asked, so nothing is counted")

    return open_coingecko(load_settings(), no_warehouse)


@pytest.mark.parametrize(
    ("logical_date", "run_after", "as_of"),
    [
        pytest.param(
            "2026-11-22T10:00:00+00:00", "2026-11-22T10:00:09+00:00", "2026-11-22T10:00:00+00:00", id="logical"
        ),
        pytest.param(None, "2026-11-22T10:23:45.678+00:00", "2026-11-22T10:23:45+00:00", id="triggered"),
        pytest.param("2026-11-22T12:00:00+02:00", None, "2026-11-22T10:00:00+00:00", id="another zone"),
    ],
)
def test_the_as_of_time_of_a_run(logical_date, run_after, as_of):
    read = {"logical_date": logical_date, "run_after": run_after}
    run = SimpleNamespace(**{name: datetime.fromisoformat(text) if text else None for name, text in read.items()})
    assert as_of_time(run) == datetime.fromisoformat(as_of)
    assert as_of_time(run).tzinfo is UTC


def test_without_connections_coingecko_is_asked_keyless_and_nothing_else_is_there():
    assert open_client().base_url == "https://api.coingecko.com/api/v3"
    assert open_slack() == Slack()
    assert open_s3() is None
    assert not prices_are_simulated()
    assert airflow_url() == "http://localhost:8080"


def test_alerts_and_troubles_have_a_channel_each(connect):
    connect("slack_default", conn_type="slackwebhook", password="https://hooks.slack.com/services/T/B/alerts")
    assert open_slack().failures is None
    connect("slack_failures", conn_type="slackwebhook", password="https://hooks.slack.com/services/T/B/failures")
    slack = open_slack()
    assert [webhook.url.rpartition("/")[2] for webhook in (slack.alerts, slack.failures)] == ["alerts", "failures"]


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
def test_the_base_url_comes_from_the_connection(connect, connection, url):
    connect("coingecko_default", conn_type="http", password="k", **connection)
    assert open_client().base_url == url


@pytest.mark.parametrize(
    ("connection", "said"),
    [
        pytest.param(
            {"extra": {"plan": "gold"}}, "\"plan\" in its extra is 'gold'; allowed are demo and pro", id="plan"
        ),
        pytest.param({"host": "x", "schema": "api/v3"}, "put the whole base URL into the host", id="schema"),
        pytest.param({"host": "https://me:secret@host/api/v3"}, "put the key into the password", id="key before host"),
        pytest.param({"host": "https://host/api/v3?x_cg_demo_api_key=k"}, "put the key into the password", id="key"),
    ],
)
def test_a_connection_that_cannot_be_used_says_why(connect, connection, said):
    connect("coingecko_default", conn_type="http", **connection)
    with pytest.raises(ConnectionProblem) as failure:
        open_client()
    assert said in str(failure.value)
    assert "secret" not in str(failure.value)


@pytest.mark.parametrize(
    ("connection", "seconds"),
    [
        pytest.param(None, 12, id="no connection"),
        pytest.param({}, 12, id="no key"),
        pytest.param({"password": "k"}, 2, id="demo"),
        pytest.param({"password": "k", "extra": {"plan": "pro"}}, 0.24, id="pro"),
    ],
)
def test_requests_are_as_far_apart_as_the_plan_wants(connect, connection, seconds):
    if connection is not None:
        connect("coingecko_default", conn_type="http", **connection)
    assert open_client().meter.interval.total_seconds() == seconds


def test_requests_are_as_far_apart_as_the_settings_want(monkeypatch):
    monkeypatch.setenv("COINWATCH_COINGECKO_PER_MINUTE", "60")
    assert open_client().meter.interval.total_seconds() == 1


def test_the_warehouse_lies_in_the_data_folder_unless_its_connection_says_where(connect, tmp_path):
    settings = load_settings(data_dir=tmp_path)
    assert open_default_warehouse(settings).url.database == f"{tmp_path}/warehouse.db"
    connect("warehouse_default", conn_type="sqlite", host=f"{tmp_path}/elsewhere.db")
    assert open_default_warehouse(settings).url.database == f"{tmp_path}/elsewhere.db"
    connect("warehouse_default", conn_type="sqlite")
    with pytest.raises(ConnectionProblem, match="has to be the path of the SQLite file"):
        open_default_warehouse(settings)
    connect("warehouse_default", conn_type="mysql")
    with pytest.raises(ConnectionProblem, match="is of type 'mysql'; allowed are postgres and sqlite"):
        open_default_warehouse(settings)


def test_the_warehouse_can_be_on_postgresql(connect, postgres, tmp_path):
    """And there the driver is the one that sends many rows as one batch."""
    database = postgres.new_database().partition("?")[0].rpartition("/")[2]
    socket = {"sqlalchemy_query": {"host": str(postgres.folder)}}
    connect("warehouse_default", conn_type="postgres", login="tests", schema=database, extra=socket)
    engine = open_default_warehouse(load_settings(data_dir=tmp_path))
    assert (engine.url.drivername, engine.url.database) == ("postgresql+psycopg", database)
    engine.dispose()


def test_what_the_connection_asks_of_the_s3_client_goes_before_ours(connect, monkeypatch):
    """A server of one's own, such as MinIO, may know buckets only by their path."""
    monkeypatch.setenv("COINWATCH_S3_BUCKET", "prices")
    extra = {"endpoint_url": "http://minio:9000", "region_name": "us-east-1"}
    wanted = {"s3": {"addressing_style": "path"}, "read_timeout": 99}
    connect("aws_default", conn_type="aws", login="k", password="s", extra=extra | {"config_kwargs": wanted})
    config = open_s3()._client.meta.config
    assert (config.s3["addressing_style"], config.read_timeout, config.connect_timeout) == ("path", 99, 10)
    connect("aws_default", conn_type="aws", login="k", password="s", extra=extra)
    assert open_s3()._client.meta.config.read_timeout == 30


def test_the_sandbox_says_that_its_prices_are_simulated(connect):
    connect("coingecko_default", conn_type="http", extra={"simulated": True})
    assert prices_are_simulated()
