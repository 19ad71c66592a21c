"""`coinwatch doctor`, against the sandbox's services and a database of Airflow's own."""

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from coinwatch import doctor
from coinwatch.doctor import Finding, examine

PRO = "https://pro-api.coingecko.com/api/v3"


@pytest.fixture
def in_airflow(airflow_database):  # noqa: ARG001 - it is there
    """Put something into Airflow's database, for one test."""
    from airflow.utils.session import create_session

    added = []

    def put(*things):
        added.extend(things)
        with create_session() as session:
            session.add_all(things)

    yield put
    with create_session() as session:
        for thing in added:
            session.delete(session.merge(thing))


@pytest.fixture
def pool(in_airflow):
    from airflow.models.pool import Pool

    in_airflow(Pool(pool="coingecko", slots=1, description="", include_deferred=False))


@pytest.fixture
def connect(monkeypatch):
    def connect(conn_id, **connection):
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))

    return connect


@pytest.fixture
def healthy(make_world, clock, connect, monkeypatch):
    """Everything is there and right; the clock of the services and of the machine is this one's."""
    clock.now = datetime.now(UTC).replace(microsecond=0)
    world = make_world("doctor")
    connect("coingecko_default", conn_type="http", host=world.coingecko.url, password="secret-key")
    connect("slack_default", conn_type="slackwebhook", host=world.slack.url, password="T0/B0/secret-hook")
    keys = {"login": "sandbox", "password": "secret-s3"}
    connect("aws_default", conn_type="aws", **keys, extra={"endpoint_url": world.s3.url, "region_name": "us-east-1"})
    monkeypatch.setenv("COINWATCH_DATA_DIR", str(world.settings.data_dir))
    monkeypatch.setenv("COINWATCH_S3_BUCKET", "prices")
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    return world


def findings(clock, **options):
    return {finding.check: finding for finding in examine(clock, **{"post_message": False, **options})}


def test_where_all_is_right_every_check_says_so_and_nothing_is_left_behind(healthy, clock, pool):  # noqa: ARG001 - it is there
    found = findings(clock)
    assert {check: finding.verdict for check, finding in found.items()} == dict.fromkeys(
        ["settings", "airflow", "key", "clock", "coingecko", "budget", "slack", "s3", "warehouse", "disk"], "ok"
    )
    data = healthy.settings.data_dir
    assert found["settings"].text == f"bitcoin in usd; 90 days of history; data in {data}"
    assert found["airflow"].text.startswith("its database answers, and its pool coingecko has 1 slots")
    assert found["key"].text == f"a demo key for {healthy.coingecko.url}"
    assert re.fullmatch(r"1 of 1 coins have a price: bitcoin [0-9.]+", found["coingecko"].text)
    assert found["clock"].text == "0 s off CoinGecko's"
    assert found["budget"].text.startswith("1 requests to CoinGecko this month")
    assert found["slack"].text == "slack_default would take messages; nothing was posted (--post sends a test message)"
    assert found["s3"].text == "s3://prices/ can be written, and refuses to write once twice"
    assert found["warehouse"].text.startswith(f"sqlite:///{data}/warehouse.db has schema ")
    assert found["warehouse"].text.endswith("and no price yet")
    assert len(healthy.coingecko.requests) == 1
    assert healthy.objects() == {}
    assert list(healthy.slack.messages) == []
    assert [path for path in data.rglob("*") if path.name.startswith(".doctor")] == []


def test_it_posts_to_slack_only_if_asked_to(healthy, clock):
    assert findings(clock, post_message=True)["slack"] == Finding("slack", "ok", "slack_default took a test message")
    (message,) = healthy.slack.messages
    assert message["payload"]["text"] == "Coinwatch: a test message, asked for by `coinwatch doctor --post`."


@pytest.mark.parametrize(
    ("change", "check", "text"),
    [
        pytest.param(
            {"coingecko_default": {"conn_type": "http", "host": PRO, "password": "secret-key"}},
            "key",
            (
                "connection coingecko_default: a demo key goes with https://api.coingecko.com/api/v3, but the host is "
                f'{PRO}: correct the host, or "plan" in the extra'
            ),
            id="a demo key for the host of the paid plans",
        ),
        pytest.param(
            {"coingecko_default": {"conn_type": "http", "password": "secret-key", "extra": {"plan": "pro"}}},
            "key",
            (
                f"connection coingecko_default: a pro key goes with {PRO}, but the host is "
                'https://api.coingecko.com/api/v3: correct the host, or "plan" in the extra'
            ),
            id="a paid key for the public host",
        ),
        pytest.param(
            {"coingecko_default": {"conn_type": "http", "extra": {"plan": "gold"}}},
            "key",
            "connection coingecko_default: \"plan\" in its extra is 'gold'; allowed are demo and pro",
            id="no plan",
        ),
        pytest.param(
            {
                "slack_default": {
                    "conn_type": "slackwebhook",
                    "host": "http://127.0.0.1:9",
                    "password": "T0/B0/secret-hook",
                }
            },
            "slack",
            "Slack cannot be reached (URLError); the alerts are kept, and sent again later",
            id="no Slack",
        ),
        pytest.param(
            {"warehouse_default": {"conn_type": "mysql", "host": "x"}},
            "warehouse",
            "connection warehouse_default is of type 'mysql'; allowed are postgres and sqlite",
            id="no warehouse",
        ),
        pytest.param(
            {"warehouse_default": {"conn_type": "postgres", "host": "127.0.0.1", "port": 9, "password": "secret-db"}},
            "warehouse",
            (
                "its database does not answer: (psycopg.OperationalError) connection failed: connection to server at "
                '"127.0.0.1", port 9 failed: Connection refused'
            ),
            id="a warehouse that is down",
        ),
    ],
)
def test_what_is_wrong_with_a_connection_stands_in_its_line(healthy, clock, connect, change, check, text):  # noqa: ARG001 - it is there
    for conn_id, connection in change.items():
        connect(conn_id, **connection)
    # What comes after the line is not looked at: nothing but loopback may be asked.
    found = next(each for each in examine(clock, post_message=False) if each.check == check)
    assert (found.verdict, found.text.partition("\n")[0]) == ("FAIL", text)
    assert "secret" not in str(found)


