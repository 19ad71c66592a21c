"""Quarantined values in the warehouse: which values are stored as prices, and what operators do about the others."""

from datetime import timedelta
from decimal import Decimal
from types import SimpleNamespace

import pytest
from sqlalchemy import select

from coinwatch.errors import InvalidAction
from coinwatch.quarantine.held import CONFIRMED, Held, hold, review_quarantine
from coinwatch.record import RawPrice
from coinwatch.rules import load_rules
from coinwatch.settings import PROJECT_DIR, load_settings
from coinwatch.times import format_time
from coinwatch.warehouse import schema
from coinwatch.warehouse.load import store_raw_prices
from coinwatch.warehouse.work import pending_work

HOUR = timedelta(hours=1)
RULES = load_rules(PROJECT_DIR / "include" / "coinwatch.yaml")


@pytest.fixture
def app(warehouse, noon):
    return SimpleNamespace(settings=load_settings(), warehouse=warehouse, rules=RULES, clock=lambda: noon + 48 * HOUR)


@pytest.fixture
def store(app, noon):
    """Store one hour after another, each in a transaction of its own: (price, …) → None. None is an hour without."""

    def store(*prices, start=0, source="live", coin="bitcoin", at_once=False):
        rows = [
            RawPrice(format_time(noon + hour * HOUR), coin, "usd", str(price), "", "", "", "", "", source, f"s{hour}")
            for hour, price in enumerate(prices, start)
            if price is not None
        ]
        for chunk in [rows] if at_once else [[row] for row in rows]:
            with app.warehouse.begin() as connection:
                store_raw_prices(connection, chunk, RULES, noon + 24 * HOUR)

    return store


