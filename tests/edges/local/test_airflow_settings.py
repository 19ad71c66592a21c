import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest

from coinwatch.local.airflow_settings import (
    AirflowSettings,
    ConnectionEntry,
    PoolEntry,
    VariableEntry,
    at_host,
    connections_at_other_ports,
    read_airflow_settings,
)
from coinwatch.local.errors import WrongInput
from coinwatch.local.home import AirflowHome

PROJECT = Path(__file__).resolve().parents[3]

EVERYTHING = """
airflow:
  connections:
    - conn_id: web
      conn_type: http
      conn_host: http://127.0.0.1:8481/api
      conn_schema:
      conn_login: me
      conn_password: 123456
      conn_port: 8482
      conn_extra: {plan: public, url: "http://127.0.0.1:8482/x", other: "http://127.0.0.1:9999"}
    - conn_id: base
      conn_uri: postgres://me:secret@127.0.0.1:8483/base
  pools:
    - pool_name: slow
      pool_slot: 1
      pool_description: one by one
  variables:
    - variable_name: n
      variable_value: 300000
"""


@pytest.fixture
def write(tmp_path):
    """Write a settings file."""

    def write(text):
        path = tmp_path / "airflow_settings.yaml"
        path.write_text(text)
        return path

    return write


def test_everything_that_the_astro_cli_reads_is_read(write):
    assert read_airflow_settings(write(EVERYTHING)) == AirflowSettings(
        connections=[
            ConnectionEntry(
                conn_id="web",
                conn_type="http",
                conn_host="http://127.0.0.1:8481/api",
                conn_login="me",
                conn_password="123456",
                conn_port=8482,
                conn_extra={"plan": "public", "url": "http://127.0.0.1:8482/x", "other": "http://127.0.0.1:9999"},
            ),
            ConnectionEntry(conn_id="base", conn_uri="postgres://me:secret@127.0.0.1:8483/base"),
        ],
        pools=[PoolEntry(pool_name="slow", pool_slot=1, pool_description="one by one")],
        variables=[VariableEntry(variable_name="n", variable_value="300000")],
    )


def test_sections_may_be_empty(write):
    assert read_airflow_settings(write("airflow:\n  connections:\n  pools:\n")) == AirflowSettings()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("airflow: [", " is no YAML: while parsing", id="no YAML"),
        pytest.param("- 1", ": the file: Input should be", id="no mapping"),
        pytest.param("airflow:\n  conections: []", ": airflow.conections: there is no such field", id="section"),
        pytest.param(
            "airflow:\n  connections:\n  - {conn_id: a, conn_type: b}\n  - {conn_id: c}",
            ": airflow.connections[2]: conn_type is needed, or a conn_uri that has everything",
            id="no type",
        ),
        pytest.param(
            "airflow:\n  connections:\n  - {conn_id: a, conn_uri: b, conn_host: c}",
            ": airflow.connections[1]: conn_uri has everything: leave out the other fields",
            id="URI and parts",
        ),
        pytest.param(
            "airflow:\n  pools:\n  - {pool_name: a, pool_slot: many}",
            ": airflow.pools[1].pool_slot: Input should be a valid integer, unable to parse string as an integer",
            id="no number",
        ),
        pytest.param(
            "airflow:\n  variables:\n  - {variable_name: a}",
            ": airflow.variables[1].variable_value: Field required",
            id="no value",
        ),
    ],
)
def test_a_wrong_file_names_the_entry_and_the_field(write, text, problem):
    path = write(text)
    with pytest.raises(WrongInput) as error:
        read_airflow_settings(path)
    assert str(error.value).startswith(f"{path}{problem}")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(WrongInput, match=r"nothing\.yaml cannot be read: No such file"):
        read_airflow_settings(tmp_path / "nothing.yaml")


def test_a_wrong_entry_does_not_show_its_secret(write):
    with pytest.raises(WrongInput) as error:
        read_airflow_settings(
            write("airflow:\n  connections:\n  - {conn_id: a, conn_password: hush, conn_uri: [hush]}")
        )
    assert "hush" not in str(error.value)


