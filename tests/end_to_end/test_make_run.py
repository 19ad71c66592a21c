"""`make run ONCE=1`, as a newcomer's first command: the real scheduler, the real assets, the real clients."""

import ctypes
import json
import os
import random
import socket
import sqlite3
import subprocess
import sys
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime, timedelta

import psutil
import pytest

from coinwatch.sandbox.coingecko import CoinGeckoSandbox
from coinwatch.sandbox.market import SimulatedMarket

PR_SET_CHILD_SUBREAPER = 36


def free_ports(count):
    """Return the first of so many ports in a row that are free, below those that the kernel gives to connections."""
    while True:
        first = random.randrange(20_000, 32_000)  # noqa: S311 - no secret
        with ExitStack() as probes, suppress(OSError):
            for number in range(first, first + count):
                probes.enter_context(socket.socket()).bind(("127.0.0.1", number))
            return first


@pytest.fixture
def no_orphans():
    """Adopt what a run leaves behind, and fail if there is something; only on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = set(psutil.Process().children(recursive=True))
    yield
    left = set(psutil.Process().children(recursive=True)) - before
    assert [process.cmdline() for process in left if process.status() != psutil.STATUS_ZOMBIE] == []


def run_once(tmp_path, *options, **environ):
    """Run the first hour in folders of the test's own; return the output."""
    command = [sys.executable, "-m", "coinwatch.cli", "run", "--once", "--home", str(tmp_path / "home"), *options]
    own = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "COINWATCH"))}
    own |= {"COINWATCH_DATA_DIR": str(tmp_path / "data"), **environ}
    said = tmp_path / "said.txt"
    with said.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=own)
        try:
            process.wait(500)
        finally:
            process.terminate()
            process.wait(60)
    assert process.returncode == 0, said.read_text()[-9000:]
    return said.read_text()


def ask_airflow(tmp_path, home, query, *values):
    """Return rows of Airflow's own database."""
    with closing(sqlite3.connect(f"file:{tmp_path}/home/{home}/airflow.db?mode=ro", uri=True)) as airflow:
        return airflow.execute(query, values).fetchall()


@pytest.mark.usefixtures("no_orphans")
def test_the_first_hour_goes_all_the_way_and_the_asset_starts_the_second_dag(tmp_path):
    first = free_ports(4)
    said = run_once(
        tmp_path,
        COINWATCH_PORT=str(first + 3),
        COINWATCH_SANDBOX_PORT=str(first),
        COINWATCH_HISTORY_DAYS="30",
        # Simulated prices must not reach a real webhook of the user's environment.
        AIRFLOW_CONN_SLACK_DEFAULT="slackwebhook://:T%2FB%2Freal@https%3A%2F%2F127.0.0.1%3A9",
    )

    # watch_feed may have just started.
    query = "SELECT dag_id, run_type, state FROM dag_run WHERE dag_id <> 'watch_feed'"
    runs = ask_airflow(tmp_path, "sandbox", query)
    assert {state for *_, state in runs} == {"success"}
    assert ("process_prices", "asset_triggered", "success") in runs
    assert ("ingest_prices", "manual", "success") in runs

    data = tmp_path / "data" / "sandbox"
    with closing(sqlite3.connect(data / "warehouse.db")) as warehouse:
        # At some minutes of the hour the scheduled run polls the newest full hour.
        (hours,) = warehouse.execute("SELECT count(*) FROM prices WHERE ts LIKE '%:00:00Z'").fetchone()
        sources = {source for (source,) in warehouse.execute("SELECT DISTINCT source FROM prices")}
        alerts = warehouse.execute("SELECT rule, delivery FROM alerts").fetchall()
        waiting = warehouse.execute("SELECT count(*) FROM pending_uploads").fetchone()
    assert hours >= 30 * 24
    assert sources == {"live", "history"}
    assert alerts == [("move_1h", "delivered")]
    assert waiting == (0,)
    (message,) = [json.loads(line) for line in (data / "slack.jsonl").read_text().splitlines()]
    assert message["payload"]["text"].startswith("[SIMULATED] BTC")
    assert "SIMULATED" in said

    # With the sandbox and Airflow gone, the file is enough for Airflow's own commands.
    home = tmp_path / "home" / "sandbox"
    load = f"set -a; . '{home}/env'; set +a; exec '{sys.executable}' -m airflow connections get slack_default -o json"
    shown = subprocess.run(["/bin/sh", "-c", load], capture_output=True, text=True, check=True).stdout
    assert json.loads(shown)[0]["host"] == f"http://127.0.0.1:{first + 1}/services"
    pools = ask_airflow(tmp_path, "sandbox", "SELECT pool, slots FROM slot_pool WHERE pool != 'default_pool'")
    assert pools == [("coingecko", 2)]


@pytest.mark.usefixtures("no_orphans")
def test_a_rate_limit_is_waited_for_as_coingecko_says_and_one_more_request_is_made(tmp_path):
    """By Airflow itself: the first try has ended meanwhile, so its slot is free."""
    with CoinGeckoSandbox(SimulatedMarket(datetime.now(UTC)), clock=lambda: datetime.now(UTC)) as coingecko:
        coingecko.fail("rate_limited", times=1, retry_after=30, path="/simple/price")
        connection = {"conn_type": "http", "host": coingecko.url, "password": "a-demo-key"}
        run_once(
            tmp_path,
            "--live",
            COINWATCH_PORT=str(free_ports(1)),
            COINWATCH_HISTORY_DAYS="2",
            AIRFLOW_CONN_COINGECKO_DEFAULT=json.dumps(connection),
        )
        asked = [request.path for request in coingecko.requests if request.path.endswith("/simple/price")]
    manifest = (tmp_path / "data" / "archive" / "manifest.jsonl").read_text()
    entries = [json.loads(line) for line in manifest.splitlines()]
    live = [entry for entry in entries if "/simple/price?" in entry["request"]]
    # At some minutes of the hour the scheduled run polls, too.
    assert len(asked) == len(live)
    (refused,) = [entry for entry in live if "-refused-" in entry["name"]]
    assert (refused["status"], refused["headers"]["retry-after"]) == (429, "30")
    as_of = refused["name"].partition("-")[0]
    assert [entry["name"] for entry in live if entry["name"].startswith(as_of)] == [f"{as_of}-refused-1", as_of]
    assert "a-demo-key" not in manifest

    # The first; another run that meets the limit meanwhile waits for the rest of it.
    run_id, ended = ask_airflow(
        tmp_path,
        "live",
        "SELECT run_id, end_date FROM task_instance_history WHERE task_id = 'fetch_prices' ORDER BY end_date",
    )[0]
    ((number, state, queued),) = ask_airflow(
        tmp_path,
        "live",
        "SELECT try_number, state, queued_dttm FROM task_instance WHERE task_id = 'fetch_prices' AND run_id = ?",
        run_id,
    )
    assert (number, state) == (2, "success")
    assert datetime.fromisoformat(queued) - datetime.fromisoformat(ended) >= timedelta(seconds=30)