@pytest.fixture
def prices(app, noon):
    """Return the hours that have a price."""

    def prices(coin="bitcoin"):
        with app.warehouse.begin() as connection:
            query = select(schema.prices.c.ts).where(schema.prices.c.coin == coin).order_by(schema.prices.c.ts)
            return [(ts - noon) // HOUR for ts in connection.execute(query).scalars()]

    return prices


@pytest.fixture
def quarantine(app, noon):
    """Return hour, state and who decided, of each row."""

    def quarantine():
        with app.warehouse.begin() as connection:
            rows = connection.execute(select(schema.quarantine).order_by(schema.quarantine.c.ts)).all()
        return [((row.ts - noon) // HOUR, row.state, row.decided_by) for row in rows]

    return quarantine


def params(action, coin="*", ts="*", reason=""):
    return {"action": action, "coin": coin, "ts": ts, "reason": reason}


def test_a_value_far_from_the_price_before_is_quarantined_with_its_snapshot(app, store, prices, noon):
    store(100, 1000, 101)
    assert prices() == [0, 2]
    with app.warehouse.begin() as connection:
        assert connection.execute(select(schema.quarantine)).mappings().one() == {
            "coin": "bitcoin",
            "currency": "usd",
            "ts": noon + HOUR,
            "source": "live",
            "value": "1000",
            "reason": "it is 900.0 % above the price before, 100.0",
            "snapshot": "s1",
            "state": "held",
            "held_at": noon + 24 * HOUR,
            "decided_at": None,
            "decided_by": None,
        }
        assert len(connection.execute(select(schema.raw_prices)).all()) == 3


@pytest.mark.parametrize("at_once", [False, True])
def test_three_polls_that_agree_are_released_and_computed_again(app, store, prices, quarantine, noon, at_once):
    store(100)
    with app.warehouse.begin() as connection:
        connection.execute(schema.pending_work.delete())
    store(60, 61, 60, start=1, at_once=at_once)
    assert prices() == [0, 1, 2, 3]
    assert quarantine() == [(1, "released", CONFIRMED), (2, "released", CONFIRMED)]
    with app.warehouse.begin() as connection:
        assert pending_work(connection, "statistics") == {"usd": {"bitcoin": noon + HOUR}}


def test_each_coin_is_compared_with_its_own_price_before(store, prices, app, noon):
    before = {"bitcoin": 60_000, "ethereum": 4_000, "solana": 100}
    for coin, price in before.items():
        store(price, coin=coin)
    rows = [
        RawPrice(format_time(noon + HOUR), coin, "usd", price, "", "", "", "", "", "live", "s")
        for coin, price in (("bitcoin", "60001"), ("ethereum", "60001"), ("solana", "101"), ("dogecoin", "0.1"))
    ]
    with app.warehouse.begin() as connection:
        store_raw_prices(connection, rows, RULES, noon)
    assert [prices(coin) for coin in (*before, "dogecoin")] == [[0, 1], [0], [0, 1], [1]]


@pytest.mark.parametrize("is_rejected", [True, False], ids=["rejected", "no number"])
def test_a_rejected_value_or_one_that_is_not_a_number_agrees_with_none_after_it(
    app, store, prices, quarantine, noon, is_rejected
):
    store(100, 60)
    if is_rejected:
        assert review_quarantine(app, params("reject", reason="typo at the source"), "manual-1") == {}
        assert quarantine() == [(1, "rejected", "operator: typo at the source (manual-1)")]
    else:
        with app.warehouse.begin() as connection:
            hold(connection, [Held("bitcoin", "usd", noon + 2 * HOUR, "live", "0", "zero", "s2")], noon)
    store(60, 60, start=3)
    assert prices() == [0]
    store(60, start=5)
    assert prices() == [0, 3, 4, 5]


def test_an_hour_of_history_far_from_both_neighbours_is_quarantined(store, prices, quarantine):
    store(100, None, 101)
    store(9, start=1, source="history")
    assert prices() == [0, 2]
    assert quarantine() == [(1, "held", None)]
    store(100, 9, 101, 101, 60, 60, start=10, source="history", at_once=True)
    assert prices() == [0, 2, 10, 12, 13, 14, 15]


def test_an_operator_releases_a_value_and_it_is_computed_again(app, store, prices, quarantine, noon, caplog):
    store(100, 70)
    with app.warehouse.begin() as connection:
        connection.execute(schema.pending_work.delete())
    caplog.set_level("INFO")
    ts = format_time(noon + HOUR)
    assert review_quarantine(app, params("list"), "run") == {}
    assert f"bitcoin {ts} (live): 70" in caplog.text
    released = review_quarantine(app, params("release", "bitcoin", ts, "seen on two exchanges"), "manual-1")
    assert released == {"bitcoin": [ts]}
    assert prices() == [0, 1]
    assert quarantine() == [(1, "released", "operator: seen on two exchanges (manual-1)")]
    with app.warehouse.begin() as connection:
        assert pending_work(connection, "statistics") == {"usd": {"bitcoin": noon + HOUR}}
        assert connection.execute(select(schema.prices.c.price).order_by(schema.prices.c.ts)).scalars().all() == [
            Decimal(100),
            Decimal(70),
        ]


@pytest.mark.parametrize(
    ("action", "message"),
    [
        pytest.param(params("release"), "release needs a coin or a time", id="everything"),
        pytest.param(params("release", ts="13 o'clock"), "Quarantined: bitcoin 2026-11-22T13:00:00Z", id="time"),
        pytest.param(params("reject", "ethereum"), r"no value of coin ethereum at \* is quarantined", id="coin"),
        pytest.param(params("release", "dogecoin"), "is not a positive number: reject it", id="no number"),
    ],
)
def test_an_invalid_action_says_what_is_possible_and_changes_nothing(app, store, quarantine, noon, action, message):
    store(100, 70)
    with app.warehouse.begin() as connection:
        hold(connection, [Held("dogecoin", "usd", noon, "live", "0", "zero", "s0")], noon)
    with pytest.raises(InvalidAction, match=message):
        review_quarantine(app, action, "run")
    assert {state for _, state, _ in quarantine()} == {"held"}
