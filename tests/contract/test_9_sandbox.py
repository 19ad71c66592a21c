"""Contract, section 9: the sandbox answers as the real services do, and its faults are switched on over HTTP."""

import pytest
import requests

ENDPOINTS = {
    "/ping": {},
    "/simple/price": {"ids": "bitcoin", "vs_currencies": "usd"},
    "/coins/markets": {"ids": "bitcoin", "vs_currency": "usd"},
    "/coins/bitcoin/market_chart": {"vs_currency": "usd", "days": "2"},
    "/coins/bitcoin/market_chart/range": {"vs_currency": "usd", "from": "1795132800", "to": "1795305600"},
}


@pytest.mark.parametrize("path", ENDPOINTS)
def test_an_endpoint_of_coingecko_answers(world, path):
    response = requests.get(f"{world.coingecko.url}{path}", params=ENDPOINTS[path], timeout=5)
    assert response.status_code == 200
    assert response.json()


def test_a_fault_is_switched_on_and_off_over_http(world):
    price = f"{world.coingecko.url}/simple/price"
    faults = f"{world.coingecko.origin}/sandbox/faults"
    requests.post(faults, json={"kind": "rate_limited", "retry_after": 30}, timeout=5)
    limited = requests.get(price, params=ENDPOINTS["/simple/price"], timeout=5)
    assert (limited.status_code, limited.headers["Retry-After"]) == (429, "30")
    requests.delete(faults, timeout=5)
    assert requests.get(price, params=ENDPOINTS["/simple/price"], timeout=5).status_code == 200


def test_slack_keeps_and_shows_what_it_received(world):
    assert requests.post(f"{world.slack.url}/T/B/x", json={"text": "hello"}, timeout=5).text == "ok"
    shown = requests.get(f"{world.slack.origin}/messages", timeout=5).json()
    assert [message["payload"] for message in shown] == [{"text": "hello"}]
