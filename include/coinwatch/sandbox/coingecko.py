"""The sandbox's CoinGecko: the endpoints that Coinwatch uses, with the answers and limits of the real ones."""

import re
import threading
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from math import ceil
from typing import Any, NamedTuple

import flask
from flask import g
from pydantic import TypeAdapter

from coinwatch.sandbox.faults import FROZEN, Fault, error_response
from coinwatch.sandbox.http import HOST, Request, SandboxServer, current_request
from coinwatch.sandbox.market import COINS, Market, SimulatedCoin
from coinwatch.times import HOUR, floor_hour, from_seconds

CURRENCIES = {"usd": 1.0, "eur": 0.92, "gbp": 0.79, "jpy": 151.0}
"""Units of a currency for one US dollar."""

DATA_AGE = timedelta(seconds=40)
"""Prices are half a minute to a minute old by design."""

POINT_DELAY = timedelta(seconds=41, milliseconds=331)
"""Points of the history are near their hour, or five minutes, and not on it."""

DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
HISTORY_MAX = timedelta(days=365)

TURNOVER = 0.019
"""Part of all coins that is traded in 24 hours."""

_INTERVALS = {"hourly": HOUR, "daily": DAY}

_SPANS = {"1h": HOUR, "24h": DAY, "7d": 7 * DAY, "14d": 14 * DAY, "30d": 30 * DAY, "200d": 200 * DAY, "1y": 365 * DAY}
"""Times over which ``/coins/markets`` gives the change."""

_REQUESTS_KEPT = 10_000
_MARKETS_PER_PAGE = 250

_FAULTS = TypeAdapter(list[Fault])


class _Now(NamedTuple):
    """The time of the live prices in one answer, and the time that the answer gives for them."""

    price: datetime
    updated: datetime


