from datetime import UTC, datetime

import psycopg
import pytest
from sqlalchemy import insert

from coinwatch.compose.databases import make_databases
from coinwatch.warehouse import schema
from coinwatch.warehouse.engine import open_warehouse

NAMES = {"airflow": "made_airflow", "warehouse": "made_warehouse"}
PASSWORDS = {"airflow": "a", "coinwatch": "c", "analyst": "r"}


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
def server(postgres):
    """A server with our roles and databases, and a warehouse with a table in it."""
    address = f"host={postgres.folder} user=tests dbname=postgres"
    make_databases(address, PASSWORDS, NAMES)
    open_warehouse(postgres.url(NAMES["warehouse"], "coinwatch")).dispose()
    yield address
    for name in NAMES.values():
        postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")
    for role in PASSWORDS:
        postgres.execute(f"DROP ROLE {role}")


@pytest.mark.usefixtures("server")
def test_the_analyst_reads_the_warehouse_and_nothing_else(connect):
    analyst = connect("analyst", NAMES["warehouse"])
    assert analyst.execute("SELECT count(*) FROM prices").fetchall() == [(0,)]
    for statement in ("DELETE FROM prices", "CREATE TABLE mine (x int)", "CREATE TEMP TABLE mine (x int)"):
        with pytest.raises(psycopg.Error, match=r"read-only transaction|permission denied"):
            analyst.execute(statement)
    # Read-only is the role's own setting, which it may change; its rights are not.
    analyst.execute("SET default_transaction_read_only = off")
    for statement in ("DELETE FROM prices", "CREATE TABLE mine (x int)", "CREATE TEMP TABLE mine (x int)"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            analyst.execute(statement)
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        connect("analyst", NAMES["airflow"])


@pytest.mark.usefixtures("server")
def test_it_reads_what_later_versions_add_too(connect):
    connect("coinwatch", NAMES["warehouse"]).execute("CREATE TABLE later (x int)")
    assert connect("analyst", NAMES["warehouse"]).execute("SELECT * FROM later").fetchall() == []


@pytest.mark.usefixtures("server")
def test_neither_owner_comes_into_the_others_database(connect):
    for role, purpose in (("airflow", "warehouse"), ("coinwatch", "airflow")):
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            connect(role, NAMES[purpose])


def test_again_it_changes_passwords_and_keeps_everything(server, connect, postgres):
    warehouse = open_warehouse(postgres.url(NAMES["warehouse"], "coinwatch"))
    with warehouse.begin() as connection:
        connection.execute(
            insert(schema.pending_uploads), [{"layer": "raw", "hour": datetime(2026, 11, 22, tzinfo=UTC)}]
        )
    warehouse.dispose()
    passwords = "SELECT rolpassword FROM pg_authid WHERE rolname = 'coinwatch'"
    before = connect("tests", "postgres").execute(passwords).fetchone()
    make_databases(server, PASSWORDS | {"coinwatch": "another one"}, NAMES)
    assert connect("tests", "postgres").execute(passwords).fetchone() != before
    kept = connect("analyst", NAMES["warehouse"]).execute("SELECT layer FROM pending_uploads").fetchall()
    assert kept == [("raw",)]
