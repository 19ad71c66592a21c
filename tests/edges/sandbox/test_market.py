import json
import math
import statistics
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from prices import as_prices, observations

from coinwatch.alerts.decide import decide_all
from coinwatch.rules import load_rules
from coinwatch.sandbox.market import COINS, RecordedMarket, SimulatedMarket
from coinwatch.settings import PROJECT_DIR
from coinwatch.times import HOUR, ceil_hour, floor_hour

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture(scope="session")
def rules():
    return load_rules(PROJECT_DIR / "include" / "coinwatch.yaml")


@pytest.fixture(scope="session")
def market():
    return SimulatedMarket(NOON)


def alerts_of_a_newcomer(market, rules, first_pull, history_days, live_hours):
    """What is raised for one who starts with history up to the first pull, and stays."""
    hours = [floor_hour(first_pull) - HOUR * number for number in range(history_days * 24, -1, -1)]
    prices = {hour: market.price_at("bitcoin", hour + timedelta(seconds=41)) for hour in hours if hour < first_pull}
    lives = [first_pull, *(ceil_hour(first_pull + MINUTE) + HOUR * number for number in range(live_hours))]
    prices |= {moment: market.price_at("bitcoin", moment) for moment in lives}
    rows = [("bitcoin", t, prices[t], "live" if t in lives else "history") for t in sorted(prices)]
    seen = [each for each in observations(as_prices(rows), rules)["bitcoin"] if each.ts >= first_pull]
    found = decide_all({}, seen, rules.for_coin("bitcoin"))
    return [(each.note, each.ts) for each in found if each.incident.is_open]


@pytest.mark.parametrize("history_days", [3, 90])
@pytest.mark.parametrize("minute", range(0, 60, 7))
def test_the_first_pull_raises_one_alert_the_day_after_it_none_whatever_the_minute(rules, minute, history_days):
    market = SimulatedMarket(NOON + MINUTE * minute)
    first_pull = market.falls_at + MINUTE
    assert alerts_of_a_newcomer(market, rules, first_pull, history_days, 26) == [("move_1h", first_pull)]


def test_the_fall_is_more_than_6_percent_against_any_price_of_30_to_90_minutes_before(market):
    for after in (timedelta(), MINUTE, 10 * MINUTE):
        price = market.price_at("bitcoin", NOON + after)
        earlier = [market.price_at("bitcoin", NOON + after - MINUTE * number) for number in range(30, 91)]
        assert all(-0.08 < price / before - 1 < -0.06 for before in earlier)


def test_only_bitcoin_falls_and_by_6_to_7_percent(market):
    def change(coin):
        return market.price_at(coin, NOON) / market.price_at(coin, NOON - timedelta(microseconds=1)) - 1

    assert -0.07 < change("bitcoin") < -0.06
    assert all(abs(change(coin)) < 0.001 for coin in COINS if coin != "bitcoin")


def test_the_story_is_the_same_for_everybody_and_told_from_the_fall_on(market):
    offsets = [timedelta(hours=hours, minutes=7) for hours in (-9000, -500, -1, 0, 1, 500, 9000)]
    later = SimulatedMarket(NOON + timedelta(days=200, minutes=13))
    # Asked the other way round, what is remembered in between is another.
    told = [later.price_at("ethereum", later.falls_at + offset) for offset in reversed(offsets)]
    assert told[::-1] == [market.price_at("ethereum", NOON + offset) for offset in offsets]


def test_another_seed_tells_another_story(market):
    moment = NOON - timedelta(days=30)
    assert SimulatedMarket(NOON, seed=2).price_at("bitcoin", moment) != market.price_at("bitcoin", moment)


def test_prices_are_of_realistic_size_for_a_year_before_and_after(market):
    for coin, about in COINS.items():
        prices = [market.price_at(coin, NOON + timedelta(days=days)) for days in range(-366, 367, 3)]
        assert about.price / 4 < min(prices)
        assert max(prices) < about.price * 4
    assert market.price_at("shiba-inu", NOON) < 1e-5


def test_years_on_there_are_prices_of_a_sane_size(market):
    for coin, about in COINS.items():
        assert about.price / 30 < market.price_at(coin, NOON + timedelta(days=2000)) < about.price * 30