def test_an_error_of_coingecko_is_told_as_it_is(healthy, clock):
    healthy.coingecko.fail("wrong_host")
    found = findings(clock)
    assert found["coingecko"].verdict == "FAIL"
    assert "The API key and the host do not belong together" in found["coingecko"].text
    assert found["clock"].verdict == "ok"


def test_a_coin_that_is_not_known_is_a_warning_and_no_known_coin_a_failure(healthy, clock, monkeypatch):  # noqa: ARG001 - it is there
    monkeypatch.setenv("COINWATCH_COINS", "bitcoin,gone")
    found = findings(clock)["coingecko"]
    assert found.verdict == "warn"
    assert found.text.startswith("1 of 2 coins have a price; gone: CoinGecko does not know this id (any more): correct")
    monkeypatch.setenv("COINWATCH_COINS", "gone")
    assert findings(clock)["coingecko"].verdict == "FAIL"


@pytest.mark.parametrize(
    ("minutes", "verdict"), [pytest.param(1, "ok", id="a minute"), pytest.param(-3, "FAIL", id="three minutes")]
)
def test_a_clock_that_is_wrong_is_found(healthy, clock, minutes, verdict):  # noqa: ARG001 - it is there
    here = clock.now + timedelta(minutes=minutes)
    found = findings(lambda: here)["clock"]
    assert found.verdict == verdict
    assert f"{abs(minutes) * 60} s" in found.text


def test_a_storage_that_ignores_write_once_is_found(healthy, clock, monkeypatch):
    """As some that speak S3 do; here the condition is lost on the way."""
    from coinwatch.s3.store import S3Store

    really_put = S3Store._put
    monkeypatch.setattr(S3Store, "_put", lambda store, key, body, **_: really_put(store, key, body))
    found = findings(clock)["s3"]
    assert found.verdict == "FAIL"
    assert "ignores If-None-Match, so a snapshot could be overwritten" in found.text
    assert healthy.objects() == {}


def test_without_a_bucket_or_slack_the_pipeline_works_and_less_than_it_could(healthy, clock, monkeypatch):  # noqa: ARG001 - it is there
    monkeypatch.delenv("COINWATCH_S3_BUCKET")
    monkeypatch.delenv("AIRFLOW_CONN_SLACK_DEFAULT")
    found = findings(clock)
    assert [found[check].verdict for check in ("s3", "slack")] == ["warn", "warn"]


def test_a_data_folder_that_cannot_be_used_is_named_with_the_fix(healthy, clock, monkeypatch, tmp_path):  # noqa: ARG001 - it is there
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COINWATCH_DATA_DIR", str(tmp_path / "file"))
    found = findings(clock)["disk"]
    assert found.verdict == "FAIL"
    assert found.text.startswith(f"{tmp_path}/file/archive cannot be used (Not a directory)")


def test_a_wrong_setting_is_all_that_is_told(clock, monkeypatch):
    monkeypatch.setenv("COINWATCH_HISTORY_DAYS", "1000")
    (finding,) = examine(clock, post_message=False)
    assert finding.verdict == "FAIL"
    assert finding.text.startswith("COINWATCH_HISTORY_DAYS='1000': 2 to 365 days are allowed")


def test_the_command_reads_connections_from_airflows_database(healthy, clock, pool, in_airflow):  # noqa: ARG001 - it is there
    """As an operator types it, in a process of its own."""
    from airflow.models.connection import Connection

    environ = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_CONN_")}
    for name in set(os.environ) - set(environ):
        in_airflow(Connection.from_json(os.environ[name], name.removeprefix("AIRFLOW_CONN_").lower()))
    command = [sys.executable, "-m", "coinwatch.cli", "doctor"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == ["ok"] * 10, done.stdout + done.stderr
    assert lines[-1] == "10 checks: 0 failed, 0 with a warning"
    assert done.returncode == 0
    assert "secret" not in done.stdout + done.stderr


def test_a_failure_is_the_exit_status(monkeypatch, clock):
    said = []
    monkeypatch.setenv("COINWATCH_COINS", "BTC")
    monkeypatch.setattr("logging.disable", lambda _: None)
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    assert doctor.run(said.append, clock, post_message=False) == 1
    assert said[-1] == "1 checks: 1 failed, 0 with a warning"
