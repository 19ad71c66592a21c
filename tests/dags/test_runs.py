"""The Dags, run whole by `airflow dags test`, against the sandbox's services."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from coinwatch.sandbox.faults import Fault
from coinwatch.times import floor_hour


@pytest.fixture
def connections(make_world, monkeypatch, clock, airflow_database, tmp_path):
    """The world of the sandbox, as Airflow's connections and our settings describe it."""
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
    # A database of its own: Airflow keeps the URI that it has first seen for an asset.
    database = shutil.copy(airflow_database, tmp_path / "airflow.db")
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", f"sqlite:///{database}")
    for conn_id, connection in connections.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))
    monkeypatch.setenv("COINWATCH_DATA_DIR", str(world.settings.data_dir))
    monkeypatch.setenv("COINWATCH_S3_BUCKET", "prices")
    monkeypatch.setenv("COINWATCH_HISTORY_DAYS", "3")
    # No event starts a Dag that is paused.
    monkeypatch.setenv("AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION", "False")
    return world


def airflow(*arguments, fails=False):
    """Run a command as people type it."""
    command = [sys.executable, "-m", "airflow", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert bool(done.returncode) == fails, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def events(tmp_path):
    """The asset events so far, and the Dags that the scheduler would start because of them."""
    with closing(sqlite3.connect(tmp_path / "airflow.db")) as database:
        query = (
            "SELECT asset.name, event.extra, event.source_task_id FROM asset_event event "
            "JOIN asset ON asset.id = event.asset_id ORDER BY event.id"
        )
        happened = [(name, json.loads(extra), task) for name, extra, task in database.execute(query)]
        queued = {dag_id for (dag_id,) in database.execute("SELECT target_dag_id FROM asset_dag_run_queue")}
        return happened, queued


def test_the_dags_run_as_a_whole_and_twice_is_the_same_as_once(connections, tmp_path):
    """For a past time: the price of its hour, three days of history, statistics and S3; then nothing more."""
    world = connections
    # An hour ago or a little more: its price has to come from history.
    hour = floor_hour(world.clock.now) - timedelta(hours=1)
    as_of = hour.isoformat()
    # The scheduler starts a Dag by an asset once it knows it.
    airflow("dags", "reserialize")
    said = airflow("dags", "test", "ingest_prices", as_of)
    happened, queued = events(tmp_path)
    # The two tasks depend on nothing of each other.
    missing, raw = sorted(happened)
    assert raw[0] == "raw_prices"
    assert raw[1] == {"coins": ["bitcoin"], "rows": 1, "hours": [as_of.replace("+00:00", "Z")]}
    assert (missing[0], missing[2]) == ("missing_hours", "find_gaps")
    assert missing[1]["coins"] == 1
    assert queued == {"heal_history", "process_prices"}
    said += airflow("dags", "test", "heal_history") + airflow("dags", "test", "process_prices")
    once = (world.files(), world.objects(), world.tables())
    times = [ts for (ts,) in world.rows("price_statistics", "ts")]
    assert times == [hour - timedelta(hours=number) for number in reversed(range(len(times)))]
    # Three days back from now, which is one or two hours later.
    assert 70 <= len(times) <= 72
    assert {source for (source,) in world.rows("prices", "source")} == {"history"}
    assert set(once[0]) >= {"bitcoin_raw.csv", "bitcoin_processed.csv", "archive/manifest.jsonl"}
    assert {key.split("/")[0] for key in once[1]} == {"raw", "processed", "archive"}
    assert [name for name, _, _ in events(tmp_path)[0][2:]] == ["raw_prices", "processed_prices", "s3_prices"]
    said += airflow("dags", "test", "ingest_prices", as_of)
    assert (world.files(), world.objects(), world.tables()) == once
    # Nothing is missing any more.
    assert [name for name, _, _ in events(tmp_path)[0][5:]] == ["raw_prices"]
    assert "hidden" not in said


def test_a_failed_task_is_an_issue_until_a_later_run_succeeds(connections):
    world = connections
    as_of = floor_hour(world.clock.now).isoformat()
    world.coingecko.faults.append(Fault("key_rejected"))
    output = airflow("dags", "test", "ingest_prices", as_of, fails=True)
    failed = world.rows("pipeline_issues", "key", "state", "notified_state")
    assert ("task:ingest_prices.fetch_prices", "open", "open") in failed
    assert len(world.slack.messages) == len(failed)
    world.coingecko.faults.clear()
    for dag_id in ("ingest_prices", "process_prices", "watch_feed"):
        output += airflow("dags", "test", dag_id, as_of)
    issues = world.rows("pipeline_issues", "key", "state", "notified_state")
    assert issues == [(key, "resolved", "resolved") for key, *_ in failed]
    heartbeat = json.loads((world.settings.data_dir / "heartbeat.json").read_bytes())
    assert (heartbeat["issues"], heartbeat["undelivered_alerts"]) == ([], 0)
    assert "hidden" not in output
