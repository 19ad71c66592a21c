import sqlite3
import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event, insert, select, text

from coinwatch.warehouse import engine as warehouse_module
from coinwatch.warehouse import schema
from coinwatch.warehouse.engine import VERSION_TABLE, WarehouseError, open_warehouse, upsert

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


def test_the_migrations_lead_to_the_tables_that_the_code_uses(warehouse):
    with warehouse.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, schema.metadata) == []


def test_the_newest_migration_is_the_version_that_the_code_expects():
    folder = warehouse_module.__file__.replace("engine.py", "migrations")
    assert ScriptDirectory(folder).get_current_head() == schema.VERSION


def test_a_warehouse_is_opened_again_with_all_that_it_has(warehouse_url):
    first = open_warehouse(warehouse_url)
    with first.begin() as connection:
        connection.execute(insert(schema.prices), [price()])
    first.dispose()
    second = open_warehouse(warehouse_url)
    with second.begin() as connection:
        assert [dict(row) for row in connection.execute(select(schema.prices)).mappings()] == [price()]
    second.dispose()


def test_a_warehouse_of_a_newer_version_is_left_alone(warehouse, warehouse_url):
    with warehouse.begin() as connection:
        connection.execute(text("UPDATE coinwatch_version SET version_num = '9999'"))
    with pytest.raises(WarehouseError, match=f"schema version 9999, newer than the {schema.VERSION}"):
        open_warehouse(warehouse_url)


def test_two_may_open_a_new_warehouse_at_once(warehouse_url):
    ready = threading.Barrier(4)
    failures = []

    def open_it():
        ready.wait()
        try:
            open_warehouse(warehouse_url).dispose()
        except Exception as failure:
            failures.append(failure)
            raise

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.parametrize("new_warehouse_url", ["sqlite"], indirect=True)
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


@pytest.mark.parametrize("new_warehouse_url", ["postgresql"], indirect=True)
def test_the_database_says_it_too(warehouse):
    query = """
        SELECT c.relname, a.attname, col_description(c.oid, a.attnum), obj_description(c.oid)
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace AND a.attnum > 0 AND c.relname <> :ours
    """
    with warehouse.begin() as connection:
        said = set(connection.execute(text(query), {"ours": VERSION_TABLE}).all())
    tables = schema.metadata.sorted_tables
    assert said == {(table.name, c.name, c.comment, table.comment) for table in tables for c in table.columns}


def test_many_rows_are_one_batch(warehouse):
    batches = []
    rows = [price(ts=TEN + timedelta(hours=hour)) for hour in range(2000)]
    with warehouse.begin() as connection:
        event.listen(connection, "before_cursor_execute", lambda *arguments: batches.append(arguments[-1]))
        upsert(connection, schema.prices, rows)
        upsert(connection, schema.prices, rows)
        assert batches == [True, True]  # executemany: on PostgreSQL the driver sends it as one pipeline
        assert len(connection.execute(select(schema.prices)).all()) == 2000


def test_a_time_without_a_zone_is_not_stored(warehouse):
    with pytest.raises(Exception, match="has no zone"), warehouse.begin() as connection:
        connection.execute(insert(schema.prices), [price(ts=datetime(2026, 11, 22, 10))])  # noqa: DTZ001 - the point


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


def insert_and_crash(warehouse):
    with warehouse.begin() as connection:
        upsert(connection, schema.prices, [price()])
        raise RuntimeError("crash")


def test_a_failed_transaction_leaves_nothing(warehouse):
    with pytest.raises(RuntimeError, match="crash"):
        insert_and_crash(warehouse)
    with warehouse.begin() as connection:
        assert connection.execute(select(schema.prices)).all() == []
