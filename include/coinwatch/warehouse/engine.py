"""The warehouse: one database for queries, SQLite or PostgreSQL, with the same statements on both."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Table, create_engine, event, inspect, text
from sqlalchemy.dialects import postgresql, sqlite

from coinwatch.warehouse import schema

log = logging.getLogger(__name__)

VERSION_TABLE = "coinwatch_version"
"""Not Alembic's own name: a warehouse may share its database with Airflow, which uses that one."""

_MIGRATION_LOCK = 0x636F696E
"""PostgreSQL advisory lock held while migrating ("coin")."""

_BUSY_SECONDS = 60
"""How long an SQLite writer waits for another one before it gives up."""


class WarehouseError(RuntimeError):
    """The warehouse cannot be used; the message says why and what to do."""


def open_warehouse(url: str) -> Engine:
    """Connect to a warehouse and bring its schema up to date.

    Args:
        url: An SQLAlchemy URL, ``sqlite:////path/warehouse.db`` or ``postgresql+psycopg2://…``.

    Raises:
        WarehouseError: The database is newer than this code.
    """
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        if engine.url.database:
            Path(engine.url.database).parent.mkdir(parents=True, exist_ok=True)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_immediate)
    try:
        _migrate(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver would begin transactions by itself, too late and not for DDL.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_SECONDS * 1000}")


def _begin_immediate(connection: Connection) -> None:
    # A transaction that starts reading and then writes can meet another one half-way: both would fail.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _migrate(engine: Engine) -> None:
    with engine.begin() as connection:
        if _version(connection) == schema.VERSION:
            return
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        # Read again: somebody else may have migrated while this one waited for the lock.
        version = _version(connection)
        if version != schema.VERSION:
            _upgrade(connection, version)


def _upgrade(connection: Connection, version: str | None) -> None:
    # Only here: an hour that has nothing to migrate need not load it.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    # A percent sign in the path would be taken for an interpolation.
    folder = str(Path(__file__).with_name("migrations")).replace("%", "%%")
    config.set_main_option("script_location", folder)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if version is not None and version not in known:
        raise WarehouseError(
            f"the warehouse {connection.engine.url.render_as_string()} has schema version {version}, newer than the "
            f"{schema.VERSION} that this version of Coinwatch knows: upgrade Coinwatch, or restore an older warehouse"
        )
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    log.info("warehouse schema migrated from %s to %s", version or "nothing", schema.VERSION)


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    version: str | None = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608 - our own constant
    return version


def upsert(
    connection: Connection,
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    *,
    keep: bool = False,
    update_where: Callable[[Any], ColumnElement[bool]] | None = None,
) -> None:
    """Insert rows; where the primary key is there already, update the other columns.

    Args:
        connection: In the caller's transaction.
        table: A table of the schema.
        rows: Values by column name, all with the same columns.
        keep: Leave a row that is there already as it is.
        update_where: Given the new values by column, the condition under which an old row is updated (always, if
            absent).
    """
    if not rows:
        return
    keys = [column.name for column in table.primary_key]
    statement: Any
    if connection.dialect.name == "sqlite":
        statement = sqlite.insert(table)
    else:
        statement = postgresql.insert(table)
    changes = {name: statement.excluded[name] for name in rows[0] if name not in keys}
    if changes and not keep:
        condition = update_where(statement.excluded) if update_where else None
        statement = statement.on_conflict_do_update(index_elements=keys, set_=changes, where=condition)
    else:
        statement = statement.on_conflict_do_nothing(index_elements=keys)
    connection.execute(statement, list(rows))


def increment(connection: Connection, table: Table, key: Mapping[str, Any], column: str) -> None:
    """Add one to a number of the row with this key; a row that is not there yet begins with one."""
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    statement = insert(table).values({**key, column: 1})
    more = {column: table.c[column] + 1}
    connection.execute(statement.on_conflict_do_update(index_elements=list(key), set_=more))


def lock_table(connection: Connection, table: Table) -> None:
    """Let no other transaction change a table before this one ends, so that what was read from it holds.

    On SQLite every transaction of ours has the database to itself already.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"LOCK TABLE {table.name} IN SHARE ROW EXCLUSIVE MODE"))
