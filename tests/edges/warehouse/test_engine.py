import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import insert, inspect, select, text

from coinwatch.warehouse import engine as warehouse_module
from coinwatch.warehouse import schema
from coinwatch.warehouse.engine import (
    VERSION_TABLE,
    WarehouseError,
    increment,
    lock_table,
    open_warehouse,
    upsert,
    upsert_changed,
)

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)


def price(ts=TEN, value="76975.5", source="live"):
    return {
        "coin": "bitcoin",
        "currency": "usd",
        "ts": ts,
        "price": Decimal(value),
        "market_cap": None,
        "volume_24h": Decimal("6.44e-06"),
        "source": source,
        "last_updated_at": datetime(2026, 11, 22, 9, 59, 41, 331000, tzinfo=UTC),
        "fetched_at": TEN,
        "snapshot": "s",
    }


@pytest.mark.postgres
def test_the_migrations_create_the_tables_of_the_schema(warehouse):
    """All but keys is compared by Alembic: tables, columns, types, indexes and, on PostgreSQL, comments."""
    tables = schema.metadata.sorted_tables
    with warehouse.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, schema.metadata) == []
        keys = {
            table.name: inspect(connection).get_pk_constraint(table.name)["constrained_columns"] for table in tables
        }
    assert keys == {table.name: [column.name for column in table.primary_key] for table in tables}


def test_the_newest_migration_is_the_version_that_the_code_expects():
    folder = warehouse_module.__file__.replace("engine.py", "migrations")
    assert ScriptDirectory(folder).get_current_head() == schema.VERSION


@pytest.mark.postgres
def test_a_warehouse_is_opened_again_with_all_that_it_has(warehouse_url):
    first = open_warehouse(warehouse_url)
    with first.begin() as connection:
        connection.execute(insert(schema.prices), [price()])
    first.dispose()
    second = open_warehouse(warehouse_url)
    with second.begin() as connection:
        assert [dict(row) for row in connection.execute(select(schema.prices)).mappings()] == [price()]
    second.dispose()


@pytest.mark.postgres
def test_a_warehouse_of_a_newer_version_is_left_alone(warehouse, warehouse_url):
    with warehouse.begin() as connection:
        connection.execute(text("UPDATE coinwatch_version SET version_num = '9999'"))
    with pytest.raises(
        WarehouseError, match=f"schema version 9999, newer than the {schema.VERSION} of this Coinwatch: upgrade"
    ):
        open_warehouse(warehouse_url)


def run_at_once(functions):
    """Run each function in a thread of its own, all starting together; raise what one of them raises."""
    ready = threading.Barrier(len(functions))

    def run(function):
        ready.wait()
        function()

    with ThreadPoolExecutor(len(functions)) as pool:
        list(pool.map(run, functions))


@pytest.mark.postgres
def test_a_new_warehouse_may_be_opened_by_several_at_once(warehouse_url):
    run_at_once([lambda: open_warehouse(warehouse_url).dispose()] * 4)


def test_times_and_numbers_can_be_queried_as_such_on_sqlite(warehouse):
    with warehouse.begin() as connection:
        connection.execute(insert(schema.prices), [price()])
    with sqlite3.connect(warehouse.url.database) as connection:
        rows = connection.execute("SELECT ts, price, volume_24h, market_cap, last_updated_at FROM prices").fetchall()
        assert rows == [("2026-11-22T10:00:00Z", 76975.5, 6.44e-06, None, "2026-11-22T09:59:41.331Z")]
        assert connection.execute("SELECT strftime('%H:%M', ts) FROM prices WHERE price > 9000").fetchall() == [
            ("10:00",)
        ]
    connection.close()


