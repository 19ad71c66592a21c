"""The sandbox's CoinGecko: the endpoints that Coinwatch uses, with the answers and limits of the real ones."""

import threading
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import flask
from flask import g
from pydantic import TypeAdapter

from coinwatch.sandbox.faults import FROZEN, Fault, error_response
from coinwatch.sandbox.http import HOST, Request, SandboxServer, current_request
from coinwatch.sandbox.market import Market, SimulatedCoin, simulated_coin
from coinwatch.times import HOUR, floor_hour, from_seconds

CURRENCIES = {"usd": 1.0, "eur": 0.92, "gbp": 0.79, "jpy": 151.0}
"""Units of a currency for one US dollar."""

DATA_AGE = timedelta(seconds=40)
"""Prices are half a minute to a minute old by design."""

POINT_DELAY = timedelta(seconds=41, milliseconds=331)
"""Points of the history are near their hour, or five minutes, and not on it."""

DAY = timedelta(days=1)
HISTORY_MAX = timedelta(days=365)

TURNOVER = 0.019
"""Part of all coins that is traded in 24 hours."""

_REQUESTS_KEPT = 10_000

_FAULTS = TypeAdapter(list[Fault])


class CoinGeckoSandbox(SandboxServer):
    """A CoinGecko on loopback.

    Attributes:
        requests: The requests so far, oldest first.
        faults: The faults that are switched on; of several, the first one that concerns a request counts.
    """

    name = "CoinGecko"

    def __init__(self, market: Market, *, clock: Callable[[], datetime], port: int = 0, host: str = HOST) -> None:
        super().__init__(clock, port, host)
        self.market = market
        self.clock = clock
        self.requests: deque[Request] = deque(maxlen=_REQUESTS_KEPT)
        self.faults: list[Fault] = []
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
        """Switch a fault on; the options are the other attributes of ``Fault``."""
        self.faults.append(Fault(kind, **{"since": self.clock(), **options}))

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

    def _before(self) -> None:
        """Note the request, choose its fault, and set the times of its live prices."""
        request = current_request()
        if not request.path.startswith("/api/"):
            return
        self.requests.append(request)
        g.fault = fault = self._next_fault(request.path)
        now = self.clock()
        g.priced_at = fault.since if fault and fault.since and fault.kind in FROZEN else now
        g.updated_at = (g.priced_at if fault and fault.kind == "feed_frozen" else now) - DATA_AGE

    def _after(self, response: flask.Response) -> flask.Response:
        if g.get("fault"):
            response = g.fault.apply(response)
        response.headers["X-Coinwatch-Sandbox"] = self.market.kind
        return response

    def _next_fault(self, path: str) -> Fault | None:
        with self._lock:
            fault = next((fault for fault in self.faults if fault.concerns(path)), None)
            if fault is not None and fault.times is not None:
                fault.times -= 1
                if fault.times == 0:
                    self.faults.remove(fault)
            return fault

    def _simple_price(self) -> dict[str, Any]:
        currencies = [currency for currency in _required("vs_currencies").split(",") if currency in CURRENCIES]
        prices = self._prices(_required("ids"))
        return {coin: self._quote(coin, price, currencies) for coin, price in prices.items()}

    def _prices(self, coins: str) -> dict[str, float]:
        """Return the live price of each known coin of a list, in US dollars."""
        prices = {coin: self.market.price_at(coin, g.priced_at) for coin in coins.split(",")}
        return {coin: price for coin, price in prices.items() if price is not None}

    def _quote(self, coin: str, price: float, currencies: list[str]) -> dict[str, Any]:
        given = flask.request.args
        quote: dict[str, Any] = {}
        for currency in currencies:
            value = price * CURRENCIES[currency]
            market_cap = value * _about(coin).supply
            quote[currency] = value if given.get("precision") == "full" else _rounded(value)
            extras = {
                "market_cap": ("market_cap", market_cap),
                "24hr_vol": ("24h_vol", market_cap * TURNOVER),
                "24hr_change": ("24h_change", self._change_pct(coin, price)),
            }
            for asked, (name, extra) in extras.items():
                if given.get(f"include_{asked}") == "true":
                    quote[f"{currency}_{name}"] = extra
        if given.get("include_last_updated_at") == "true":
            quote["last_updated_at"] = int(g.updated_at.timestamp())
        return quote

    def _change_pct(self, coin: str, price: float) -> float | None:
        before = self.market.price_at(coin, g.priced_at - DAY)
        return 100 * (price / before - 1) if before else None

    def _markets(self) -> flask.Response:
        rate = _rate()
        prices = self._prices(flask.request.args.get("ids", ",".join(self.market.coins)))
        items = [self._item(coin, price, rate) for coin, price in prices.items()]
        return flask.jsonify(sorted(items, key=lambda item: item["market_cap"], reverse=True))

    def _item(self, coin: str, price: float, rate: float) -> dict[str, Any]:
        about = _about(coin)
        return {
            "id": coin,
            "symbol": about.symbol,
            "name": about.name,
            "current_price": _rounded(price * rate),
            "market_cap": price * rate * about.supply,
            "total_volume": price * rate * about.supply * TURNOVER,
            "price_change_percentage_24h": self._change_pct(coin, price),
            "last_updated": g.updated_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }

    def _market_chart(self, coin: str) -> dict[str, Any]:
        now = self.clock()
        return self._chart(coin, now - timedelta(days=_required("days", float)), now, now)

    def _market_chart_range(self, coin: str) -> dict[str, Any]:
        now = self.clock()
        # The public API accepts whole UNIX seconds only.
        start, end = (from_seconds(_required(name, int)) for name in ("from", "to"))
        return self._chart(coin, start, min(end, now), now)

    def _chart(self, coin: str, start: datetime, end: datetime, now: datetime) -> dict[str, Any]:
        rate = _rate()
        if self.market.price_at(coin, now) is None:
            flask.abort(error_response("coin_not_found"))
        if now - start > HISTORY_MAX + timedelta(minutes=5):
            flask.abort(error_response("beyond_time_range"))
        supply = _about(coin).supply
        points = [(moment, self.market.price_at(coin, moment)) for moment in _point_times(start, end, now)]
        values = [(round(moment.timestamp() * 1000), price * rate) for moment, price in points if price is not None]
        return {
            "prices": values,
            "market_caps": [(time, value * supply) for time, value in values],
            "total_volumes": [(time, value * supply * TURNOVER) for time, value in values],
        }


