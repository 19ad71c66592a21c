"""`make run ONCE=1`, as a newcomer's first command: the real scheduler, the real assets, the real clients."""

import json
import os
import socket
import sqlite3
import subprocess
import sys
from contextlib import ExitStack, closing

import psutil
import pytest


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


def test_the_first_hour_goes_all_the_way_and_the_asset_starts_the_second_dag(tmp_path):
    first = free_ports(4)
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "COINWATCH"))},
        "COINWATCH_DATA_DIR": str(tmp_path / "data"),
        "COINWATCH_HISTORY_DAYS": "30",
        # A real webhook in the user's environment must not hear of simulated prices.
        "AIRFLOW_CONN_SLACK_DEFAULT": "slackwebhook://:T%2FB%2Freal@https%3A%2F%2F127.0.0.1%3A9",
    }
    command = [sys.executable, "-m", "coinwatch.cli", "run", "--once", "--home", str(tmp_path / "home")]
    command += ["--port", str(first + 3), "--sandbox-port", str(first)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ, timeout=500)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]

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
    assert "SIMULATED" in done.stdout

    left = [
        process.pid for process in psutil.process_iter(["environ"]) if str(tmp_path) in str(process.info["environ"])
    ]
    assert left == []
