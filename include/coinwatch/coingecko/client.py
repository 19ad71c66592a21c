"""The CoinGecko client: one request, one answer, not judged yet."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlencode

import requests
from urllib3.exceptions import HTTPError

from coinwatch import __version__
from coinwatch.archive.snapshots import Answer
from coinwatch.coingecko.response_errors import Unavailable
from coinwatch.times import format_time

if TYPE_CHECKING:
    from coinwatch.coingecko.requests import RequestMeter

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

Plan = Literal["keyless", "demo", "pro"]

PER_MINUTE: Mapping[Plan, int] = {"keyless": 5, "demo": 30, "pro": 250}
"""Requests a minute that CoinGecko names for each plan; 100 a minute have been seen to work with a demo key."""

PER_MONTH: Mapping[Plan, int] = {"demo": 10_000}
"""Requests a month, where one number holds for the plan; each paid plan has another one."""

HISTORY_DAYS: Mapping[Plan, int] = {"keyless": 365, "demo": 365}
"""Days of history that a plan includes (error 10012 beyond); paid plans have years."""


class CoinGeckoClient:
    """Sends requests, paced by the meter; ``base_url`` is for example ``https://api.coingecko.com/api/v3``."""

    def __init__(
        self,
        base_url: str,
        *,
        clock: Callable[[], datetime],
        meter: "RequestMeter",
        api_key: str = "",
        plan: Plan = "demo",
        timeout: tuple[float, float] = TIMEOUT,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.meter = meter
        self.plan: Plan = plan if api_key else "keyless"
        self._clock = clock
        self._timeout = timeout
        self._api_key = api_key
        self._session = requests.Session()
        self._session.headers.update({"User-Agent": USER_AGENT, "Accept": "application/json"})
        if api_key:
            self._session.headers[KEY_HEADERS[plan]] = api_key

    def simple_price(self, coins: Sequence[str], currency: str) -> Answer:
        """Request the current prices of up to 250 coins from ``/simple/price``, with every digit."""
        params = {
            "ids": ",".join(coins),
            "vs_currencies": currency,
            "include_market_cap": "true",
            "include_24hr_vol": "true",
            "include_24hr_change": "true",
            "include_last_updated_at": "true",
            "precision": "full",
        }
        return self._get("prices", "/simple/price", params)

    def market_chart_range(self, coin: str, currency: str, start: datetime, end: datetime) -> Answer:
        """Request a window of ``/coins/{id}/market_chart/range``; of 2 to 90 days, its points are an hour apart."""
        params = {
            "vs_currency": currency,
            "from": str(int(start.timestamp())),
            "to": str(int(end.timestamp())),
            "precision": "full",
        }
        return self._get("history", f"/coins/{coin}/market_chart/range", params)

    def _get(self, endpoint: str, path: str, params: Mapping[str, str]) -> Answer:
        """Send a request.

        Raises:
            RateLimited: An earlier Retry-After has not passed; no request was sent.
            Unavailable: No answer came.
        """
        self.meter.wait_turn(endpoint)
        request = f"GET {self.base_url}{path}?{urlencode(params, safe=',')}"
        try:
            # A redirect would carry the key to another host.
            response = self._session.get(
                self.base_url + path, params=params, timeout=self._timeout, allow_redirects=False
            )
        except (requests.RequestException, HTTPError) as error:
            # The cause itself, where there is one: the text around it repeats the address.
            cause = getattr(error.args[0], "reason", error) if error.args else error
            reason = self._without_key(f"{type(error).__name__}: {cause}")
            raise Unavailable(
                f"no answer from CoinGecko to {request}: {reason}. Retry later; if this lasts, check the network and "
                "the host in the connection coingecko_default"
            ) from None
        matter = [name for name in _HEADERS_THAT_MATTER if name in response.headers]
        headers = {name: self._without_key(response.headers[name])[:200] for name in matter}
        body = response.content
        if self._api_key and self._api_key.encode() in body:
            # Some proxies repeat the request in their error pages. All else of a body is kept byte for byte.
            body = body.replace(self._api_key.encode(), b"***")
            headers["x-coinwatch-redacted"] = "the API key stood in the body"
        return Answer(request, response.status_code, headers, body, format_time(self._clock()))

    def _without_key(self, text: str) -> str:
        return text.replace(self._api_key, "***") if self._api_key else text
