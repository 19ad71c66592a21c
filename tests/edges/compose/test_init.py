import os
import subprocess
import sys
from pathlib import Path

import pytest

from coinwatch.compose import init as init_module
from coinwatch.compose import layout
from coinwatch.compose.init import init
from coinwatch.local.errors import RunError, WrongInput
from coinwatch.local.home import AirflowHome

PROJECT = Path(__file__).resolve().parents[3]

CONNECT = """
import sys
from pathlib import Path
from coinwatch.compose import init, layout
from airflow.models.base import Base
from airflow.models.connection import Connection
from airflow.models.team import Team
from airflow.settings import engine
from airflow.utils.session import create_session

layout.INIT = Path(sys.argv[1])
Base.metadata.create_all(engine, tables=[model.__table__ for model in (Team, Connection)])

def connect(password):
    (layout.INIT / "warehouse_password").write_text(password)
    new = {"connections": []}
    init._connect_warehouse("warehouse", new)
    with create_session() as session:
        print(new["connections"], *(connection.get_uri() for connection in session.query(Connection)))

connect("first")
connect("second")
with create_session() as session:
    session.query(Connection).one().host = "elsewhere"
connect("third")
"""


@pytest.fixture
def secrets(tmp_path, monkeypatch):
    """The volumes that `init` reads, as `prepare` leaves them."""
    for name in ("AIRFLOW", "INIT"):
        folder = tmp_path / name.lower()
        folder.mkdir()
        monkeypatch.setattr(layout, name, folder)
    (tmp_path / "airflow" / "mode").write_text("live")
    for name in ("postgres_password", "airflow_password", "warehouse_password", "analyst_password", "admin_password"):
        (tmp_path / "init" / name).write_text(f"the-{name}")
    (tmp_path / "init" / "admin_password_from").write_text("here")
    return tmp_path / "init"


@pytest.fixture
def said():
    """What was said, line by line."""
    return []


@pytest.fixture
def steps(monkeypatch):
    """`init` without Airflow: what its steps were told, and whether the user is new."""
    told = {"new": True}

    def make_user(password, *, change):
        told.update(password=password, change=change)
        return told["new"]

    def load(**_):
        if told.get("fails"):
            raise RunError("no pools")

    for name, step in {
        "make_our_databases": lambda **_: {"airflow": "airflow", "warehouse": "warehouse"},
        "_run": lambda *_: None,
        "_migrate_warehouse": lambda _: None,
        "_make_user": make_user,
        "_load_settings": load,
        "_has_run": lambda _: True,
    }.items():
        monkeypatch.setattr(init_module, name, step)
    monkeypatch.setattr(layout, "is_there", lambda _: False)
    return told


URL = {"AIRFLOW__API__BASE_URL": "http://localhost:8090"}


@pytest.mark.usefixtures("secrets")
def test_the_password_that_was_made_is_shown_once(steps, said):
    init(URL, said.append)
    assert said == [
        "password of admin: the-admin_password   <- made for you, and never shown again: keep it",
        "Airflow will be at http://localhost:8090",
        "log in as admin with the password above",
    ]
    assert not steps["change"]
    steps["new"] = False
    said.clear()
    init(URL, said.append)
    assert said[-1].startswith("log in as admin with the password of the first start")
    assert "the-admin_password" not in str(said)


def test_a_password_of_env_is_set_and_never_shown(secrets, steps, said):
    (secrets / "admin_password_from").write_text(".env")
    for new in (True, False):
        steps["new"] = new
        init(URL, said.append)
        assert (steps["password"], steps["change"]) == ("the-admin_password", True)
    assert "the-admin_password" not in str(said)
    assert said[-1] == "log in as admin with ADMIN_PASSWORD of .env"


@pytest.mark.usefixtures("secrets")
def test_it_is_shown_even_if_a_later_step_fails(steps, said):
    steps["fails"] = True
    with pytest.raises(RunError, match="no pools"):
        init(URL, said.append)
    assert said == ["password of admin: the-admin_password   <- made for you, and never shown again: keep it"]


def test_a_step_that_fails_fails_init_with_its_last_words(said):
    command = [sys.executable, "-c", "print('relation is missing'); raise SystemExit(3)"]
    with pytest.raises(RunError, match="the migration failed, with status 3"):
        init_module._run("the migration", command, said.append)
    assert said == ["  relation is missing"]


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize(
    ("executor", "redis", "message"),
    [
        pytest.param("CeleryExecutor", False, "needs Redis and workers: add --profile celery", id="no redis"),
        pytest.param("LocalExecutor", True, "needs AIRFLOW__CORE__EXECUTOR=CeleryExecutor in .env", id="no executor"),
    ],
)
def test_executor_and_profile_have_to_agree(monkeypatch, said, executor, redis, message):
    monkeypatch.setattr(layout, "is_there", lambda host: redis and host == layout.REDIS_HOST)
    with pytest.raises(WrongInput, match=message):
        init({"AIRFLOW__CORE__EXECUTOR": executor}, said.append)


@pytest.mark.usefixtures("secrets")
def test_a_postgresql_that_lets_nobody_in_is_said_in_a_line_without_the_password(monkeypatch):
    import psycopg

    def refuse(*_):
        raise psycopg.OperationalError('connection failed:\nFATAL: password authentication failed for user "postgres"')

    monkeypatch.setattr(init_module, "make_databases", refuse)
    with pytest.raises(RunError) as failure:
        init_module.make_our_databases(sandbox=False)
    assert "password authentication failed" in str(failure.value)
    assert "docker compose exec postgres psql -U postgres -c '\\password'" in str(failure.value)
    assert "\n" not in str(failure.value)
    assert "the-postgres_password" not in str(failure.value)


def test_the_warehouses_connection_is_kept_in_step_unless_somebody_made_it_his_own(tmp_path):
    environ = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    AirflowHome(tmp_path / "home", PROJECT, 8080).prepare(None)
    environ |= {"AIRFLOW_HOME": str(tmp_path / "home"), "PYTHONPATH": str(PROJECT / "include")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CONNECT, tmp_path],
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        "['warehouse_default'] postgres://coinwatch:first@postgres/warehouse",
        "[] postgres://coinwatch:second@postgres/warehouse",
        "[] postgres://coinwatch:second@elsewhere/warehouse",
    ]