def _point_times(start: datetime, end: datetime, now: datetime) -> list[datetime]:
    """Return the times of a history's points: near each hour and not on it; a window that ends now has a point now.

    The points of a window of more than 90 days are at midnight, those of the last day five minutes apart.
    """
    touches_now = end >= now - timedelta(minutes=1)
    if end - start > timedelta(days=90):
        step, delay = DAY, timedelta()
    elif end - start <= DAY and touches_now:
        step, delay = timedelta(minutes=5), POINT_DELAY
    else:
        step, delay = HOUR, POINT_DELAY
    first = floor_hour(start).replace(hour=0) + delay
    times = [first + step * number for number in range((end - first) // step + 1)]
    inside = [moment for moment in times if start <= moment]
    return [*inside, now] if touches_now and now not in inside else inside


def _error(message: str, status: int) -> flask.Response:
    return flask.make_response({"error": message}, status)


def _required(name: str, read: Callable[[str], Any] = str) -> Any:
    """Return a parameter, or answer that it is missing, also if it is invalid."""
    value = flask.request.args.get(name, type=read)
    return flask.abort(_error(f"Missing parameter {name}", 422)) if value in (None, "") else value


def _rate() -> float:
    currency = _required("vs_currency")
    if currency not in CURRENCIES:
        flask.abort(error_response("currency_invalid"))
    return CURRENCIES[currency]


def _about(coin: str) -> SimulatedCoin:
    """Return what is made up about a coin, also about one with recorded prices only."""
    return simulated_coin(coin) or SimulatedCoin(coin.title(), coin[:4], 1.0, 1_000_000.0)


def _rounded(price: float) -> float:
    return round(price) if price >= 1000 else round(price, 2) if price >= 1 else float(f"{price:.6g}")
