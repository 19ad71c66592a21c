"""The warehouse: one database for queries, SQLite or PostgreSQL, with the same statements on both."""

import contextlib
import gc
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, Table, create_engine, event, inspect, or_, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import OperationalError

from coinwatch.errors import CoinwatchError
from coinwatch.warehouse import schema

log = logging.getLogger(__name__)

VERSION_TABLE = "coinwatch_version"
"""Not Alembic's default: the warehouse may share a database with Airflow, which uses that name."""

_MIGRATION_LOCK = 0x636F696E
"""PostgreSQL advisory lock held while migrating ("coin")."""

_BUSY_SECONDS = 60
"""How long an SQLite transaction waits for another one."""


class WarehouseError(CoinwatchError):
    """The warehouse cannot be used; the message says why and what to do."""

    retryable = False


def open_warehouse(url: str) -> Engine:
    """Return an engine on a warehouse whose schema is up to date.

    Args:
        url: An SQLAlchemy URL, ``sqlite:////path/warehouse.db`` or ``postgresql+psycopg://…``.

    Raises:
        WarehouseError: The schema is newer than this code.
    """
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        if engine.url.database:
            Path(engine.url.database).parent.mkdir(parents=True, exist_ok=True)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_immediate)
    try:
        with engine.begin() as connection:
            _migrate(connection)
    except BaseException:
        engine.dispose()
        raise
    return engine


@contextlib.contextmanager
def begin_bulk(engine: Engine) -> Iterator[Connection]:
    """Begin a transaction that handles many rows, without garbage collections.

    A collection looks at every row in memory, and finds nothing: a third of the time of a long log.
    """
    gc.disable()
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        gc.enable()


@contextlib.contextmanager
def optional_warehouse(consequence: str) -> Iterator[None]:
    """Log that the warehouse is unavailable instead of raising it, for what matters more than the warehouse."""
    try:
        yield
    except OperationalError as error:
        log.error("warehouse unavailable (%s): %s. Check the connection warehouse_default", error.orig, consequence)


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # By default the driver begins transactions itself: too late, and not for DDL.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_SECONDS * 1000}")


def _begin_immediate(connection: Connection) -> None:
    # Of two transactions that read first and then write, both could fail.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _migrate(connection: Connection) -> None:
    if _version(connection) == schema.VERSION:
        return
    # Imported here: an ordinary hour migrates nothing.
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError

    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
    config = Config()
    # Alembic interpolates percent signs.
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    config.attributes["connection"] = connection
    before = _version(connection)
    try:
        command.upgrade(config, "head")
    except CommandError:
        raise WarehouseError(
            f"the warehouse {connection.engine.url.render_as_string()} has schema version {before}, newer than the "
            f"{schema.VERSION} of this Coinwatch: upgrade Coinwatch, or restore an older warehouse"
        ) from None
    log.info("warehouse schema migrated from %s to %s", before or "nothing", schema.VERSION)


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    version: str | None = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608 - a constant
    return version


def upsert(
    connection: Connection,
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    *,
    keep: bool = False,
    update_where: Callable[[Any], ColumnElement[bool]] | None = None,
) -> None:
    """Insert rows; where the primary key exists, update the other columns.

    Args:
        connection: The caller's transaction.
        table: A table of the schema.
        rows: Values by column name, all with the same columns.
        keep: Leave an existing row as it is.
        update_where: Given the new values by column, the condition under which an existing row is updated.
    """
    if not rows:
        return
    keys = [column.name for column in table.primary_key]
    statement = _insert(connection, table)
    changes = {name: statement.excluded[name] for name in rows[0] if name not in keys}
    if keep or not changes:
        statement = statement.on_conflict_do_nothing(index_elements=keys)
    else:
        condition = update_where(statement.excluded) if update_where else None
        statement = statement.on_conflict_do_update(index_elements=keys, set_=changes, where=condition)
    connection.execute(statement, list(rows))


def upsert_changed(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> Sequence[Row[Any]]:
    """Insert or update rows, and return the primary keys of those that were new or had other values."""
    if not rows:
        return []
    keys = [column.name for column in table.primary_key]
    statement = _insert(connection, table)
    changes = {name: statement.excluded[name] for name in rows[0] if name not in keys}
    differs = or_(*(table.c[name].is_distinct_from(new) for name, new in changes.items()))
    statement = statement.on_conflict_do_update(index_elements=keys, set_=changes, where=differs)
    return connection.execute(statement.returning(*table.primary_key), list(rows)).all()


def _insert(connection: Connection, table: Table) -> Any:
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)


def increment(connection: Connection, table: Table, key: Mapping[str, Any], column: str) -> None:
    """Add one to a column of the row with this key; a new row starts at one."""
    statement = _insert(connection, table).values({**key, column: 1})
    more = {column: table.c[column] + 1}
    connection.execute(statement.on_conflict_do_update(index_elements=list(key), set_=more))


def lock_table(connection: Connection, table: Table) -> None:
    """Let no other transaction change a table until this one ends.

    On SQLite every transaction already has the database to itself.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"LOCK TABLE {table.name} IN SHARE ROW EXCLUSIVE MODE"))
