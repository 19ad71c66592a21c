"""The sandbox's CoinGecko: the endpoints that are used, in the shapes and with the manners of the real ones."""

import json
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Any

from coinwatch.sandbox.faults import FROZEN, Fault, error_response
from coinwatch.sandbox.http import HOST, Request, Response, SandboxServer, json_response
from coinwatch.sandbox.market import COINS, Market, SimulatedCoin
from coinwatch.times import HOUR, floor_hour, from_seconds, parse_time

CURRENCIES = {"usd": 1.0, "eur": 0.92, "gbp": 0.79, "jpy": 151.0}
"""Units of a currency for one US dollar."""

DATA_AGE = timedelta(seconds=40)
"""Prices are half a minute to a minute old by design."""

POINT_DELAY = timedelta(seconds=41, milliseconds=331)
"""Points of the history lie near their hour, or five minutes, and not on it."""

DAY = timedelta(days=1)

MINUTE = timedelta(minutes=1)

HISTORY_MAX = timedelta(days=365)

TURNOVER = 0.019
"""Part of all coins that is traded in 24 hours."""

_INTERVALS = {"hourly": HOUR, "daily": DAY}

_SPANS = {"1h": HOUR, "24h": DAY, "7d": 7 * DAY, "14d": 14 * DAY, "30d": 30 * DAY, "200d": 200 * DAY, "1y": 365 * DAY}
"""Times over which ``/coins/markets`` tells the change."""

_REQUESTS_KEPT = 10_000

_MARKETS_PER_PAGE = 250


class _Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


@dataclass(frozen=True, slots=True)
class _Now:
    """What time it is, for one answer.

    Attributes:
        clock: By the clock.
        price: Of the live prices; long ago when the feed stands still.
        updated: What the feed says of its prices.
    """

    clock: datetime
    price: datetime
    updated: datetime


