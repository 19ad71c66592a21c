from datetime import timedelta
from itertools import pairwise

import pytest
import requests

from coinwatch.sandbox.faults import ERRORS, KINDS
from coinwatch.times import from_milliseconds


@pytest.fixture
def get(world):
    def get(path, **params):
        return requests.get(world.coingecko.url + path, params=params, timeout=5)

    return get


def test_a_price_is_rounded_unless_every_digit_is_asked_for(get):
    plain = get("/simple/price", ids="bitcoin,unknown", vs_currencies="usd,nope").json()
    assert list(plain) == ["bitcoin"]
    assert list(plain["bitcoin"]) == ["usd"]
    assert isinstance(plain["bitcoin"]["usd"], int)
    full = get("/simple/price", ids="bitcoin", vs_currencies="usd", precision="full").json()
    assert round(full["bitcoin"]["usd"]) == plain["bitcoin"]["usd"] != full["bitcoin"]["usd"]


def test_every_answer_says_that_it_is_simulated(get):
    assert get("/ping").headers["X-Coinwatch-Sandbox"] == "simulated"
    assert get("/ping").json() == {"gecko_says": "(V3) To the Moon!"}


@pytest.mark.parametrize(
    ("path", "params", "status", "body"),
    [
        ("/simple/price", {"ids": "bitcoin"}, 422, {"error": "Missing parameter vs_currencies"}),
        ("/coins/markets", {"vs_currency": "usdt"}, 400, {"error": "invalid vs_currency"}),
        ("/coins/none/market_chart", {"vs_currency": "usd", "days": "2"}, 404, {"error": "coin not found"}),
        (
            "/coins/bitcoin/market_chart",
            {"vs_currency": "usd", "days": "366"},
            ERRORS["beyond_time_range"][0],
            ERRORS["beyond_time_range"][2],
        ),
    ],
)
def test_what_coingecko_refuses_is_refused_in_its_words(get, path, params, status, body):
    answer = get(path, **params)
    assert (answer.status_code, answer.json()) == (status, body)


def test_the_market_list_has_times_of_another_format(get):
    (item,) = get("/coins/markets", vs_currency="usd", ids="bitcoin").json()
    assert item["last_updated"] == "2026-11-22T11:59:20.000Z"


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
    # Points lie near their time, and not on it.
    assert all(abs(later - earlier - step) < timedelta(minutes=1) for earlier, later in pairwise(times[:-1]))
    assert len(times) == points + 1
    assert times[-1] == noon, "the last point is now"
    assert len(chart["market_caps"]) == len(chart["total_volumes"]) == len(times)


def test_points_of_a_window_in_the_past_lie_near_the_hour(get, noon):
    start, end = (int((noon - timedelta(days=days)).timestamp()) for days in (5, 2))
    chart = get("/coins/bitcoin/market_chart/range", vs_currency="usd", **{"from": start, "to": end}).json()
    assert all(10_000 <= moment % 3_600_000 <= 60_000 for moment, _ in chart["prices"])
    assert len(chart["prices"]) == 72


def test_faults_are_switched_over_http_and_end_after_their_times(world, get):
    url = f"{world.coingecko.origin}/sandbox/faults"
    fault = {"kind": "rate_limited", "retry_after": 30, "times": 1, "path": "simple"}
    assert requests.post(url, json=fault, timeout=5).json()[0]["kind"] == "rate_limited"
    assert get("/ping").status_code == 200
    refused = get("/simple/price", ids="bitcoin", vs_currencies="usd")
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "30")
    assert get("/simple/price", ids="bitcoin", vs_currencies="usd").status_code == 200
    requests.post(url, json={"kind": "server_error"}, timeout=5)
    assert get("/ping").status_code == 500
    assert requests.delete(url, timeout=5).json() == []
    assert get("/ping").status_code == 200


def test_an_unknown_fault_is_refused_with_those_that_are_known(world):
    answer = requests.post(f"{world.coingecko.origin}/sandbox/faults", json={"kind": "rain"}, timeout=5)
    assert answer.status_code == 400
    assert all(kind in answer.json()["error"] for kind in KINDS)


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_comes_with_its_status(world, get, kind):
    world.coingecko.fail(kind)
    assert get("/ping").status_code == ERRORS[kind][0]


def test_mishaps_befall_a_sound_answer(world, get):
    def price(**fault):
        world.coingecko.recover()
        world.coingecko.fail(**fault)
        return get("/simple/price", ids="bitcoin", vs_currencies="usd", include_last_updated_at="true").json()

    sound = get("/simple/price", ids="bitcoin", vs_currencies="usd", include_last_updated_at="true").json()["bitcoin"]
    assert price(kind="price_null")["bitcoin"]["usd"] is None
    assert price(kind="price_times", factor=10)["bitcoin"]["usd"] == sound["usd"] * 10
    assert price(kind="price_old", seconds=7200)["bitcoin"]["last_updated_at"] == sound["last_updated_at"] - 7200
    assert price(kind="coin_missing") == {}
    with pytest.raises(requests.JSONDecodeError):
        price(kind="broken_json")
    for kind in ("connection_lost", "connection_refused"):
        with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
            price(kind=kind)