@pytest.mark.parametrize("minutes", [0, 30])
def test_an_hour_moves_about_half_a_percent_at_whatever_minute_it_is_looked_at(market, minutes):
    start = NOON - timedelta(days=365, minutes=minutes)
    logs = [math.log(market.price_at("bitcoin", start + HOUR * number)) for number in range(364 * 24)]
    moves = [after - before for before, after in pairwise(logs)]
    assert 0.0045 < math.sqrt(statistics.fmean(move * move for move in moves)) < 0.006


def test_there_are_calm_and_wild_days(market):
    def wildness(day):
        start = NOON - timedelta(days=day)
        logs = [math.log(market.price_at("bitcoin", start + HOUR * number)) for number in range(25)]
        return statistics.stdev(after - before for before, after in pairwise(logs))

    days = sorted(wildness(day) for day in range(10, 110))
    assert days[89] > 2 * days[10]


def test_many_threads_see_one_market():
    market, alone = SimulatedMarket(NOON), SimulatedMarket(NOON)
    moments = [NOON + timedelta(days=day) for day in (-300, 300, -200, 200, -100, 100)] * 8
    with ThreadPoolExecutor(16) as threads:
        prices = list(threads.map(lambda moment: market.price_at("solana", moment), moments))
    assert prices == [alone.price_at("solana", moment) for moment in moments]


def test_a_coin_that_is_not_simulated_has_no_price(market):
    assert market.price_at("dogwifcoin", NOON) is None


def test_the_next_start_goes_on_with_the_same_market_and_nothing_falls_again(tmp_path):
    first = SimulatedMarket.kept_in(tmp_path / "market.json", NOON)
    again = SimulatedMarket.kept_in(tmp_path / "market.json", NOON + timedelta(days=3))
    assert (first.falls_at, again.falls_at) == (NOON, NOON)
    assert json.loads((tmp_path / "market.json").read_bytes()) == {"seed": 1, "falls_at": "2026-11-22T12:00:00Z"}
    moment = NOON + timedelta(days=4)
    assert again.price_at("bitcoin", moment) == first.price_at("bitcoin", moment)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"seed": 1, "falls_at": "2026-11-22T12:00:00"}'])
def test_a_file_that_is_no_market_is_named(tmp_path, content):
    path = tmp_path / "market.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="does not say which market it was") as caught:
        SimulatedMarket.kept_in(path, NOON)
    assert str(caught.value).startswith(f"{path} does not")
    assert str(caught.value).endswith(f": remove the folder {tmp_path} to start anew")


def test_a_recorded_price_holds_until_the_next_one(tmp_path):
    path = tmp_path / "prices.csv"
    path.write_text("timestamp,price\n2026-11-22T12:00:00Z,63940.123\n2026-11-22T11:00:00+00:00,6.44e-06\n")
    market = RecordedMarket.from_csv(path, "bitcoin")
    asked = [NOON - HOUR - MINUTE, NOON - HOUR, NOON - MINUTE, NOON, NOON + timedelta(days=9)]
    assert [market.price_at("bitcoin", moment) for moment in asked] == [None, 6.44e-06, 6.44e-06, 63940.123, 63940.123]
    assert market.price_at("ethereum", NOON) is None
    assert (market.kind, market.coins) == ("recorded", ("bitcoin",))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        pytest.param(
            "when,price\n", " needs a header line with timestamp and price, but has ['when', 'price']", id="header"
        ),
        pytest.param("", " needs a header line with timestamp and price, but has None", id="empty"),
        pytest.param("timestamp,price\n", " has no price in it", id="no row"),
        pytest.param(
            "timestamp,price\n2026-11-22T12:00:00Z,many\n",
            ", line 2: could not convert string to float: 'many'",
            id="text",
        ),
        pytest.param("timestamp,price\n2026-11-22T12:00:00Z,nan\n", ", line 2: 'nan' is no price", id="nan"),
        pytest.param(
            "timestamp,price\n2026-11-22T12:00:00,1\n",
            ", line 2: time '2026-11-22T12:00:00' has no zone; write for example 2026-11-22T10:00:00Z",
            id="zone",
        ),
    ],
)
def test_a_recording_that_is_not_understood_is_named_with_its_line(tmp_path, content, told):
    path = tmp_path / "prices.csv"
    path.write_text(content)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared below
        RecordedMarket.from_csv(path, "bitcoin")
    assert str(caught.value) == f"{path}{told}"
