"""`coinwatch doctor`, against the sandbox's services and a database of Airflow's own."""

import json
import os
from datetime import UTC, datetime, timedelta

import pytest

from coinwatch import doctor
from coinwatch.doctor import examine
from coinwatch.health import issues

PRO = "https://pro-api.coingecko.com/api/v3"


@pytest.fixture
def in_airflow(airflow_database):  # noqa: ARG001 - it exists
    """Add rows to Airflow's database for one test."""
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
    """An installation without faults, at the present of this machine."""
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


def findings(clock, *, post_message=False):
    """Make all checks, and return verdict and text by check."""
    return {check: found for check, *found in examine(clock, post_message=post_message)}


@pytest.mark.usefixtures("pool")
def test_a_healthy_installation_passes_every_check_and_nothing_is_left_behind(healthy, clock):
    found = findings(clock)
    checks = ["settings", "airflow", "key", "coingecko", "clock", "slack", "s3", "warehouse", "disk"]
    assert {check: verdict for check, (verdict, _) in found.items()} == dict.fromkeys(checks, "ok")
    data = healthy.settings.data_dir
    assert found["warehouse"][1].startswith(f"sqlite:///{data}/warehouse.db has schema ")
    assert len(healthy.coingecko.requests) == 1
    assert healthy.objects() == {}
    assert list(healthy.slack.messages) == []
    assert [path for path in data.rglob("*") if ".doctor" in path.name] == []


def test_it_posts_to_slack_only_if_asked_to(healthy, clock):
    assert findings(clock, post_message=True)["slack"][0] == "ok"
    assert len(healthy.slack.messages) == 1


def http(**values):
    return {"coingecko_default": {"conn_type": "http", **values}}


@pytest.mark.parametrize(
    ("connections", "check", "text"),
    [
        pytest.param(http(host=PRO, password="secret"), "key", "plan demo needs https://api.", id="demo key, pro host"),
        pytest.param(
            http(password="secret", extra={"plan": "pro"}), "key", f"plan pro needs {PRO}", id="pro key, public host"
        ),
        pytest.param(http(extra={"plan": "gold"}), "key", "allowed are demo and pro", id="unknown plan"),
        pytest.param(
            {"slack_default": {"conn_type": "slackwebhook", "host": "http://127.0.0.1:9", "password": "T0/B0/secret"}},
            "slack",
            "URLError",
            id="Slack is down",
        ),
        pytest.param(
            {"warehouse_default": {"conn_type": "mysql", "host": "x"}},
            "warehouse",
            "allowed are postgres and sqlite",
            id="unknown database",
        ),
        pytest.param(
            {"warehouse_default": {"conn_type": "postgres", "host": "127.0.0.1", "port": 9, "password": "secret"}},
            "warehouse",
            "Connection refused",
            id="warehouse is down",
        ),
    ],
)
@pytest.mark.usefixtures("healthy")
def test_a_wrong_connection_fails_its_check(clock, connect, connections, check, text):
    for conn_id, connection in connections.items():
        connect(conn_id, **connection)
    # The checks after it are not made: no request may leave loopback.
    found = next(found for name, *found in examine(clock, post_message=False) if name == check)
    assert (found[0], text in found[1]) == ("FAIL", True), found
    assert "secret" not in found[1]


def test_an_error_of_coingecko_fails_its_check_and_still_has_the_time(healthy, clock):
    healthy.coingecko.fail("wrong_host")
    found = findings(clock)
    assert (found["coingecko"][0], found["clock"][0]) == ("FAIL", "ok")


@pytest.mark.usefixtures("healthy")
def test_an_unknown_coin_is_a_warning_and_no_known_coin_a_failure(clock, monkeypatch):
    monkeypatch.setenv("COINWATCH_COINS", "bitcoin,gone")
    assert findings(clock)["coingecko"][0] == "warn"
    monkeypatch.setenv("COINWATCH_COINS", "gone")
    assert findings(clock)["coingecko"][0] == "FAIL"


@pytest.mark.parametrize(("minutes", "verdict"), [(1, "ok"), (-3, "FAIL")])
@pytest.mark.usefixtures("healthy")
def test_a_wrong_clock_fails_its_check(clock, minutes, verdict):
    here = clock.now + timedelta(minutes=minutes)
    found, text = findings(lambda: here)["clock"]
    assert (found, f"{abs(minutes) * 60} s" in text) == (verdict, True)


def test_open_issues_are_a_warning(healthy, clock):
    with healthy.warehouse().begin() as connection:
        issues.report(connection, "late", title="The run is late", detail="d", action="a", at=clock.now)
    verdict, text = findings(clock)["warehouse"]
    assert (verdict, "The run is late" in text) == ("warn", True)


def test_storage_that_ignores_write_once_fails_its_check(healthy, clock, monkeypatch):
    """As some S3-compatible servers do; here the client does not send the condition."""
    from coinwatch.s3.store import S3Store

    really_put = S3Store._put
    monkeypatch.setattr(S3Store, "_put", lambda store, key, body, **_: really_put(store, key, body))
    assert findings(clock)["s3"][0] == "FAIL"
    assert healthy.objects() == {}


@pytest.mark.usefixtures("healthy")
def test_without_a_bucket_or_slack_there_are_warnings(clock, monkeypatch):
    monkeypatch.delenv("COINWATCH_S3_BUCKET")
    monkeypatch.delenv("AIRFLOW_CONN_SLACK_DEFAULT")
    found = findings(clock)
    assert [found[check][0] for check in ("s3", "slack")] == ["warn", "warn"]


@pytest.mark.usefixtures("healthy")
def test_a_data_folder_that_is_not_usable_fails_its_check(clock, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COINWATCH_DATA_DIR", str(tmp_path / "file"))
    verdict, text = findings(clock)["disk"]
    assert (verdict, f"{tmp_path}/file/archive" in text) == ("FAIL", True)


def test_with_a_wrong_setting_no_other_check_is_made(clock, monkeypatch):
    monkeypatch.setenv("COINWATCH_COINS", "BTC")
    ((check, verdict, text),) = examine(clock, post_message=False)
    assert (check, verdict, "COINWATCH_COINS" in text) == ("settings", "FAIL", True)


@pytest.mark.usefixtures("healthy", "pool")
def test_connections_are_also_read_from_airflows_database(clock, in_airflow, monkeypatch):
    from airflow.models.connection import Connection

    for name in [name for name in os.environ if name.startswith("AIRFLOW_CONN_")]:
        in_airflow(Connection.from_json(os.environ[name], name.removeprefix("AIRFLOW_CONN_").lower()))
        monkeypatch.delenv(name)
    found = findings(clock)
    assert {verdict for verdict, _ in found.values()} == {"ok"}
    assert "secret" not in str(found)


@pytest.mark.parametrize(("coins", "status"), [("bitcoin", 0), ("BTC", 1)])
@pytest.mark.usefixtures("healthy", "pool")
def test_the_exit_status_says_whether_the_pipeline_works(monkeypatch, clock, coins, status):
    lines = []
    monkeypatch.setenv("COINWATCH_COINS", coins)
    monkeypatch.setattr("logging.disable", lambda _: None)
    assert doctor.run(lines.append, clock, post_message=False) == status
    assert lines[-1] == (f"{len(lines) - 1} checks: {status} failed, 0 with a warning")
