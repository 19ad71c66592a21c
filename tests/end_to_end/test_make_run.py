"""`make run ONCE=1`, as a newcomer's first command: the real scheduler, the real assets, the real clients."""

import json
import os
import socket
import sqlite3
import subprocess
import sys
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta

import psutil
import pytest

from coinwatch.sandbox.coingecko import CoinGeckoSandbox
from coinwatch.sandbox.market import SimulatedMarket


def free_ports(count):
    """The first of so many ports in a row that nobody listens on."""
    for _ in range(100):
        with ExitStack() as probes:
            first = 0
            try:
                for number in range(count):
                    probe = probes.enter_context(socket.socket())
                    probe.bind(("127.0.0.1", first + number if first else 0))
                    first = first or probe.getsockname()[1]
            except (OSError, OverflowError):
                continue
            return first
    pytest.fail("no free ports")


def run_once(tmp_path, *options, **environ):
    """The first hour, in folders of the test's own; what was said."""
    command = [sys.executable, "-m", "coinwatch.cli", "run", "--once", "--home", str(tmp_path / "home"), *options]
    own = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "COINWATCH"))}
    own |= {"COINWATCH_DATA_DIR": str(tmp_path / "data"), **environ}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=own, timeout=500)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    return done.stdout


def test_the_first_hour_goes_all_the_way_and_the_asset_starts_the_second_dag(tmp_path):
    first = free_ports(4)
    said = run_once(
        tmp_path,
        *("--port", str(first + 3), "--sandbox-port", str(first)),
        COINWATCH_HISTORY_DAYS="30",
        # A real webhook in the user's environment must not hear of simulated prices.
        AIRFLOW_CONN_SLACK_DEFAULT="slackwebhook://:T%2FB%2Freal@https%3A%2F%2F127.0.0.1%3A9",
    )

    with closing(sqlite3.connect(tmp_path / "home" / "sandbox" / "airflow.db")) as airflow:
        runs = airflow.execute("SELECT dag_id, run_type, state FROM dag_run").fetchall()
    assert {state for *_, state in runs} == {"success"}
    assert ("process_prices", "asset_triggered", "success") in runs
    assert ("ingest_prices", "manual", "success") in runs

    data = tmp_path / "data" / "sandbox"
    with closing(sqlite3.connect(data / "warehouse.db")) as warehouse:
        (history,) = warehouse.execute("SELECT count(*) FROM prices WHERE source = 'history'").fetchone()
        alerts = warehouse.execute("SELECT rule, delivery FROM alerts").fetchall()
        waiting = warehouse.execute("SELECT count(*) FROM pending_uploads").fetchone()
    assert history >= 30 * 24
    assert alerts == [("move_1h", "delivered")]
    assert waiting == (0,)
    (message,) = [json.loads(line) for line in (data / "slack.jsonl").read_text().splitlines()]
    assert message["payload"]["text"].startswith("[SIMULATED] BTC")
    assert "SIMULATED" in said

    left = [
        process.pid for process in psutil.process_iter(["environ"]) if str(tmp_path) in str(process.info["environ"])
    ]
    assert left == []


def test_a_rate_limit_is_waited_for_as_coingecko_says_and_one_more_request_is_made(tmp_path):
    """By Airflow itself: the task is up for retry meanwhile, and its slot is free."""
    now = datetime.now(UTC)
    with CoinGeckoSandbox(SimulatedMarket(now), clock=lambda: datetime.now(UTC)) as coingecko:
        coingecko.fail("rate_limited", times=1, retry_after=30, path="/simple/price")
        connection = {"conn_type": "http", "host": coingecko.url, "password": "a-demo-key"}
        run_once(
            tmp_path,
            *("--live", "--port", str(free_ports(1))),
            COINWATCH_HISTORY_DAYS="2",
            AIRFLOW_CONN_COINGECKO_DEFAULT=json.dumps(connection),
        )
        asked = [request.path for request in coingecko.requests if request.path.endswith("/simple/price")]
    assert len(asked) == 2
    with closing(sqlite3.connect(tmp_path / "home" / "live" / "airflow.db")) as airflow:
        tries = """SELECT try_number, state, start_date, end_date FROM {table}
            WHERE dag_id = 'ingest_prices' AND task_id = 'fetch_prices'"""
        (first,) = airflow.execute(tries.format(table="task_instance_history")).fetchall()
        (second,) = airflow.execute(tries.format(table="task_instance")).fetchall()
    assert (first[0], first[1]) == (1, "up_for_retry")
    assert (second[0], second[1]) == (2, "success")
    assert datetime.fromisoformat(second[2]) - datetime.fromisoformat(first[3]) >= timedelta(seconds=30)
    manifest = (tmp_path / "data" / "archive" / "manifest.jsonl").read_text()
    refused = [json.loads(line) for line in manifest.splitlines() if "-refused-1" in line]
    assert [(entry["status"], entry["headers"]["retry-after"]) for entry in refused] == [(429, "30")]
    assert "a-demo-key" not in manifest
