from contextlib import ExitStack
from datetime import timedelta
from itertools import pairwise
from threading import Thread

import pytest
import requests

from coinwatch.sandbox.coingecko import CoinGeckoSandbox
from coinwatch.sandbox.faults import ERRORS
from coinwatch.sandbox.market import RecordedMarket, SimulatedMarket
from coinwatch.times import from_milliseconds


@pytest.fixture
def coingecko(clock):
    with CoinGeckoSandbox(SimulatedMarket(clock.now - timedelta(minutes=1)), clock=clock) as coingecko:
        yield coingecko


@pytest.fixture
def get(coingecko):
    def get(path, **params):
        return requests.get(coingecko.url + path, params=params, timeout=5)

    return get


@pytest.fixture
def quotes(get):
    """Ask for quotes, with every digit."""

    def quotes(**params):
        asked = {"ids": "bitcoin", "vs_currencies": "usd", "include_last_updated_at": "true", "precision": "full"}
        return get("/simple/price", **asked | params).json()

    return quotes


def test_a_price_has_what_was_asked_for_and_is_rounded_otherwise(get, quotes, coingecko, noon):
    params = {f"include_{name}": "true" for name in ("market_cap", "24hr_vol", "24hr_change")}
    quote = quotes(ids="ethereum", vs_currencies="usd,eur", **params)["ethereum"]
    names = ("", "_market_cap", "_24h_vol", "_24h_change")
    assert sorted(quote) == sorted([f"{c}{name}" for c in ("usd", "eur") for name in names] + ["last_updated_at"])
    price, before = (coingecko.market.price_at("ethereum", noon - timedelta(days=days)) for days in (0, 1))
    assert quote["usd"] == price != round(price)
    assert quote["usd_24h_change"] == quote["eur_24h_change"] == pytest.approx(100 * (price / before - 1))
    assert quote["usd_market_cap"] > quote["usd_24h_vol"] > quote["usd"]
    assert quote["last_updated_at"] == int(noon.timestamp()) - 40
    plain = get("/simple/price", ids="ethereum,unknown", vs_currencies="usd,nope").json()
    assert plain == {"ethereum": {"usd": round(price)}}


@pytest.mark.parametrize(
    ("path", "params", "status", "body"),
    [
        ("/simple/price", {"ids": "bitcoin"}, 422, {"error": "Missing parameter vs_currencies"}),
        (
            "/coins/bitcoin/market_chart/range",
            {"vs_currency": "usd", "from": "2026-11-22", "to": "1795348800"},
            422,
            {"error": "Missing parameter from"},
        ),
        ("/coins/list", {}, 404, {"error": "Incorrect path. Please check https://www.coingecko.com/api/"}),
        ("/coins/markets", {"vs_currency": "usdt"}, *ERRORS["currency_invalid"]),
        ("/coins/none/market_chart", {"vs_currency": "usd", "days": "2"}, *ERRORS["coin_not_found"]),
        ("/coins/bitcoin/market_chart", {"vs_currency": "usd", "days": "366"}, *ERRORS["beyond_time_range"]),
    ],
)
def test_what_coingecko_refuses_is_refused_in_its_words(get, path, params, status, body):
    answer = get(path, **params)
    assert (answer.status_code, answer.json()) == (status, body)


def test_the_market_list_has_the_largest_coin_first_and_times_of_another_format(get):
    answer = get("/coins/markets", vs_currency="usd")
    assert answer.headers["X-Coinwatch-Sandbox"] == "simulated"
    items = answer.json()
    assert [item["symbol"] for item in items[:3]] == ["btc", "eth", "xrp"]
    assert items[0]["last_updated"] == "2026-11-22T11:59:20.000Z"
    (item,) = get("/coins/markets", vs_currency="usd", ids="solana,unknown").json()
    assert (item["id"], item["name"]) == ("solana", "Solana")


@pytest.mark.parametrize(
    ("days", "step", "points"),
    [
        pytest.param(1, timedelta(minutes=5), 288, id="a day: 5 minutes"),
        pytest.param(2, timedelta(hours=1), 48, id="two days: hours"),
        pytest.param(90, timedelta(hours=1), 2160, id="90 days: hours"),
        pytest.param(91, timedelta(days=1), 91, id="more: days"),
    ],
)
def test_the_length_of_a_window_decides_how_far_its_points_are_apart(get, noon, days, step, points):
    chart = get("/coins/bitcoin/market_chart", vs_currency="usd", days=days).json()
    times = [from_milliseconds(moment) for moment, _ in chart["prices"]]
    assert {later - earlier for earlier, later in pairwise(times[:-1])} == {step}
    assert len(times) == points + 1
    assert times[-1] == noon, "the last point is now"
    assert len(chart["market_caps"]) == len(chart["total_volumes"]) == len(times)