def test_the_projects_file_is_right_and_has_the_pool_of_the_dags():
    settings = read_airflow_settings(PROJECT / "airflow_settings.yaml")
    assert [entry.conn_id for entry in settings.connections] == ["coingecko_default", "slack_default", "aws_default"]
    assert [(entry.pool_name, entry.pool_slot) for entry in settings.pools] == [("coingecko", 1)]


def test_connections_follow_to_other_ports_and_only_on_loopback(write):
    settings = read_airflow_settings(write(EVERYTHING))
    moved = connections_at_other_ports(settings, {8481: 9481, 8482: 9482, 8483: 9483})
    assert json.loads(moved.pop("AIRFLOW_CONN_WEB")) == {
        "conn_type": "http",
        "host": "http://127.0.0.1:9481/api",
        "login": "me",
        "password": "123456",
        "port": 8482,
        "extra": '{"plan": "public", "url": "http://127.0.0.1:9482/x", "other": "http://127.0.0.1:9999"}',
    }
    assert moved == {"AIRFLOW_CONN_BASE": "postgres://me:secret@127.0.0.1:9483/base"}


def test_connections_stay_in_the_database_if_no_port_is_another_one(write):
    assert connections_at_other_ports(read_airflow_settings(write(EVERYTHING)), {8481: 8481}) == {}


def test_the_sandbox_may_be_at_another_host(write):
    settings = read_airflow_settings(write(EVERYTHING))
    web, base = at_host(settings, "sandbox.internal").connections
    assert web.conn_host == "http://sandbox.internal:8481/api"
    assert web.conn_extra == {
        "plan": "public",
        "url": "http://sandbox.internal:8482/x",
        "other": "http://sandbox.internal:9999",
    }
    assert base.conn_uri == "postgres://me:secret@sandbox.internal:8483/base"
    assert at_host(settings, "127.0.0.1").pools == settings.pools


LOAD = """
import sys
from coinwatch.cli import main
print(main(["load-airflow-settings", sys.argv[1]]))
from airflow.models.base import Base
from airflow.models.connection import Connection
from airflow.models.pool import Pool
from airflow.models.team import Team
from airflow.models.variable import Variable
from airflow.settings import engine
from airflow.utils.session import create_session

Base.metadata.create_all(engine, tables=[model.__table__ for model in (Team, Connection, Pool, Variable)])
with create_session() as session:
    session.add(Connection(conn_id="mine", conn_type="http", host="mine"))
for arguments in (["--without-connections"], [], []):
    print(main(["load-airflow-settings", *arguments, sys.argv[1]]))
with create_session() as session:
    for pool in session.query(Pool):
        print(pool.pool, pool.slots, pool.description)
    for variable in session.query(Variable):
        print(variable.key, variable.get_val())
    for conn in session.query(Connection).order_by(Connection.conn_id):
        print(conn.conn_id, conn.get_uri())
"""


def test_entries_are_loaded_into_airflow_once_and_what_is_there_stays(write, tmp_path):
    path = write(EVERYTHING.replace("conn_id: base", "conn_id: mine"))
    environ = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    AirflowHome(tmp_path / "home", PROJECT, 8080).prepare(None)
    environ |= {"AIRFLOW_HOME": str(tmp_path / "home"), "PYTHONPATH": str(PROJECT / "include")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOAD, path], env=environ, capture_output=True, text=True, check=True
    )
    assert done.stderr == (
        f"coinwatch: {path} cannot be loaded: Airflow's database is not ready (no such table: slot_pool). "
        "Run `airflow db migrate` first\n"
    )
    assert done.stdout.splitlines() == [
        "1",
        *("pools: slow", "variables: n", "connections: nothing new", "0"),
        *("pools: nothing new", "variables: nothing new", "connections: web", "0"),
        *("pools: nothing new", "variables: nothing new", "connections: nothing new", "0"),
        "slow 1 one by one",
        "n 300000",
        "mine http://mine",
        f"web http://me:123456@{quote('http://127.0.0.1:8481/api', safe='')}:8482/?"
        + urlencode({"plan": "public", "url": "http://127.0.0.1:8482/x", "other": "http://127.0.0.1:9999"}),
    ]
