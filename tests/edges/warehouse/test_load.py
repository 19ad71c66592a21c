from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace

import pytest
from sqlalchemy import event, select

from coinwatch.archive.raw_log import RawLogError, append_raw_prices
from coinwatch.health import issues
from coinwatch.record import RawPrice
from coinwatch.rules import load_rules
from coinwatch.settings import PROJECT_DIR, load_settings
from coinwatch.times import format_time
from coinwatch.warehouse import load, schema
from coinwatch.warehouse.load import RAW_LOG_CHANGED, load_raw_prices, store_raw_prices

HOUR = timedelta(hours=1)
TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
ELEVEN = TEN + HOUR
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
RULES = load_rules(PROJECT_DIR / "include" / "coinwatch.yaml")


def row(ts=TEN, price="100.50", source="live", coin="bitcoin"):
    return RawPrice(
        timestamp=format_time(ts),
        coin=coin,
        currency="usd",
        price=price,
        market_cap="1e3",
        volume_24h="",
        change_24h_pct="-1.4",
        last_updated_at="2026-11-22T09:59:41Z",
        fetched_at=format_time(ts),
        source=source,
        snapshot="s",
    )


def stored(warehouse, table, *columns):
    with warehouse.begin() as connection:
        return connection.execute(select(*(table.c[column] for column in columns)).order_by(*table.primary_key)).all()


def store(warehouse, *rows):
    with warehouse.begin() as connection:
        return store_raw_prices(connection, rows, RULES, NOW)


@pytest.mark.postgres
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


def test_a_live_price_counts_more_than_one_from_history_in_any_order(warehouse):
    store(warehouse, row(TEN, "1", "live"), row(ELEVEN, "1", "history"), row(NOW, "1"), row(NOW, "1.1", "history"))
    store(warehouse, row(TEN, "1.1", "history"), row(ELEVEN, "1.1", "live"))
    assert stored(warehouse, schema.prices, "ts", "price", "source") == [
        (TEN, Decimal(1), "live"),
        (ELEVEN, Decimal("1.1"), "live"),
        (NOW, Decimal(1), "live"),
    ]
    assert len(stored(warehouse, schema.raw_prices, "ts")) == 6


def test_of_two_lines_with_one_key_the_later_one_counts(warehouse):
    store(warehouse, row(price="5"), row(price="6"))
    assert store(warehouse, row(price="7")) == [row(price="7")]
    assert stored(warehouse, schema.prices, "price") == [(Decimal(7),)]


def test_work_is_marked_from_the_earliest_new_row_on_and_history_is_not_detected(warehouse):
    later = row(ELEVEN + timedelta(minutes=23))
    store(warehouse, later, row(ELEVEN), row(TEN, source="history"), row(TEN, source="history", coin="ethereum"))
    assert stored(warehouse, schema.pending_work, "step", "coin", "currency", "since") == [
        ("statistics", "bitcoin", "usd", TEN),
        ("statistics", "ethereum", "usd", TEN),
    ]
    assert stored(warehouse, schema.pending_uploads, "layer", "hour") == [("raw", TEN), ("raw", ELEVEN)]


@pytest.fixture
def app(warehouse, tmp_path):
    """An app with three coins."""
    settings = load_settings(data_dir=tmp_path, coins=("bitcoin", "ethereum", "solana"))
    return SimpleNamespace(settings=settings, warehouse=warehouse, rules=RULES, clock=lambda: NOW)


def append(app, *rows):
    for each in rows:
        append_raw_prices(app.settings.raw_path(each.coin), [each])


def issue(app):
    with app.warehouse.begin() as connection:
        return issues.find(connection, RAW_LOG_CHANGED)


def test_new_lines_of_all_raw_logs_are_loaded_once(app):
    append(app, row(), row(coin="ethereum"))
    assert load_raw_prices(app) == 2
    append(app, row(ELEVEN), row(ELEVEN, coin="solana"))
    assert load_raw_prices(app) == 2
    assert load_raw_prices(app) == 0
    assert len(stored(app.warehouse, schema.prices, "ts")) == 4
    assert issue(app) is None