class CoinGeckoSandbox(SandboxServer):
    """A CoinGecko on loopback.

    Attributes:
        requests: The requests so far, oldest first.
        faults: The faults that are switched on.
        per_minute: Requests of one key in a minute; more are refused, and count too. None: no limit.
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
        self.market = market
        self.per_minute = per_minute
        self.requests: deque[Request] = deque(maxlen=_REQUESTS_KEPT)
        self.faults: list[Fault] = []
        self._asked: dict[str, deque[datetime]] = {}
        self.clock = clock
        self._lock = threading.Lock()
        self.app.before_request(self._before)
        self.app.after_request(self._after)
        self.app.get("/api/v3/ping")(lambda: {"gecko_says": "(V3) To the Moon!"})
        self.app.get("/api/v3/simple/price")(self._simple_price)
        self.app.get("/api/v3/coins/markets")(self._markets)
        self.app.get("/api/v3/coins/<coin>/market_chart")(self._market_chart)
        self.app.get("/api/v3/coins/<coin>/market_chart/range")(self._market_chart_range)
        self.app.route("/sandbox/faults", methods=["GET", "POST", "DELETE"])(self._switch)

    @property
    def url(self) -> str:
        """The host of the Airflow connection."""
        return f"{self.origin}/api/v3"

    def fail(self, kind: str, **options: Any) -> None:
        """Switch a fault on; of several, the first one that concerns a request counts.

        Args:
            kind: What goes wrong.
            **options: The other attributes of ``Fault``.

        Raises:
            ValueError: The kind or an option is unknown.
        """
        fault = Fault(kind, **{"since": self.clock(), **options})
        with self._lock:
            self.faults.append(fault)

    def recover(self) -> None:
        """Switch all faults off."""
        with self._lock:
            self.faults.clear()

    def respond(self, _: Request) -> flask.Response:
        """Answer a path that CoinGecko does not have."""
        return _error("Incorrect path. Please check https://www.coingecko.com/api/", 404)

    def _switch(self) -> Any:
        if flask.request.method == "POST":
            try:
                self.fail(**flask.request.get_json(force=True))
            except (TypeError, ValueError) as error:
                return _error(str(error), 400)
        elif flask.request.method == "DELETE":
            self.recover()
        return flask.jsonify(_FAULTS.dump_python(self.faults, mode="json"))

    def _before(self) -> flask.Response | None:
        """Note the request and choose its fault; refuse it when it is one too many."""
        request = current_request()
        if not request.path.startswith("/api/"):
            return None
        self.requests.append(request)
        refusal = self._refuse_too_many(request)
        if refusal is None:
            g.fault = self._next_fault(request.path)
            g.now = self._now(g.fault)
        return refusal

    def _after(self, response: flask.Response) -> flask.Response:
        if g.get("fault"):
            response = g.fault.apply(response)
        response.headers["X-Coinwatch-Sandbox"] = self.market.kind
        return response

    def _refuse_too_many(self, request: Request) -> flask.Response | None:
        if self.per_minute is None:
            return None
        now = self.clock()
        key = request.headers.get("x-cg-demo-api-key") or request.headers.get("x-cg-pro-api-key", "")
        with self._lock:
            asked = self._asked.setdefault(key, deque())
            asked.append(now)
            while asked[0] <= now - MINUTE:
                asked.popleft()
            if len(asked) <= self.per_minute:
                return None
            free = asked[-self.per_minute] + MINUTE
        return error_response("rate_limited", ceil((free - now).total_seconds()))

    def _next_fault(self, path: str) -> Fault | None:
        with self._lock:
            fault = next((fault for fault in self.faults if fault.concerns(path)), None)
            if fault is not None and fault.times is not None:
                fault.times -= 1
                if fault.times == 0:
                    self.faults.remove(fault)
            return fault

    def _now(self, fault: Fault | None) -> _Now:
        now = self.clock()
        if fault is None or fault.kind not in FROZEN or fault.since is None:
            return _Now(now, now - DATA_AGE)
        return _Now(fault.since, (fault.since if fault.kind == "feed_frozen" else now) - DATA_AGE)

    def _simple_price(self) -> dict[str, Any]:
        currencies = [currency for currency in _required("vs_currencies").split(",") if currency in CURRENCIES]
        prices = {coin: self.market.price_at(coin, g.now.price) for coin in _required("ids").split(",")}
        return {coin: self._quote(coin, price, currencies) for coin, price in prices.items() if price is not None}

    def _quote(self, coin: str, price: float, currencies: list[str]) -> dict[str, Any]:
        def wants(name: str) -> bool:
            return flask.request.args.get(f"include_{name}") == "true"

        quote: dict[str, Any] = {}
        for currency in currencies:
            value = price * CURRENCIES[currency]
            quote[currency] = _with_precision(value, _rounded)
            if wants("market_cap"):
                quote[f"{currency}_market_cap"] = value * _about(coin).supply
            if wants("24hr_vol"):
                quote[f"{currency}_24h_vol"] = value * _about(coin).supply * TURNOVER
            if wants("24hr_change"):
                quote[f"{currency}_24h_change"] = self._change_pct(coin, price, DAY)
        if wants("last_updated_at"):
            quote["last_updated_at"] = int(g.now.updated.timestamp())
        return quote

    def _change_pct(self, coin: str, price: float, span: timedelta) -> float | None:
        before = self.market.price_at(coin, g.now.price - span)
        return 100 * (price / before - 1) if before else None

    def _markets(self) -> flask.Response:
        rate, args = _rate(), flask.request.args
        # CoinGecko orders by size, the largest first.
        order = list(COINS)
        wanted = args["ids"].split(",") if args.get("ids") else self.market.coins
        coins = sorted(wanted, key=lambda coin: order.index(coin) if coin in order else len(order))
        size = min(_MARKETS_PER_PAGE, args.get("per_page", 100, type=int))
        first = (args.get("page", 1, type=int) - 1) * size
        prices = [(coin, self.market.price_at(coin, g.now.price)) for coin in coins]
        known = [(coin, price) for coin, price in prices if price is not None]
        page = enumerate(known[first : first + size], start=first + 1)
        return flask.jsonify([self._item(coin, price, rate, rank) for rank, (coin, price) in page])

    def _item(self, coin: str, price: float, rate: float, rank: int) -> dict[str, Any]:
        about, value = _about(coin), price * rate
        day = [self.market.price_at(coin, g.now.price - HOUR * number) for number in range(25)]
        seen = [each * rate for each in day if each is not None]
        return {
            "id": coin,
            "symbol": about.symbol,
            "name": about.name,
            "image": None,
            "current_price": _with_precision(value, _rounded),
            "market_cap": value * about.supply,
            "market_cap_rank": rank,
            "total_volume": value * about.supply * TURNOVER,
            "high_24h": max(seen),
            "low_24h": min(seen),
            "price_change_24h": None if day[-1] is None else value - day[-1] * rate,
            "price_change_percentage_24h": self._change_pct(coin, price, DAY),
            "circulating_supply": about.supply,
            "roi": None,
            "last_updated": g.now.updated.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        } | {
            f"price_change_percentage_{span}_in_currency": self._change_pct(coin, price, _SPANS[span])
            for span in flask.request.args.get("price_change_percentage", "").split(",")
            if span in _SPANS
        }

    def _market_chart(self, coin: str) -> dict[str, Any]:
        now = self.clock()
        return self._chart(coin, now - _days(), now, now, _INTERVALS.get(flask.request.args.get("interval", "")))

    def _market_chart_range(self, coin: str) -> dict[str, Any]:
        now = self.clock()
        return self._chart(coin, _unix_time("from"), min(_unix_time("to"), now), now)

    def _chart(
        self, coin: str, start: datetime, end: datetime, now: datetime, step: timedelta | None = None
    ) -> dict[str, Any]:
        rate = _rate()
        if coin not in self.market.coins:
            flask.abort(error_response("coin_not_found"))
        if now - start > HISTORY_MAX + timedelta(minutes=5):
            flask.abort(error_response("beyond_time_range"))
        supply = _about(coin).supply
        points = [(moment, self.market.price_at(coin, moment)) for moment in point_times(start, end, now, step)]
        values = [(round(moment.timestamp() * 1000), price * rate) for moment, price in points if price is not None]
        return {
            "prices": [(time, _with_precision(value, float)) for time, value in values],
            "market_caps": [(time, value * supply) for time, value in values],
            "total_volumes": [(time, value * supply * TURNOVER) for time, value in values],
        }


def point_times(start: datetime, end: datetime, now: datetime, step: timedelta | None = None) -> list[datetime]:
    """Return the times of a history's points: near each step and not on it, and at midnight if they are daily.

    Args:
        start: From here on.
        end: Up to here; a window that ends now has a last point now.
        now: The present.
        step: Between two points; without it, the length of the window decides.
    """
    touches_now = end >= now - MINUTE
    if step is None and end - start > timedelta(days=90):
        step = DAY
    elif step is None:
        step = timedelta(minutes=5) if end - start <= DAY and touches_now else HOUR
    first = floor_hour(start).replace(hour=0)
    grid = [first + step * number for number in range((end - first) // step + 1)]
    times = grid if step == DAY else [moment + POINT_DELAY for moment in grid]
    inside = [moment for moment in times if start <= moment <= end]
    return [*inside, now] if touches_now and now not in inside else inside


def _error(message: str, status: int) -> flask.Response:
    return flask.make_response({"error": message}, status)


def _required(name: str) -> str:
    value = flask.request.args.get(name)
    if not value:
        flask.abort(_error(f"Missing parameter {name}", 422))
    return value


def _rate() -> float:
    currency = _required("vs_currency")
    if currency not in CURRENCIES:
        flask.abort(error_response("currency_invalid"))
    return CURRENCIES[currency]


def _unix_time(name: str) -> datetime:
    text = _required(name)
    # The public API accepts whole seconds only.
    if not re.fullmatch(r"\d{1,10}", text):
        flask.abort(_error(f"invalid {name}: UNIX seconds are needed", 400))
    return from_seconds(int(text))


def _days() -> timedelta:
    text = _required("days")
    if text == "max":
        flask.abort(error_response("beyond_time_range"))
    if not re.fullmatch(r"\d{1,5}(\.\d+)?", text):
        flask.abort(_error("invalid days", 400))
    return timedelta(days=float(text))


def _about(coin: str) -> SimulatedCoin:
    """Return what is made up about a coin, also about one whose recorded prices are all that is known."""
    return COINS.get(coin) or SimulatedCoin(coin.title(), coin[:4], 1.0, 1_000_000.0)


def _with_precision(value: float, default: Callable[[float], float]) -> float:
    precision = flask.request.args.get("precision", "")
    if precision == "full":
        return value
    return round(value, int(precision)) if precision.isdecimal() else default(value)


def _rounded(price: float) -> float:
    return round(price) if price >= 1000 else round(price, 2) if price >= 1 else float(f"{price:.6g}")