class CoinGeckoSandbox(SandboxServer):
    """A CoinGecko on loopback.

    Attributes:
        requests: What it was asked, oldest first.
        faults: What goes wrong at the moment.
        per_minute: Requests of one key in a minute; more are refused, and count too. None: as many as come.
    """

    def __init__(
        self,
        market: Market,
        *,
        clock: Callable[[], datetime],
        port: int = 0,
        host: str = HOST,
        per_minute: int | None = None,
    ) -> None:
        super().__init__(clock, port, host)
        self.per_minute = per_minute
        self._asked: dict[str, deque[datetime]] = {}
        self.requests: deque[Request] = deque(maxlen=_REQUESTS_KEPT)
        self.faults: list[Fault] = []
        self._clock = clock
        self._market = market
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """What the connection's host has to be."""
        return f"{self.origin}/api/v3"

    def fail(self, kind: str, **options: Any) -> None:
        """Switch a fault on; the first one that concerns a request befalls it.

        Args:
            kind: What goes wrong.
            **options: The other attributes of ``Fault``.

        Raises:
            ValueError: The kind or the value of an option is not understood.
            TypeError: There is no such option.
        """
        if options.get("since") is None:
            options["since"] = self._clock()
        fault = Fault(kind, **options)
        with self._lock:
            self.faults.append(fault)

    def recover(self) -> None:
        """Switch all faults off."""
        with self._lock:
            self.faults.clear()

    def respond(self, request: Request) -> Response:
        """Answer as CoinGecko would, or as the fault that is switched on wants it."""
        if request.path == "/sandbox/faults":
            response = self._switch(request)
        else:
            self.requests.append(request)
            fault = self._next_fault(request)
            response = self._refuse_too_many(request) or self._answer(request, self._now(fault))
            if fault is not None:
                response = fault.befall(response)
        response.headers["X-Coinwatch-Sandbox"] = self._market.kind
        return response

    def _switch(self, request: Request) -> Response:
        try:
            if request.method == "POST":
                options = json.loads(request.body)
                if isinstance(options.get("since"), str):
                    options["since"] = parse_time(options["since"])
                self.fail(**options)
            elif request.method == "DELETE":
                self.recover()
        except (TypeError, ValueError, AttributeError) as error:
            return json_response({"error": str(error)}, 400)
        with self._lock:
            return json_response([fault.described() for fault in self.faults])

    def _refuse_too_many(self, request: Request) -> Response | None:
        """The answer to a request that is one too many in its minute."""
        if self.per_minute is None:
            return None
        now = self._clock()
        key = request.headers.get("x-cg-demo-api-key") or request.headers.get("x-cg-pro-api-key", "")
        with self._lock:
            asked = self._asked.setdefault(key, deque())
            asked.append(now)
            while asked[0] <= now - MINUTE:
                asked.popleft()
            if len(asked) <= self.per_minute:
                return None
            free = asked[-self.per_minute] + MINUTE
        response = error_response("rate_limited")
        response.headers["Retry-After"] = str(ceil((free - now).total_seconds()))
        return response

    def _next_fault(self, request: Request) -> Fault | None:
        with self._lock:
            fault = next((fault for fault in self.faults if fault.concerns(request.path)), None)
            if fault is not None and fault.times is not None:
                fault.times -= 1
                if fault.times == 0:
                    self.faults.remove(fault)
            return fault

    def _now(self, fault: Fault | None) -> _Now:
        clock = self._clock()
        if fault is None or fault.kind not in FROZEN or fault.since is None:
            return _Now(clock, clock, clock - DATA_AGE)
        updated = fault.since if fault.kind == "feed_frozen" else clock
        return _Now(clock, fault.since, updated - DATA_AGE)

    def _answer(self, request: Request, now: _Now) -> Response:
        path, query = request.path.removeprefix("/api/v3"), request.query
        chart = re.fullmatch(r"/coins/([^/]+)/market_chart(/range)?", path)
        try:
            if path == "/ping":
                return json_response({"gecko_says": "(V3) To the Moon!"})
            if path == "/simple/price":
                return self._simple_price(query, now)
            if path == "/coins/markets":
                return self._markets(query, now)
            if chart:
                return self._market_chart(query, chart[1], now.clock, by_range=bool(chart[2]))
        except _Refused as refused:
            return refused.response
        return json_response({"error": "Incorrect path. Please check https://www.coingecko.com/api/"}, 404)

    def _simple_price(self, query: Mapping[str, str], now: _Now) -> Response:
        currencies = _required(query, "vs_currencies").split(",")
        quotes = {}
        for coin in _required(query, "ids").split(","):
            price = self._market.price_at(coin, now.price)
            if price is not None:
                quotes[coin] = self._quote(query, coin, price, currencies, now)
        return json_response(quotes)

    def _quote(
        self, query: Mapping[str, str], coin: str, price: float, currencies: Iterable[str], now: _Now
    ) -> dict[str, Any]:
        quote: dict[str, Any] = {}
        for currency in currencies:
            if currency not in CURRENCIES:
                continue
            value = price * CURRENCIES[currency]
            quote[currency] = _with_precision(value, query.get("precision"), default=_rounded)
            if query.get("include_market_cap") == "true":
                quote[f"{currency}_market_cap"] = value * _about(coin).supply
            if query.get("include_24hr_vol") == "true":
                quote[f"{currency}_24h_vol"] = value * _about(coin).supply * TURNOVER
            if query.get("include_24hr_change") == "true":
                quote[f"{currency}_24h_change"] = self._change_pct(coin, price, now.price - DAY)
        if query.get("include_last_updated_at") == "true":
            quote["last_updated_at"] = int(now.updated.timestamp())
        return quote

    def _change_pct(self, coin: str, price: float, since: datetime) -> float | None:
        before = self._market.price_at(coin, since)
        return 100 * (price / before - 1) if before else None

    def _markets(self, query: Mapping[str, str], now: _Now) -> Response:
        rate = _rate(query)
        size = min(_MARKETS_PER_PAGE, _whole(query, "per_page", 100))
        first = (_whole(query, "page", 1) - 1) * size
        prices = [(coin, self._market.price_at(coin, now.price)) for coin in self._wanted(query)]
        known = [(coin, price) for coin, price in prices if price is not None]
        return json_response(
            [
                self._item(query, coin, price * rate, rank, now) | self._changes(query, coin, price, now)
                for rank, (coin, price) in enumerate(known[first : first + size], start=first + 1)
            ]
        )

    def _changes(self, query: Mapping[str, str], coin: str, price: float, now: _Now) -> dict[str, float | None]:
        return {
            f"price_change_percentage_{span}_in_currency": self._change_pct(coin, price, now.price - _SPANS[span])
            for span in query.get("price_change_percentage", "").split(",")
            if span in _SPANS
        }

    def _wanted(self, query: Mapping[str, str]) -> list[str]:
        """The ids that were asked for, or all; the largest first, as CoinGecko orders them."""
        wanted = query["ids"].split(",") if query.get("ids") else self._market.coins
        order = list(COINS)
        return sorted(wanted, key=lambda coin: order.index(coin) if coin in order else len(order))

    def _item(self, query: Mapping[str, str], coin: str, value: float, rank: int, now: _Now) -> dict[str, Any]:
        about = _about(coin)
        rate = _rate(query)
        hours = [self._market.price_at(coin, now.price - HOUR * number) for number in range(25)]
        seen = [price * rate for price in hours if price is not None]
        change = None if hours[-1] is None else value - hours[-1] * rate
        return {
            "id": coin,
            "symbol": about.symbol,
            "name": about.name,
            "image": None,
            "current_price": _with_precision(value, query.get("precision"), default=_rounded),
            "market_cap": value * about.supply,
            "market_cap_rank": rank,
            "total_volume": value * about.supply * TURNOVER,
            "high_24h": max(seen),
            "low_24h": min(seen),
            "price_change_24h": change,
            "price_change_percentage_24h": self._change_pct(coin, value / rate, now.price - DAY),
            "circulating_supply": about.supply,
            "roi": None,
            "last_updated": now.updated.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }

    def _market_chart(self, query: Mapping[str, str], coin: str, now: datetime, *, by_range: bool) -> Response:
        rate = _rate(query)
        if coin not in self._market.coins:
            raise _Refused(error_response("coin_not_found"))
        if by_range:
            start, end = _unix_time(query, "from"), min(_unix_time(query, "to"), now)
        else:
            start, end = now - _days(query), now
        if now - start > HISTORY_MAX + timedelta(minutes=5):
            raise _Refused(error_response("beyond_time_range"))
        step = None if by_range else _INTERVALS.get(query.get("interval", ""))
        prices, caps, volumes = [], [], []
        for moment in point_times(start, end, now, step):
            price = self._market.price_at(coin, moment)
            if price is None:
                continue
            milliseconds, value = round(moment.timestamp() * 1000), price * rate
            prices.append((milliseconds, _with_precision(value, query.get("precision"), default=float)))
            caps.append((milliseconds, value * _about(coin).supply))
            volumes.append((milliseconds, value * _about(coin).supply * TURNOVER))
        return json_response({"prices": prices, "market_caps": caps, "total_volumes": volumes})


