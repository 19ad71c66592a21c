import math
import statistics
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from prices import as_prices, observations

from coinwatch.alerts.decide import decide_all
from coinwatch.rules import load_rules
from coinwatch.sandbox.market import COINS, RecordedMarket, SimulatedMarket
from coinwatch.settings import PROJECT_DIR
from coinwatch.times import HOUR

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture(scope="module")
def market():
    return SimulatedMarket(NOON)


def moves(market, first, last):
    """Log returns of Bitcoin's hours between two distances from the fall, a minute after each hour."""
    logs = [math.log(market.price_at("bitcoin", NOON + HOUR * number + MINUTE)) for number in range(first, last + 1)]
    return [after - before for before, after in pairwise(logs)]


def test_bitcoin_alone_falls_and_by_6_to_8_percent_against_any_price_of_the_last_90_minutes(market):
    for after in (timedelta(), MINUTE, 10 * MINUTE):
        price = market.price_at("bitcoin", NOON + after)
        earlier = [market.price_at("bitcoin", NOON + after - MINUTE * number) for number in range(30, 91)]
        assert all(-0.08 < price / before - 1 < -0.06 for before in earlier)
    for coin in set(COINS) - {"bitcoin"}:
        assert abs(market.price_at(coin, NOON) / market.price_at(coin, NOON - MINUTE) - 1) < 0.01


@pytest.mark.parametrize("minutes", [1, 37])
def test_a_new_sandbox_raises_one_alert_at_its_first_poll_and_none_in_the_next_26_hours(market, minutes):
    """After 90 days of history, whenever in the hour it starts."""
    hour = NOON - minutes * MINUTE
    history = [(hour - HOUR * number, "history") for number in range(90 * 24, -1, -1)]
    live = [(NOON + MINUTE, "live"), *((hour + HOUR * number, "live") for number in range(1, 27))]
    prices = as_prices([("bitcoin", at, market.price_at("bitcoin", at), source) for at, source in history + live])
    rules = load_rules(PROJECT_DIR / "include" / "coinwatch.yaml")
    found = decide_all({}, observations(prices, rules)["bitcoin"], rules.for_coin("bitcoin"))
    notified = [(each.note, each.ts) for each in found if each.incident.state != "resolved"]
    assert notified == [("move_1h", NOON + MINUTE)]


def test_prices_depend_on_the_distance_to_the_fall_alone(market):
    offsets = [timedelta(hours=hours, minutes=7) for hours in (-9000, -500, -1, 0, 1, 500, 9000)]
    later = SimulatedMarket(NOON + timedelta(days=200, minutes=13))
    prices = [later.price_at("ethereum", later.falls_at + offset) for offset in offsets]
    assert prices == [market.price_at("ethereum", NOON + offset) for offset in offsets]
    assert market.price_at("dogwifcoin", NOON) is None


def test_prices_and_moves_are_of_realistic_size_and_days_are_calm_or_volatile(market):
    prices = [market.price_at("bitcoin", NOON + timedelta(days=days)) for days in range(-366, 367, 6)]
    assert COINS["bitcoin"].price / 4 < min(prices) < max(prices) < COINS["bitcoin"].price * 4
    year = moves(market, -365 * 24, -24)
    assert 0.0045 < math.sqrt(statistics.fmean(move * move for move in year)) < 0.006
    days = sorted(statistics.stdev(year[start : start + 24]) for start in range(0, 100 * 24, 24))
    assert days[89] > 2 * days[10]


def test_the_next_start_continues_the_market_with_what_fell_on_request_and_names_a_damaged_file(tmp_path):
    first = SimulatedMarket.kept_in(tmp_path / "market.json", NOON)
    later = NOON + timedelta(days=3)
    before = first.price_at("bitcoin", later)
    first.drop(later)
    assert first.price_at("bitcoin", later) == pytest.approx(before * 0.92)
    again = SimulatedMarket.kept_in(tmp_path / "market.json", NOON + timedelta(days=3))
    assert (again.falls_at, again.drops) == (NOON, [later])
    for moment in (later - MINUTE, later, later + timedelta(days=1)):
        assert again.price_at("bitcoin", moment) == first.price_at("bitcoin", moment)

    (tmp_path / "market.json").write_text("{}")
    with pytest.raises(ValueError, match=r"market\.json is damaged"):
        SimulatedMarket.kept_in(tmp_path / "market.json", NOON)


def test_a_recorded_price_holds_until_the_next_one(tmp_path):
    path = tmp_path / "prices.csv"
    path.write_text("timestamp,price\n2026-11-22T12:00:00Z,63940.123\n2026-11-22T11:00:00+00:00,6.44e-06\n")
    market = RecordedMarket.from_csv(path, "bitcoin")
    asked = [NOON - HOUR - MINUTE, NOON - HOUR, NOON - MINUTE, NOON, NOON + timedelta(days=9)]
    assert [market.price_at("bitcoin", moment) for moment in asked] == [None, 6.44e-06, 6.44e-06, 63940.123, 63940.123]
    assert market.price_at("ethereum", NOON) is None
    assert (market.kind, market.coins) == ("recorded", ("bitcoin",))


@pytest.mark.parametrize(
    ("content", "where"),
    [
        pytest.param("", "contains no price", id="empty"),
        pytest.param("when,price\n2026-11-22T12:00:00Z,1\n", "line 2: .*'timestamp'", id="header"),
        pytest.param("timestamp,price\n2026-11-22T12:00:00Z,many\n", "line 2: .*'many'", id="text"),
        pytest.param("timestamp,price\n2026-11-22T12:00:00,1\n", "line 2: .* no zone", id="zone"),
    ],
)
def test_a_damaged_recording_is_named_with_its_line(tmp_path, content, where):
    path = tmp_path / "prices.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"^{path}.*{where}"):
        RecordedMarket.from_csv(path, "bitcoin")
