from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from sqlalchemy import select

from coinwatch.record import RawPrice
from coinwatch.rules import load_rules
from coinwatch.settings import PROJECT_DIR
from coinwatch.times import format_time
from coinwatch.warehouse import schema
from coinwatch.warehouse.load import clear_work, mark_work, pending_work, store_raw_prices

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
ELEVEN = TEN + timedelta(hours=1)
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
RULES = load_rules(PROJECT_DIR / "include" / "coinwatch.yaml")


def row(moment=TEN, price="100.50", source="live", coin="bitcoin"):
    return RawPrice(
        format_time(moment),
        coin,
        "usd",
        price,
        "1e3",
        "",
        "-1.4",
        "2026-11-22T09:59:41Z",
        format_time(moment),
        source,
        "s",
    )


def stored(warehouse, table, *columns):
    with warehouse.begin() as connection:
        return connection.execute(select(*(table.c[column] for column in columns)).order_by(*table.primary_key)).all()


def store(warehouse, *rows):
    with warehouse.begin() as connection:
        return store_raw_prices(connection, rows, RULES, NOW)


def test_lines_are_stored_as_text_and_as_numbers(warehouse):
    assert store(warehouse, row()) == [row()]
    with warehouse.begin() as connection:
        assert connection.execute(select(schema.raw_prices)).mappings().one() == {
            "coin": "bitcoin",
            "currency": "usd",
            "ts": TEN,
            "source": "live",
            "price": "100.50",
            "market_cap": "1e3",
            "volume_24h": "",
            "change_24h_pct": "-1.4",
            "last_updated_at": "2026-11-22T09:59:41Z",
            "fetched_at": "2026-11-22T10:00:00Z",
            "snapshot": "s",
        }
        assert connection.execute(select(schema.prices)).mappings().one() == {
            "coin": "bitcoin",
            "currency": "usd",
            "ts": TEN,
            "price": Decimal("100.5"),
            "market_cap": Decimal(1000),
            "volume_24h": None,
            "source": "live",
            "last_updated_at": TEN - timedelta(seconds=19),
            "fetched_at": TEN,
            "snapshot": "s",
        }


def test_lines_that_are_stored_already_leave_no_work(warehouse):
    store(warehouse, row(), row(ELEVEN))
    with warehouse.begin() as connection:
        connection.execute(schema.pending_work.delete())
        connection.execute(schema.pending_uploads.delete())
    assert store(warehouse, row(), row(ELEVEN)) == []
    assert stored(warehouse, schema.pending_work, "step") == []
    assert stored(warehouse, schema.pending_uploads, "hour") == []


def test_of_a_live_and_a_history_price_of_one_time_the_live_one_counts_in_either_order(warehouse):
    store(warehouse, row(TEN, "1", "live"), row(ELEVEN, "1", "history"))
    store(warehouse, row(TEN, "1.1", "history"), row(ELEVEN, "1.1", "live"))
    assert stored(warehouse, schema.prices, "ts", "price", "source") == [
        (TEN, Decimal(1), "live"),
        (ELEVEN, Decimal("1.1"), "live"),
    ]
    assert len(stored(warehouse, schema.raw_prices, "ts")) == 4


def test_a_live_and_a_history_price_of_one_time_may_come_together(warehouse):
    store(warehouse, row(TEN, "1", "live"), row(TEN, "1.1", "history"))
    assert stored(warehouse, schema.prices, "ts", "price", "source") == [(TEN, Decimal(1), "live")]


def test_a_line_that_was_changed_replaces_the_one_before(warehouse):
    store(warehouse, row())
    assert store(warehouse, row(price="7")) == [row(price="7")]
    assert stored(warehouse, schema.prices, "price") == [(Decimal(7),)]


def test_work_is_left_from_the_earliest_new_row_on_and_hours_of_history_raise_no_alert(warehouse):
    store(warehouse, row(ELEVEN), row(TEN, source="history"), row(TEN, source="history", coin="ethereum"))
    assert stored(warehouse, schema.pending_work, "step", "coin", "currency", "since") == [
        ("statistics", "bitcoin", "usd", TEN),
        ("statistics", "ethereum", "usd", TEN),
    ]
    assert stored(warehouse, schema.pending_uploads, "layer", "hour") == [("raw", TEN), ("raw", ELEVEN)]


def test_partitions_are_those_of_the_hour_that_the_time_lies_in(warehouse):
    store(warehouse, row(TEN + timedelta(minutes=23)), replace(row(TEN), timestamp="2026-11-22T10:59:59Z"))
    assert stored(warehouse, schema.pending_uploads, "hour") == [(TEN,)]


def test_work_that_is_left_reaches_back_to_the_earliest_time(warehouse):
    with warehouse.begin() as connection:
        for moment in (ELEVEN, TEN, ELEVEN):
            mark_work(connection, "export", "usd", {"bitcoin": moment})
        assert pending_work(connection, "export") == {"usd": {"bitcoin": TEN}}


def test_work_that_grew_meanwhile_is_not_taken_away(warehouse):
    with warehouse.begin() as connection:
        mark_work(connection, "export", "usd", {"bitcoin": ELEVEN, "ethereum": ELEVEN})
        done = pending_work(connection, "export")["usd"]
        mark_work(connection, "export", "usd", {"bitcoin": TEN})
        clear_work(connection, "export", "usd", done)
        clear_work(connection, "export", "usd", {})
        assert pending_work(connection, "export") == {"usd": {"bitcoin": TEN}}