def test_a_long_log_is_loaded_in_chunks_and_a_crash_costs_one(app, monkeypatch):
    monkeypatch.setattr(load, "CHUNK_BYTES", 1000)
    for coin in app.settings.coins:
        path = app.settings.raw_path(coin)
        append_raw_prices(path, [row(TEN + HOUR * number, coin=coin, source="history") for number in range(20)])
    calls = iter(range(5))

    def crash_at_last(*arguments):
        if next(calls) == 4:
            raise RuntimeError("crash")
        return store_raw_prices(*arguments)

    monkeypatch.setattr(load, "store_raw_prices", crash_at_last)
    with pytest.raises(RuntimeError, match="crash"):
        load_raw_prices(app)
    monkeypatch.setattr(load, "store_raw_prices", store_raw_prices)
    before = len(stored(app.warehouse, schema.raw_prices, "ts"))
    assert 20 < before < 60
    assert load_raw_prices(app) == 60 - before
    assert len(stored(app.warehouse, schema.prices, "ts")) == 60


def test_the_statements_of_an_hour_do_not_grow_with_the_coins(app):
    counts = []
    for number, coins in enumerate((("bitcoin",), app.settings.coins)):
        some = SimpleNamespace(**{**vars(app), "settings": app.settings.model_copy(update={"coins": coins})})
        for ts in (TEN + HOUR * 2 * number, ELEVEN + HOUR * 2 * number):
            append(app, *(row(ts, coin=coin) for coin in coins))
            statements = []
            event.listen(app.warehouse, "before_cursor_execute", lambda *_, found=statements: found.append(1))
            load_raw_prices(some)
        counts.append(len(statements))
    assert counts[0] == counts[1] < 20


@pytest.mark.parametrize(
    ("line", "message"),
    [
        pytest.param("x", "line 2 has 1 fields instead of 11", id="fields"),
        pytest.param("2026-11-22,{}", "time '2026-11-22' has no zone", id="zone"),
        pytest.param("2026-11-22T10:00:00+00:00,{}", "is not written as 2026-11-22T10:00:00Z", id="form"),
        pytest.param("2026-11-22T10:00:00Z,bitcoin,usd,0,,,,,,live,s", "the price '0' is not positive", id="price"),
        pytest.param("2026-11-22T10:00:00Z,bitcoin,usd,x,,,,,,live,s", "the price 'x' is not a number", id="number"),
    ],
)
def test_an_unexpected_line_names_its_place_and_other_logs_are_loaded(app, line, message):
    append(app, row(), row(coin="ethereum"), row(coin="solana"))
    path = app.settings.raw_path("bitcoin")
    before = path.read_bytes()
    path.write_bytes(before + line.format("bitcoin,usd,1,,,,,,live,s").encode() + b"\n")
    with pytest.raises(RawLogError, match=r"bitcoin_raw\.csv has an unexpected line after byte 0: ") as failure:
        load_raw_prices(app)
    assert message in str(failure.value)
    assert not failure.value.retryable
    assert stored(app.warehouse, schema.prices, "coin") == [("ethereum",), ("solana",)]
    path.write_bytes(before)
    assert load_raw_prices(app) == 1


def test_a_changed_log_is_read_again_and_operators_are_notified_once(app):
    append(app, row(), row(ELEVEN))
    load_raw_prices(app)
    path = app.settings.raw_path("bitcoin")
    path.write_bytes(path.read_bytes().replace(b",100.50,", b",100.75,", 1))
    assert load_raw_prices(app) == 1
    assert stored(app.warehouse, schema.prices, "price") == [(Decimal("100.75"),), (Decimal("100.5"),)]
    load_raw_prices(app)
    opened = issue(app)
    assert opened.state == "open"
    assert str(path) in opened.detail
    with app.warehouse.begin() as connection:
        issues.mark_notified(connection, [opened], NOW)
    load_raw_prices(app)
    assert issue(app).state == "resolved"
