"""Both Dags, run whole by `dag.test()`, against the sandbox's services."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)


@pytest.fixture(scope="module")
def airflow_database():
    """Airflow's own database, once for these tests."""
    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, capture_output=True)


@pytest.fixture
def connections(make_world, monkeypatch, clock):
    """The world of the sandbox, as Airflow's connections and our settings tell of it."""
    clock.now = datetime.now(UTC)
    world = make_world("dags")
    connections = {
        "coingecko_default": {"conn_type": "http", "host": world.coingecko.url, "extra": {"simulated": True}},
        "slack_default": {"conn_type": "slackwebhook", "host": world.slack.url, "password": "T0/B0/hidden"},
        "aws_default": {
            "conn_type": "aws",
            "login": "sandbox",
            "password": "sandbox",
            "extra": {"endpoint_url": world.s3.url, "region_name": "us-east-1"},
        },
    }
    for conn_id, connection in connections.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))
    monkeypatch.setenv("COINWATCH_DATA_DIR", str(world.settings.data_dir))
    monkeypatch.setenv("COINWATCH_S3_BUCKET", "prices")
    monkeypatch.setenv("COINWATCH_HISTORY_DAYS", "3")
    return world


def dags_test(dag_id, *logical_date):
    """`airflow dags test`, as people type it."""
    command = [sys.executable, "-m", "airflow", "dags", "test", dag_id, *logical_date]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


@pytest.mark.usefixtures("airflow_database")
def test_the_dags_run_as_a_whole_and_twice_is_the_same_as_once(connections):
    """For a past time: the price of its hour, three days of history, statistics and S3; then nothing more."""
    world = connections
    as_of = NOW.strftime("%Y-%m-%dT%H:%M:%S+00:00")
    world.clock.now = NOW + timedelta(minutes=20)
    said = dags_test("ingest_prices", as_of) + dags_test("process_prices", as_of)
    once = (world.files(), world.objects(), world.tables())
    rows = world.rows("price_statistics", "ts", "points_24h")
    assert len(rows) == 3 * 24
    assert set(once[0]) >= {"bitcoin_raw.csv", "bitcoin_processed.csv", "archive/manifest.jsonl"}
    assert {key.split("/")[0] for key in once[1]} == {"raw", "processed", "archive"}
    said += dags_test("ingest_prices", as_of)
    assert (world.files(), world.objects(), world.tables()) == once
    assert "hidden" not in said