def point_times(start: datetime, end: datetime, now: datetime, step: timedelta | None = None) -> list[datetime]:
    """Where the points of a history lie: near each step and not on it, and at midnight if they are daily.

    Args:
        start: From here on.
        end: Up to here; a window that ends now has a last point now.
        now: The present.
        step: Between two points; chosen by the length of the window, if absent.
    """
    if end < start:
        return []
    touches_now = end >= now - timedelta(minutes=1)
    if step is None:
        step = _usual_step(end - start, touches_now=touches_now)
    first = floor_hour(start).replace(hour=0)
    grid = [first + step * number for number in range((end - first) // step + 1)]
    times = grid if step == DAY else [moment + POINT_DELAY for moment in grid]
    inside = [moment for moment in times if start <= moment <= end]
    return [*inside, now] if touches_now and now not in inside else inside


def _usual_step(length: timedelta, *, touches_now: bool) -> timedelta:
    if length > timedelta(days=90):
        return DAY
    return timedelta(minutes=5) if length <= DAY and touches_now else HOUR


def _required(query: Mapping[str, str], name: str) -> str:
    value = query.get(name)
    if not value:
        raise _Refused(json_response({"error": f"Missing parameter {name}"}, 422))
    return value


def _rate(query: Mapping[str, str]) -> float:
    currency = _required(query, "vs_currency")
    if currency not in CURRENCIES:
        raise _Refused(error_response("currency_invalid"))
    return CURRENCIES[currency]


def _unix_time(query: Mapping[str, str], name: str) -> datetime:
    text = _required(query, name)
    # The public API takes whole seconds, and no milliseconds.
    if not re.fullmatch(r"\d{1,10}", text):
        raise _Refused(json_response({"error": f"invalid {name}: UNIX seconds are needed"}, 400))
    return from_seconds(int(text))


def _days(query: Mapping[str, str]) -> timedelta:
    text = _required(query, "days")
    if text == "max":
        raise _Refused(error_response("beyond_time_range"))
    if not re.fullmatch(r"\d{1,5}(\.\d+)?", text):
        raise _Refused(json_response({"error": "invalid days"}, 400))
    return timedelta(days=float(text))


def _whole(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name, "")
    return int(text) if re.fullmatch(r"[1-9]\d{0,5}", text) else default


def _about(coin: str) -> SimulatedCoin:
    """What is made up about a coin, also about one whose prices were recorded and nothing else."""
    return COINS.get(coin) or SimulatedCoin(coin.title(), coin[:4], 1.0, 1_000_000.0)


def _with_precision(value: float, precision: str | None, *, default: Callable[[float], float]) -> float:
    if precision == "full":
        return value
    return round(value, int(precision)) if precision and precision.isdecimal() else default(value)


def _rounded(price: float) -> float:
    return round(price) if price >= 1000 else round(price, 2) if price >= 1 else float(f"{price:.6g}")