@pytest.mark.parametrize("new_warehouse_url", ["postgresql"], indirect=True)
def test_times_have_a_zone_and_numbers_are_exact_on_postgresql(warehouse):
    with warehouse.begin() as connection:
        connection.execute(insert(schema.prices), [price(value="0.000000000000000001234567890123456789")])
        connection.execute(text("SET TIME ZONE 'Asia/Kathmandu'"))
        row = connection.execute(
            text("SELECT pg_typeof(ts)::text, ts::text, pg_typeof(price)::text, price FROM prices")
        )
        assert row.all() == [
            (
                "timestamp with time zone",
                "2026-11-22 15:45:00+05:45",
                "numeric",
                Decimal("0.000000000000000001234567890123456789"),
            )
        ]
        assert connection.execute(select(schema.prices.c.ts)).scalar() == TEN


def test_every_table_and_column_says_what_it_holds():
    things = [thing for table in schema.metadata.sorted_tables for thing in (table, *table.columns)]
    assert [str(thing) for thing in things if not thing.comment] == []


@pytest.mark.postgres
def test_an_upsert_returns_the_keys_that_are_new_or_changed(warehouse):
    rows = [price(ts=TEN + timedelta(hours=hour)) for hour in range(2000)]
    with warehouse.begin() as connection:
        assert sorted(upsert_changed(connection, schema.prices, rows)) == [
            ("bitcoin", "usd", row["ts"]) for row in rows
        ]
        assert upsert_changed(connection, schema.prices, rows) == []
        assert upsert_changed(connection, schema.prices, []) == []
        rows[7]["market_cap"], rows[8]["price"] = Decimal(5), Decimal(6)
        changed = upsert_changed(connection, schema.prices, rows)
        assert sorted(changed) == [("bitcoin", "usd", rows[7]["ts"]), ("bitcoin", "usd", rows[8]["ts"])]
        found = connection.execute(select(schema.prices).order_by(schema.prices.c.ts)).mappings()
        assert [dict(row) for row in found] == rows


@pytest.mark.postgres
def test_what_a_locked_table_says_holds_until_the_end(warehouse, warehouse_url):
    """Two transactions that read, and write what follows from it, do so one after the other."""

    def count(engine):
        with engine.begin() as connection:
            lock_table(connection, schema.pending_uploads)
            found = len(connection.execute(select(schema.pending_uploads)).all())
            upsert(connection, schema.pending_uploads, [{"layer": "raw", "hour": TEN + timedelta(hours=found)}])

    engines = [open_warehouse(warehouse_url) for _ in range(4)]
    run_at_once([lambda engine=engine: count(engine) for engine in engines])
    for engine in engines:
        engine.dispose()
    with warehouse.begin() as connection:
        assert len(connection.execute(select(schema.pending_uploads)).all()) == 4


def test_a_time_without_a_zone_is_not_stored(warehouse):
    with pytest.raises(Exception, match="has no zone"), warehouse.begin() as connection:
        connection.execute(insert(schema.prices), [price(ts=datetime(2026, 11, 22, 10))])  # noqa: DTZ001 - the point


@pytest.mark.postgres
def test_upsert_inserts_updates_and_obeys_its_condition(warehouse):
    def only_over_history(_new):
        return schema.prices.c.source == "history"

    with warehouse.begin() as connection:
        upsert(connection, schema.prices, [price(value="1", source="history")])
        upsert(connection, schema.prices, [price(value="2", source="live")], update_where=only_over_history)
        upsert(connection, schema.prices, [price(value="3", source="live")], update_where=only_over_history)
        upsert(connection, schema.prices, [])
        assert [dict(row) for row in connection.execute(select(schema.prices)).mappings()] == [price(value="2")]
        upsert(connection, schema.pending_uploads, [{"layer": "raw", "hour": TEN}])
        upsert(connection, schema.pending_uploads, [{"layer": "raw", "hour": TEN}])
        assert connection.execute(select(schema.pending_uploads)).all() == [("raw", TEN)]
        for _ in range(2):
            increment(connection, schema.api_requests, {"day": TEN, "endpoint": "prices"}, "requests")
        assert connection.execute(select(schema.api_requests)).all() == [(TEN, "prices", 2)]
