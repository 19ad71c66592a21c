"""The CoinGecko client: one request, one answer, whatever the answer says."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Literal
from urllib.parse import urlencode

import requests

from coinwatch import __version__
from coinwatch.sources.errors import Unavailable
from coinwatch.storage.archive import Answer
from coinwatch.times import format_time

COINS_PER_REQUEST = 250
"""As many as CoinGecko's lists take in one page; more are asked for in several requests."""

TIMEOUT = (5.0, 30.0)
"""Seconds to connect, and between two bytes of the answer."""

USER_AGENT = f"coinwatch/{__version__} (hourly price archive)"
"""Libraries' default agents have been refused with 403."""

KEY_HEADERS = {"demo": "x-cg-demo-api-key", "pro": "x-cg-pro-api-key"}
"""The key goes into a header and never into the URL, which errors and logs repeat."""

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


class CoinGeckoClient:
    """Asks CoinGecko and brings back what it said, unjudged.

    Attributes:
        base_url: For example ``https://api.coingecko.com/api/v3``.
    """

    def __init__(
        self,
        base_url: str,
        *,
        clock: Callable[[], datetime],
        api_key: str = "",
        plan: Plan = "demo",
        timeout: tuple[float, float] = TIMEOUT,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._clock = clock
        self._timeout = timeout
        self._session = requests.Session()
        self._session.headers.update({"User-Agent": USER_AGENT, "Accept": "application/json"})
        if api_key:
            self._session.headers[KEY_HEADERS[plan]] = api_key

    def simple_price(self, coins: Sequence[str], currency: str) -> Answer:
        """Ask ``/simple/price`` for the current prices of up to 250 coins, with every digit.

        Raises:
            Unavailable: No answer came.
        """
        return self._get(
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
            Unavailable: No answer came.
        """
        return self._get(
            f"/coins/{coin}/market_chart/range",
            {
                "vs_currency": currency,
                "from": str(int(start.timestamp())),
                "to": str(int(end.timestamp())),
                "precision": "full",
            },
        )

    def _get(self, path: str, params: Mapping[str, str]) -> Answer:
        request = f"GET {self.base_url}{path}?{urlencode(params, safe=',')}"
        try:
            # A redirect would carry the key to another host.
            response = self._session.get(
                self.base_url + path, params=params, timeout=self._timeout, allow_redirects=False
            )
        except requests.RequestException as error:
            raise Unavailable(
                f"no answer from CoinGecko to {request}: {type(error).__name__}: {error}. It is asked again later; if "
                "this lasts, check the network and the host in the connection coingecko_default"
            ) from None
        headers = {name: response.headers[name][:200] for name in _HEADERS_THAT_MATTER if name in response.headers}
        return Answer(request, response.status_code, headers, response.content, format_time(self._clock()))
