from datetime import UTC, datetime, timedelta

from sqlalchemy import select

from coinwatch.coingecko.answers import Condition
from coinwatch.ingest.conditions import Changes, last_updates, store_conditions
from coinwatch.record import RawPrice
from coinwatch.rules import load_rules
from coinwatch.settings import PROJECT_DIR
from coinwatch.times import format_time
from coinwatch.warehouse import schema
from coinwatch.warehouse.load import store_raw_prices

HOUR = timedelta(hours=1)
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
RULES = load_rules(PROJECT_DIR / "include" / "coinwatch.yaml")
GONE = Condition("gone", "unknown_id", "CoinGecko does not know it")
NULL = Condition("nexa", "no_price", "CoinGecko has no price for it")


def pull(warehouse, as_of, *conditions, coins=("bitcoin", "gone", "nexa"), snapshot="s"):
    with warehouse.begin() as connection:
        return store_conditions(connection, coins, "usd", as_of, conditions, snapshot)


def stored(warehouse):
    with warehouse.begin() as connection:
        table = schema.feed_conditions
        rows = connection.execute(select(table).order_by(table.c.since, table.c.coin))
        return [(row.coin, row.condition, row.since, row.last_seen, row.pulls, row.ended_at) for row in rows]


def test_a_condition_is_news_once_and_remembered_as_long_as_it_lasts(warehouse):
    assert pull(warehouse, NOON, GONE) == Changes([GONE], [])
    assert pull(warehouse, NOON + HOUR, GONE, NULL) == Changes([NULL], [])
    assert pull(warehouse, NOON + 2 * HOUR, GONE) == Changes([], [("nexa", "no_price")])
    assert stored(warehouse) == [
        ("gone", "unknown_id", NOON, NOON + 2 * HOUR, 3, None),
        ("nexa", "no_price", NOON + HOUR, NOON + HOUR, 1, NOON + 2 * HOUR),
    ]


def test_what_comes_back_is_news_again(warehouse):
    pull(warehouse, NOON, GONE)
    pull(warehouse, NOON + HOUR)
    assert pull(warehouse, NOON + 2 * HOUR, GONE) == Changes([GONE], [])
    assert [(since, ended_at) for _, _, since, _, _, ended_at in stored(warehouse)] == [
        (NOON, NOON + HOUR),
        (NOON + 2 * HOUR, None),
    ]


def test_the_same_pull_again_and_an_older_one_change_nothing(warehouse):
    pull(warehouse, NOON, GONE)
    once = stored(warehouse)
    assert pull(warehouse, NOON, GONE) == Changes([], [])
    assert pull(warehouse, NOON) == Changes([], [])
    assert pull(warehouse, NOON - HOUR, GONE) == Changes([], [])
    assert stored(warehouse) == once


def test_a_page_says_nothing_of_the_coins_of_another_page(warehouse):
    pull(warehouse, NOON, GONE, coins=("gone",))
    assert pull(warehouse, NOON + HOUR, coins=("bitcoin",)) == Changes([], [])


def live(as_of, updated, coin="bitcoin", source="live"):
    return RawPrice(
        timestamp=format_time(as_of),
        coin=coin,
        currency="usd",
        price="1",
        market_cap="",
        volume_24h="",
        change_24h_pct="",
        last_updated_at=format_time(updated) if updated else "",
        fetched_at=format_time(as_of),
        source=source,
        snapshot="s",
    )


def test_the_pull_before_tells_when_each_coin_was_updated(warehouse):
    rows = [
        live(NOON - 2 * HOUR, NOON - 3 * HOUR),
        live(NOON - HOUR, NOON - HOUR),
        live(NOON - HOUR / 2, NOON, source="history"),
        live(NOON, NOON),
        live(NOON - HOUR, None, coin="nexa"),
        live(NOON - 25 * HOUR, NOON - 25 * HOUR, coin="old"),
    ]
    with warehouse.begin() as connection:
        store_raw_prices(connection, rows, RULES, NOON)
        assert last_updates(connection, ["bitcoin", "nexa", "old"], "usd", NOON) == {
            "bitcoin": (NOON - HOUR, NOON - HOUR)
        }
