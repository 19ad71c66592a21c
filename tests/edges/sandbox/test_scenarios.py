from datetime import timedelta

import pytest
import requests

from coinwatch.sandbox.market import RecordedMarket, SimulatedMarket
from coinwatch.sandbox.scenarios import SCENARIOS
from coinwatch.sandbox.server import start_sandbox


@pytest.fixture
def sandbox(clock):
    with start_sandbox(SimulatedMarket(clock.now - timedelta(hours=1)), clock=clock) as sandbox:
        yield sandbox


def press(sandbox, name):
    """Press a button of the page; the page comes back."""
    page = requests.post(f"{sandbox.slack.origin}/sandbox/scenarios/{name}", timeout=5)
    assert (page.status_code, page.url) == (200, f"{sandbox.slack.origin}/")
    return page.text


def statuses(sandbox):
    """How CoinGecko, Slack and S3 answer."""
    return [
        requests.get(f"{sandbox.coingecko.url}/ping", timeout=5).status_code,
        requests.post(f"{sandbox.slack.url}/T/B/x", json={"text": "x"}, timeout=5).status_code,
        requests.put(f"{sandbox.s3.url}/coinwatch-sandbox/x", data=b"1", timeout=5).status_code,
    ]


def quote(sandbox):
    params = {"ids": "bitcoin", "vs_currencies": "usd", "include_last_updated_at": "true", "precision": "full"}
    return requests.get(f"{sandbox.coingecko.url}/simple/price", params=params, timeout=5).json()["bitcoin"]


def test_every_service_has_an_outage_and_all_end_together(sandbox):
    for name in ("coingecko-down", "slack-down", "s3-down"):
        press(sandbox, name)
    assert statuses(sandbox) == [503, 503, 503]
    page = requests.get(sandbox.coingecko.origin, timeout=5)
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert page.text == requests.get(sandbox.slack.origin, timeout=5).text
    assert all(f"<li>{line}</li>" in page.text for line in sandbox.active())
    assert len(list(sandbox.active())) == 3
    press(sandbox, "recover")
    assert statuses(sandbox) == [200, 200, 200]
    assert list(sandbox.active()) == []
    unknown = requests.post(f"{sandbox.coingecko.origin}/sandbox/scenarios/rain", timeout=5)
    assert unknown.status_code == 404
    assert all(name in unknown.json()["error"] for name in SCENARIOS)


def test_bitcoin_falls_and_stays_there_in_the_history_too(sandbox, clock):
    before = quote(sandbox)
    press(sandbox, "fall")
    press(sandbox, "recover")
    assert quote(sandbox)["usd"] == pytest.approx(before["usd"] * 0.92)
    clock.now += timedelta(hours=3)
    url = f"{sandbox.coingecko.url}/coins/bitcoin/market_chart"
    chart = requests.get(url, params={"vs_currency": "usd", "days": 2}, timeout=5).json()
    assert chart["prices"][-3][1] < before["usd"] * 0.95
    # Recorded prices do not.
    sandbox.coingecko.market = RecordedMarket("bitcoin", [(clock.now - timedelta(days=1), 5.0)])
    assert "/sandbox/scenarios/fall" not in press(sandbox, "fall")
    assert quote(sandbox)["usd"] == 5.0


def test_the_feed_freezes_and_a_429_takes_its_place(sandbox, clock):
    before = quote(sandbox)
    press(sandbox, "frozen")
    clock.now += timedelta(hours=2)
    assert quote(sandbox) == before
    press(sandbox, "rate-limited")
    refused = requests.get(f"{sandbox.coingecko.url}/simple/price", timeout=5)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "120")
