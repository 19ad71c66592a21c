"""The sandbox's CoinGecko: the endpoints that are used, in the shapes and with the manners of the real ones."""

import json
import re
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from coinwatch.sandbox.faults import ERRORS, Fault
from coinwatch.sandbox.http import Request, Response, SandboxServer, json_response
from coinwatch.sandbox.market import COINS, Market
from coinwatch.times import HOUR, floor_hour, format_time, from_seconds

CURRENCIES = {"usd": 1.0, "eur": 0.92, "gbp": 0.79, "jpy": 151.0}
"""Units of a currency for one US dollar."""

DATA_AGE = timedelta(seconds=40)
"""Prices are half a minute to a minute old by design."""

POINT_DELAY = timedelta(seconds=41, milliseconds=331)
"""Points of the history lie near the hour, and not on it."""

HISTORY_MAX = timedelta(days=365)

_REQUESTS_KEPT = 10_000


class CoinGeckoSandbox(SandboxServer):
    """A CoinGecko on loopback.

    Attributes:
        requests: What it was asked, oldest first.
        faults: What goes wrong at the moment.
    """

    def __init__(self, market: Market, *, clock: Callable[[], datetime], port: int = 0) -> None:
        super().__init__(clock, port)
        self._clock = clock
        self.requests: deque[Request] = deque(maxlen=_REQUESTS_KEPT)
        self.faults: list[Fault] = []
        self._market = market
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """What the connection's host has to be."""
        return f"{self.origin}/api/v3"

    def fail(self, kind: str, **options: Any) -> None:
        """Switch a fault on; options by ``Fault``."""
        with self._lock:
            self.faults.append(Fault(kind, **options))

    def recover(self) -> None:
        """Switch all faults off."""
        with self._lock:
            self.faults.clear()

    def respond(self, request: Request) -> Response:
        """Answer as CoinGecko would, or as the fault that is switched on wants it."""
        if request.path == "/sandbox/faults":
            return self._switch(request)
        self.requests.append(request)
        response = self._answer(request)
        fault = self._next_fault(request)
        if fault is not None:
            response = fault.befall(response)
        response.headers["X-Coinwatch-Sandbox"] = self._market.kind
        return response

    def _switch(self, request: Request) -> Response:
        try:
            if request.method == "POST":
                self.fail(**json.loads(request.body))
            elif request.method == "DELETE":
                self.recover()
        except (TypeError, ValueError) as error:
            return json_response({"error": str(error)}, 400)
        return json_response([asdict(fault) for fault in self.faults])

    def _next_fault(self, request: Request) -> Fault | None:
        with self._lock:
            fault = next((fault for fault in self.faults if fault.path in request.path), None)
            if fault is not None and fault.times is not None:
                fault.times -= 1
                if fault.times == 0:
                    self.faults.remove(fault)
            return fault

    def _answer(self, request: Request) -> Response:
        path = request.path.removeprefix("/api/v3")
        if path == "/ping":
            return json_response({"gecko_says": "(V3) To the Moon!"})
        if path == "/simple/price":
            return self._simple_price(request)
        if path == "/coins/markets":
            return self._markets(request)
        chart = re.fullmatch(r"/coins/([^/]+)/market_chart(/range)?", path)
        if chart:
            return self._market_chart(request, chart[1], by_range=bool(chart[2]))
        return json_response({"error": "Incorrect path. Please check https://www.coingecko.com/api/"}, 404)

    def _simple_price(self, request: Request) -> Response:
        query = request.query
        if "vs_currencies" not in query:
            return json_response({"error": "Missing parameter vs_currencies"}, 422)
        now = self._clock()
        quotes = {}
        for coin in query.get("ids", "").split(","):
            price = self._price(coin, now)
            if price is not None:
                quotes[coin] = self._quote(query, coin, price, now)
        return json_response(quotes)

    def _quote(self, query: Any, coin: str, price: float, now: datetime) -> dict[str, Any]:
        quote: dict[str, Any] = {}
        before = self._price(coin, now - timedelta(days=1))
        for currency in query["vs_currencies"].split(","):
            if currency not in CURRENCIES:
                continue
            value = price * CURRENCIES[currency]
            quote[currency] = value if query.get("precision") == "full" else _rounded(value)
            if query.get("include_market_cap") == "true":
                quote[f"{currency}_market_cap"] = value * _supply(coin)
            if query.get("include_24hr_vol") == "true":
                quote[f"{currency}_24h_vol"] = value * _supply(coin) * 0.019
            if query.get("include_24hr_change") == "true":
                quote[f"{currency}_24h_change"] = None if before is None else 100 * (price / before - 1)
        if query.get("include_last_updated_at") == "true":
            quote["last_updated_at"] = int((now - DATA_AGE).timestamp())
        return quote

    def _markets(self, request: Request) -> Response:
        currency = request.query.get("vs_currency", "")
        if currency not in CURRENCIES:
            return json_response({"error": "invalid vs_currency"}, 400)
        now = self._clock()
        wanted = [coin for coin in request.query.get("ids", ",".join(COINS)).split(",") if coin]
        size = min(250, int(request.query.get("per_page", "100")))
        page = int(request.query.get("page", "1"))
        items = []
        for coin in wanted[(page - 1) * size : page * size]:
            price = self._price(coin, now)
            if price is not None:
                value = price * CURRENCIES[currency]
                items.append(
                    {
                        "id": coin,
                        "current_price": value,
                        "market_cap": value * _supply(coin),
                        "total_volume": value * _supply(coin) * 0.019,
                        "last_updated": format_time(now - DATA_AGE),
                    }
                )
        return json_response(items)

    def _market_chart(self, request: Request, coin: str, *, by_range: bool) -> Response:
        query, now = request.query, self._clock()
        currency = query.get("vs_currency", "")
        if currency not in CURRENCIES:
            return json_response({"error": "invalid vs_currency"}, 400)
        if self._price(coin, now) is None and self._price(coin, now - HISTORY_MAX) is None:
            return json_response({"error": "coin not found"}, 404)
        if by_range:
            start, end = from_seconds(int(query["from"])), min(from_seconds(int(query["to"])), now)
        else:
            start, end = now - timedelta(days=float(query["days"])), now
        if now - start > HISTORY_MAX + timedelta(minutes=5):
            status, body = ERRORS["beyond_time_range"]
            return json_response(body, status)
        points = [(moment, self._price(coin, moment)) for moment in _point_times(start, end, now)]
        known = [
            (int(moment.timestamp() * 1000), price * CURRENCIES[currency])
            for moment, price in points
            if price is not None
        ]
        return json_response(
            {
                "prices": known,
                "market_caps": [(moment, price * _supply(coin)) for moment, price in known],
                "total_volumes": [(moment, price * _supply(coin) * 0.019) for moment, price in known],
            }
        )

    def _price(self, coin: str, moment: datetime) -> float | None:
        return self._market.price_at(coin, moment)


def _point_times(start: datetime, end: datetime, now: datetime) -> list[datetime]:
    """By the length of the window: every 5 minutes, about every hour, or at midnight; and now, if it ends there."""
    touches_now = end >= now - timedelta(minutes=1)
    length = end - start
    if length > timedelta(days=90):
        step, offset = timedelta(days=1), timedelta()
        first = floor_hour(start).replace(hour=0)
    elif length <= timedelta(days=1) and touches_now:
        step, offset = timedelta(minutes=5), timedelta(seconds=7)
        first = floor_hour(start)
    else:
        step, offset = HOUR, POINT_DELAY
        first = floor_hour(start)
    count = int((end - first) / step) + 2
    times = [first + step * number + offset for number in range(count)]
    inside = [moment for moment in times if start <= moment <= end]
    return [*inside, now] if touches_now else inside


def _supply(coin: str) -> float:
    return COINS[coin].supply if coin in COINS else 1_000_000.0


def _rounded(price: float) -> float:
    return round(price) if price >= 1000 else round(price, 2) if price >= 1 else float(f"{price:.6g}")
