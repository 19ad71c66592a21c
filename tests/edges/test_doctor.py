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
def in_airflow():
    """Add rows to Airflow's database for one test; of its tables those that are read suffice."""
    from airflow import settings
    from airflow.models.base import Base
    from airflow.models.connection import Connection
    from airflow.models.pool import Pool
    from airflow.models.team import Team
    from airflow.utils.session import create_session

    Base.metadata.create_all(settings.engine, tables=[model.__table__ for model in (Team, Connection, Pool)])
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
    assert findings(clock, post_message=True)["slack"][0] == "ok"
    assert len(healthy.slack.messages) == 1


@pytest.mark.parametrize(
    ("conn_id", "connection", "check", "text"),
    [
        pytest.param(
            "coingecko", {"host": PRO, "password": "secret"}, "key", "plan demo needs https://api.", id="demo"
        ),
        pytest.param(
            "coingecko", {"password": "secret", "extra": {"plan": "pro"}}, "key", f"plan pro needs {PRO}", id="pro"
        ),
        pytest.param("coingecko", {"extra": {"plan": "gold"}}, "key", "allowed are demo and pro", id="unknown plan"),
        pytest.param(
            "slack",
            {"conn_type": "slackwebhook", "host": "http://127.0.0.1:9", "password": "T0/B0/secret"},
            "slack",
            "URLError",
            id="Slack is down",
        ),
        pytest.param("warehouse", {"conn_type": "mysql"}, "warehouse", "allowed are postgres and sqlite", id="unknown"),
        pytest.param(
            "warehouse",
            {"conn_type": "postgres", "host": "127.0.0.1", "port": 9, "password": "secret"},
            "warehouse",
            "Connection refused",
            id="warehouse is down",
        ),
    ],
)
@pytest.mark.usefixtures("healthy")
def test_a_wrong_connection_fails_its_check(clock, connect, conn_id, connection, check, text):
    connect(f"{conn_id}_default", **{"conn_type": "http", **connection})
    # The checks after it are not made: no request may leave loopback.
    found = next(found for name, *found in examine(clock, post_message=False) if name == check)
    assert (found[0], text in found[1]) == ("FAIL", True), found
    assert "secret" not in found[1]


def test_a_wrong_clock_fails_its_check_also_by_an_error_of_coingecko(healthy, clock):
    healthy.coingecko.fail("wrong_host")
    found = findings(lambda: clock.now - timedelta(minutes=3))
    assert (found["coingecko"][0], found["clock"][0]) == ("FAIL", "FAIL")
    assert "180 s behind" in found["clock"][1]


def test_what_limits_the_pipeline_is_a_warning(healthy, clock, monkeypatch):
    with healthy.warehouse().begin() as connection:
        issues.report(connection, "late", title="The run is late", detail="d", action="a", at=clock.now)
    monkeypatch.setenv("COINWATCH_COINS", "bitcoin,gone")
    monkeypatch.delenv("COINWATCH_S3_BUCKET")
    monkeypatch.delenv("AIRFLOW_CONN_SLACK_DEFAULT")
    found = findings(clock)
    assert [found[check][0] for check in ("coingecko", "slack", "s3", "warehouse")] == ["warn"] * 4
    assert "The run is late" in found["warehouse"][1]


def test_storage_without_write_once_unknown_coins_and_an_unusable_folder_fail(healthy, clock, monkeypatch, tmp_path):
    from coinwatch.s3.store import S3Store

    # Some S3-compatible servers ignore the condition; here the client does not send it.
    really_put = S3Store._put
    monkeypatch.setattr(S3Store, "_put", lambda store, key, body, **_: really_put(store, key, body))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COINWATCH_DATA_DIR", str(tmp_path / "file"))
    monkeypatch.setenv("COINWATCH_COINS", "gone")
    found = findings(clock)
    assert [found[check][0] for check in ("coingecko", "s3", "disk")] == ["FAIL"] * 3
    assert f"{tmp_path}/file/archive" in found["disk"][1]
    assert healthy.objects() == {}


@pytest.mark.usefixtures("healthy", "pool")
def test_connections_are_also_read_from_airflows_database(clock, in_airflow, monkeypatch):
    from airflow.models.connection import Connection

    for name in [name for name in os.environ if name.startswith("AIRFLOW_CONN_")]:
        in_airflow(Connection.from_json(os.environ[name], name.removeprefix("AIRFLOW_CONN_").lower()))
        monkeypatch.delenv(name)
    found = findings(clock)
    assert {verdict for verdict, _ in found.values()} == {"ok"}
    assert "secret" not in str(found)


@pytest.mark.usefixtures("healthy", "pool")
def test_the_exit_status_says_whether_the_pipeline_works(monkeypatch, clock):
    monkeypatch.setattr("logging.disable", lambda _: None)
    lines = []
    assert doctor.run(lines.append, clock, post_message=False) == 0
    assert lines[-1] == "9 checks: 0 failed, 0 with a warning"
    assert lines[0].startswith("ok    settings   bitcoin in usd")
    lines.clear()
    monkeypatch.setenv("COINWATCH_COINS", "BTC")
    assert doctor.run(lines.append, clock, post_message=False) == 1
    assert lines[0].startswith("FAIL  settings   COINWATCH_COINS")
    assert lines[1:] == ["1 checks: 1 failed, 0 with a warning"]
