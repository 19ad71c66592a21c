import os
import subprocess
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from coinwatch.compose import init
from coinwatch.warehouse.engine import open_warehouse

SCRIPT = Path(init.__file__).with_name("databases.sql")

ENVIRON = {
    "AIRFLOW_DB": "made_airflow",
    "WAREHOUSE_DB": "made_warehouse",
    "AIRFLOW_DB_PASSWORD": "a",
    "WAREHOUSE_PASSWORD": "c",
    "ANALYST_PASSWORD": "r",
}


@pytest.fixture
def connect(postgres):
    """Connect: (role, database) → connection."""
    opened = []

    def connect(role, database):
        opened.append(psycopg.connect(host=str(postgres.folder), user=role, dbname=database, autocommit=True))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.close()


@pytest.fixture
def create(postgres):
    """Run the script; its databases and roles are dropped at the end."""

    def create(**changed):
        command = f"psql --no-psqlrc --quiet -h {postgres.folder} -U tests -d postgres -f {SCRIPT}".split()
        subprocess.run(command, env={**os.environ, **ENVIRON, **changed}, check=True, capture_output=True)

    yield create
    for name in ("made_airflow", "made_warehouse"):
        postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")
    for role in ("airflow", "coinwatch", "analyst"):
        postgres.execute(f"DROP ROLE {role}")


def test_the_analyst_reads_the_warehouse_and_nothing_else(create, connect, postgres):
    create()
    open_warehouse(postgres.url("made_warehouse", "coinwatch")).dispose()
    analyst = connect("analyst", "made_warehouse")
    assert analyst.execute("SELECT count(*) FROM prices").fetchall() == [(0,)]
    assert analyst.execute("SHOW statement_timeout").fetchall() == [("2min",)]
    # Read-only is the role's own setting, which it may change; its privileges are not.
    for _ in range(2):
        for statement in ("DELETE FROM prices", "CREATE TABLE mine (x int)", "CREATE TEMP TABLE mine (x int)"):
            with pytest.raises(psycopg.Error, match=r"read-only transaction|permission denied"):
                analyst.execute(statement)
        analyst.execute("SET default_transaction_read_only = off")
    for role, database in (("analyst", "made_airflow"), ("airflow", "made_warehouse"), ("coinwatch", "made_airflow")):
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            connect(role, database)


def test_a_second_start_changes_passwords_and_keeps_everything(create, connect, postgres):
    create()
    warehouse = open_warehouse(postgres.url("made_warehouse", "coinwatch"))
    with warehouse.begin() as connection:
        connection.execute(text("CREATE TABLE later AS SELECT 1 AS x"))
    warehouse.dispose()
    passwords = "SELECT rolname, rolpassword FROM pg_authid WHERE rolname IN ('airflow', 'coinwatch', 'analyst')"
    before = dict(connect("tests", "postgres").execute(passwords).fetchall())
    create(AIRFLOW_DB_PASSWORD="another", WAREHOUSE_PASSWORD="another", ANALYST_PASSWORD="another")
    after = dict(connect("tests", "postgres").execute(passwords).fetchall())
    assert all(after[role] != password for role, password in before.items())
    assert connect("analyst", "made_warehouse").execute("SELECT x FROM later").fetchall() == [(1,)]