@pytest.mark.parametrize(("first", "last", "points"), [(5, 2, 72), (3, 2, 24)])
def test_points_of_a_window_in_the_past_lie_near_the_hour(get, noon, first, last, points):
    start, end = (int((noon - timedelta(days=days)).timestamp()) for days in (first, last))
    chart = get("/coins/bitcoin/market_chart/range", vs_currency="usd", **{"from": start, "to": end}).json()
    assert {moment % 3_600_000 for moment, _ in chart["prices"]} == {41_331}
    assert len(chart["prices"]) == points


def test_before_the_first_recorded_price_there_are_no_points(coingecko, get, noon):
    coingecko.market = RecordedMarket("bitcoin", [(noon - timedelta(hours=2), 5.0)])
    answer = get("/coins/bitcoin/market_chart", vs_currency="usd", days=1)
    assert [price for _, price in answer.json()["prices"]] == [5.0] * (24 + 1)
    assert answer.headers["X-Coinwatch-Sandbox"] == "recorded"
    start, end = (int((noon - timedelta(hours=hours)).timestamp()) for hours in (300, 3))
    empty = {"prices": [], "market_caps": [], "total_volumes": []}
    params = {"vs_currency": "usd", "from": start, "to": end}
    assert get("/coins/bitcoin/market_chart/range", **params).json() == empty


def test_faults_are_switched_over_http_and_end_after_their_times(coingecko, get):
    url = f"{coingecko.origin}/sandbox/faults"
    fault = {"kind": "rate_limited", "retry_after": 30, "times": 1, "path": "simple", "since": "2026-11-22T11:00:00Z"}
    (shown,) = requests.post(url, json=fault, timeout=5).json()
    assert requests.get(url, timeout=5).json() == [shown]
    assert {name: shown[name] for name in fault} == fault
    assert get("/ping").status_code == 200
    refused = get("/simple/price", ids="bitcoin", vs_currencies="usd")
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "30")
    assert get("/simple/price", ids="bitcoin", vs_currencies="usd").status_code == 200
    requests.post(url, json={"kind": "server_error"}, timeout=5)
    assert get("/ping").status_code == 500
    assert requests.delete(url, timeout=5).json() == []
    assert get("/ping").json() == {"gecko_says": "(V3) To the Moon!"}
    for options in ({"kind": "rain"}, {}, {"kind": "slow", "times": 0}, {"kind": "slow", "x": 1}):
        answer = requests.post(url, json=options, timeout=5)
        assert (answer.status_code, list(answer.json())) == (400, ["error"])
    assert coingecko.faults == []


def test_mishaps_change_a_good_answer_of_one_coin_and_those_of_prices_leave_the_history_alone(coingecko, get, quotes):
    def changed(**fault):
        coingecko.recover()
        coingecko.fail(**fault)
        return quotes(ids="bitcoin,ethereum", vs_currencies="usd,eur")

    sound = quotes(ids="bitcoin", vs_currencies="usd,eur")["bitcoin"]
    assert changed(kind="price_null")["bitcoin"] == {**sound, "usd": None, "eur": None}
    assert changed(kind="price_times", factor=0)["bitcoin"] == {**sound, "usd": 0, "eur": 0}
    assert changed(kind="price_old", seconds=9)["bitcoin"] == {**sound, "last_updated_at": sound["last_updated_at"] - 9}
    assert list(changed(kind="coin_missing")) == ["ethereum"]
    assert changed(kind="price_null", coin="ethereum")["bitcoin"] == sound
    chart = get("/coins/bitcoin/market_chart", vs_currency="usd", days=2).json()
    assert all(price for _, price in chart["prices"])
    for kind in ("broken_json", "connection_lost", "connection_refused"):
        with pytest.raises(requests.RequestException):
            changed(kind=kind)


@pytest.mark.parametrize(("kind", "age"), [("feed_frozen", 2 * 3600 + 40), ("price_frozen", 40)])
def test_a_frozen_feed_gives_the_price_of_when_it_froze(coingecko, quotes, clock, kind, age):
    before = quotes()["bitcoin"]
    coingecko.fail(kind)
    clock.now += timedelta(hours=2)
    assert quotes()["bitcoin"] == {"usd": before["usd"], "last_updated_at": int(clock.now.timestamp()) - age}
    coingecko.recover()
    assert quotes()["bitcoin"]["usd"] != before["usd"]


def test_a_slow_answer_does_not_keep_the_service_from_closing(clock):
    with ExitStack() as opened:
        coingecko = opened.enter_context(CoinGeckoSandbox(SimulatedMarket(clock.now), clock=clock))
        coingecko.fail("slow", seconds=600)
        asking = Thread(target=requests.get, args=[f"{coingecko.url}/ping"], kwargs={"timeout": 30})
        asking.start()
        while not coingecko.requests:
            asking.join(0.01)
        opened.close()
        asking.join()
