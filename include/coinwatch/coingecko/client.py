"""The CoinGecko client: one request, one answer, whatever the answer says."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Literal, Protocol
from urllib.parse import urlencode

import requests
from urllib3.exceptions import HTTPError

from coinwatch import __version__
from coinwatch.archive.snapshots import Answer
from coinwatch.coingecko.budget import HISTORY, PRICES, Budget
from coinwatch.coingecko.errors import RateLimited, Unavailable
from coinwatch.times import format_time

COINS_PER_REQUEST = 250
"""As many as CoinGecko's lists take in one page; more are asked for in several requests."""


def requests_per_hour(coins: int) -> int:
    """Requests that the prices of so many coins need."""
    return -(-coins // COINS_PER_REQUEST)


TIMEOUT = (5.0, 30.0)
"""Seconds to connect, and between two bytes of the answer."""

USER_AGENT = f"coinwatch/{__version__} (hourly price archive)"
"""Libraries' default agents have been refused with 403."""

KEY_HEADERS = {"demo": "x-cg-demo-api-key", "pro": "x-cg-pro-api-key"}
"""The key goes into a header and never into the URL, which errors and logs repeat."""

_HIDDEN = "***"

_HEADERS_THAT_MATTER = (
    "age",
    "cf-ray",
    "content-type",
    "date",
    "etag",
    "retry-after",
    "x-coinwatch-sandbox",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "x-request-id",
)

Plan = Literal["demo", "pro"]

PER_MINUTE: Mapping[str, int] = {"keyless": 5, "demo": 30, "pro": 250}
"""Requests a minute that CoinGecko names for each plan; 100 a minute have been seen to work with a demo key."""

PER_MONTH: Mapping[str, int] = {"demo": 10_000}
"""Requests a month, where one number holds for the plan; each paid plan has another one."""


class Meter(Protocol):
    """Lets requests through one after the other, and counts them."""

    def admit(self, endpoint: str) -> float:
        """Wait for the turn; or tell the seconds for which nobody may ask."""

    def hold_off(self, seconds: float) -> None:
        """Let nobody ask for so long."""

    def budget(self, per_hour: int) -> Budget:
        """What the month costs, if an hour needs so many requests."""


class CoinGeckoClient:
    """Asks CoinGecko and brings back what it said, unjudged.

    Attributes:
        base_url: For example ``https://api.coingecko.com/api/v3``.
        meter: Gives each request its turn.
    """

    def __init__(
        self,
        base_url: str,
        *,
        clock: Callable[[], datetime],
        meter: Meter,
        api_key: str = "",
        plan: Plan = "demo",
        timeout: tuple[float, float] = TIMEOUT,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.meter = meter
        self._clock = clock
        self._timeout = timeout
        self._api_key = api_key
        self._session = requests.Session()
        self._session.headers.update({"User-Agent": USER_AGENT, "Accept": "application/json"})
        if api_key:
            self._session.headers[KEY_HEADERS[plan]] = api_key

    def simple_price(self, coins: Sequence[str], currency: str) -> Answer:
        """Ask ``/simple/price`` for the current prices of up to 250 coins, with every digit.

        Raises:
            RateLimited: CoinGecko has asked to wait, and the time is not over; nothing was asked.
            Unavailable: No answer came.
        """
        return self._get(
            PRICES,
            "/simple/price",
            {
                "ids": ",".join(coins),
                "vs_currencies": currency,
                "include_market_cap": "true",
                "include_24hr_vol": "true",
                "include_24hr_change": "true",
                "include_last_updated_at": "true",
                "precision": "full",
            },
        )

    def market_chart_range(self, coin: str, currency: str, start: datetime, end: datetime) -> Answer:
        """Ask ``/coins/{id}/market_chart/range`` for a window; of 2 to 90 days, its points are about an hour apart.

        Raises:
            RateLimited: CoinGecko has asked to wait, and the time is not over; nothing was asked.
            Unavailable: No answer came.
        """
        return self._get(
            HISTORY,
            f"/coins/{coin}/market_chart/range",
            {
                "vs_currency": currency,
                "from": str(int(start.timestamp())),
                "to": str(int(end.timestamp())),
                "precision": "full",
            },
        )

    def _get(self, endpoint: str, path: str, params: Mapping[str, str]) -> Answer:
        closed = self.meter.admit(endpoint)
        if closed:
            raise RateLimited(
                f"CoinGecko has asked to wait, and is not asked for {endpoint} before another {closed:.0f} s are over",
                retry_after=closed,
            )
        request = f"GET {self.base_url}{path}?{urlencode(params, safe=',')}"
        try:
            # A redirect would carry the key to another host.
            response = self._session.get(
                self.base_url + path, params=params, timeout=self._timeout, allow_redirects=False
            )
        except (requests.RequestException, HTTPError) as error:
            # Where there is one, the cause itself: the text around it is the address once more.
            cause = getattr(error.args[0], "reason", error) if error.args else error
            reason = self._without_key(f"{type(error).__name__}: {cause}")
            raise Unavailable(
                f"no answer from CoinGecko to {request}: {reason}. It is asked again later; if this lasts, check the "
                "network and the host in the connection coingecko_default"
            ) from None
        matter = [name for name in _HEADERS_THAT_MATTER if name in response.headers]
        headers = {name: self._without_key(response.headers[name])[:200] for name in matter}
        body = response.content
        if self._api_key and self._api_key.encode() in body:
            # Some proxies repeat the request in their error pages. All else of a body is kept byte for byte.
            body = body.replace(self._api_key.encode(), _HIDDEN.encode())
            headers["x-coinwatch-redacted"] = "the API key stood in the body"
        return Answer(request, response.status_code, headers, body, format_time(self._clock()))

    def _without_key(self, text: str) -> str:
        return text.replace(self._api_key, _HIDDEN) if self._api_key else text
