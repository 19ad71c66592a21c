"""Both Dags, run whole by `dag.test()`, against the sandbox's services."""

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from coinwatch.sandbox.faults import Fault
from coinwatch.times import floor_hour


@pytest.fixture
def connections(make_world, monkeypatch, clock, airflow_database, tmp_path):
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
    # Of its own, because an asset keeps the place of its file that Airflow has seen first.
    shutil.copy(airflow_database, tmp_path / "airflow.db")
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", f"sqlite:///{tmp_path / 'airflow.db'}")
    for conn_id, connection in connections.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))
    monkeypatch.setenv("COINWATCH_DATA_DIR", str(world.settings.data_dir))
    monkeypatch.setenv("COINWATCH_S3_BUCKET", "prices")
    monkeypatch.setenv("COINWATCH_HISTORY_DAYS", "3")
    return world


def dags_test(dag_id, *logical_date, fails=False):
    """`airflow dags test`, as people type it."""
    command = [sys.executable, "-m", "airflow", "dags", "test", dag_id, *logical_date]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert bool(done.returncode) == fails, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def test_the_dags_run_as_a_whole_and_twice_is_the_same_as_once(connections):
    """For a past time: the price of its hour, three days of history, statistics and S3; then nothing more."""
    world = connections
    # An hour ago or a little more: whatever the clock says now, its price has to come from history.
    hour = floor_hour(world.clock.now) - timedelta(hours=1)
    as_of = hour.isoformat()
    said = dags_test("ingest_prices", as_of) + dags_test("process_prices", as_of)
    once = (world.files(), world.objects(), world.tables())
    times = [ts for (ts,) in world.rows("price_statistics", "ts")]
    assert times == [hour - timedelta(hours=number) for number in reversed(range(len(times)))]
    # Three days back from now, which is one or two hours later.
    assert 70 <= len(times) <= 72
    assert {source for (source,) in world.rows("prices", "source")} == {"history"}
    assert set(once[0]) >= {"bitcoin_raw.csv", "bitcoin_processed.csv", "archive/manifest.jsonl"}
    assert {key.split("/")[0] for key in once[1]} == {"raw", "processed", "archive"}
    said += dags_test("ingest_prices", as_of)
    assert (world.files(), world.objects(), world.tables()) == once
    assert "hidden" not in said


def test_a_failed_task_is_an_issue_until_a_later_run_succeeds(connections):
    world = connections
    as_of = floor_hour(world.clock.now).isoformat()
    world.coingecko.faults.append(Fault("key_rejected"))
    output = dags_test("ingest_prices", as_of, fails=True)
    failed = world.rows("pipeline_issues", "key", "state", "notified_state")
    assert ("task:ingest_prices.fetch_prices", "open", "open") in failed
    assert len(world.slack.messages) == len(failed)
    world.coingecko.faults.clear()
    output += dags_test("ingest_prices", as_of) + dags_test("process_prices", as_of) + dags_test("watch_feed", as_of)
    issues = world.rows("pipeline_issues", "key", "state", "notified_state")
    assert issues == [(key, "resolved", "resolved") for key, *_ in failed]
    heartbeat = json.loads((world.settings.data_dir / "heartbeat.json").read_bytes())
    assert (heartbeat["issues"], heartbeat["undelivered_alerts"]) == ([], 0)
    assert "hidden" not in output
