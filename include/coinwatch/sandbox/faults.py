"""Faults of the sandbox's CoinGecko, by name."""

import json
from typing import Any

import flask
from pydantic import AwareDatetime, ConfigDict, Field
from pydantic.dataclasses import dataclass

from coinwatch.sandbox.http import Response

_PAGE = (
    "<!DOCTYPE html><html><title>Access denied | api.coingecko.com used Cloudflare to restrict access</title></html>"
)


def _status(code: int, message: str) -> dict[str, Any]:
    return {"status": {"error_code": code, "error_message": message}}


_RATE_LIMIT = _status(
    429,
    "You've exceeded the Rate Limit. Please visit https://www.coingecko.com/en/api/pricing to subscribe to our API "
    "plans for higher rate limits.",
)
_TIME_RANGE = {
    "error": _status(
        10012,
        "Your request exceeds the allowed time range. Public API users are limited to querying historical data within "
        "the past 365 days. Upgrade to a paid plan to enjoy full historical data access.",
    )
}
_USE_PRO_HOST = (
    "If you are using Pro API key, please change your root URL from api.coingecko.com to pro-api.coingecko.com"
)
_USE_PUBLIC_HOST = (
    "If you are using Demo API key, please change your root URL from pro-api.coingecko.com to api.coingecko.com"
)
_TOO_MANY = "Number of contract addresses in the request exceeds the allowed limit (10 addresses)."
_KEY_MISSING = "API Key Missing. Please make sure you're using the right authentication method."

ERRORS: dict[str, tuple[int, Any]] = {
    "rate_limited": (429, _RATE_LIMIT),
    "rate_limited_page": (429, _PAGE),
    "rate_limited_empty": (429, ""),
    "rate_limited_under_200": (200, _RATE_LIMIT),
    "key_missing": (401, _status(10002, _KEY_MISSING)),
    "key_rejected": (401, _status(401, "Invalid API key")),
    "key_rejected_empty": (401, ""),
    "wrong_host": (400, _status(10010, _USE_PRO_HOST)),
    "wrong_host_code_outside": (400, {"error_code": 10010, "status": {"error_message": _USE_PRO_HOST}}),
    "wrong_host_pro": (400, _status(10011, _USE_PUBLIC_HOST)),
    "beyond_time_range": (401, _TIME_RANGE),
    "beyond_time_range_under_200": (200, _TIME_RANGE),
    "beyond_plan": (403, _status(10005, "This request is limited to PRO API subscribers.")),
    "beyond_plan_text": (403, {"error": "Your plan does not have access to this endpoint"}),
    "too_many_at_once": (400, {"error_code": 10012, "status": {"error_message": _TOO_MANY}}),
    "coin_not_found": (404, {"error": "coin not found"}),
    "coin_not_found_old": (404, {"error": "Could not find coin with the given id"}),
    "coin_not_found_under_200": (200, {"error": "coin not found"}),
    "parameter_missing": (422, {"error": "Missing parameter vs_currencies"}),
    "currency_invalid": (400, {"error": "invalid vs_currency"}),
    "blocked": (403, _PAGE),
    "timed_out": (408, _status(408, "Request Timeout")),
    "server_error": (500, _status(500, "Internal server error")),
    "bad_gateway": (502, "Bad Gateway"),
    "unavailable": (503, "<html><title>503 Service Temporarily Unavailable</title></html>"),
    "page_under_200": (200, _PAGE),
}
"""Error answers in the shapes that CoinGecko gives them: name → status and body."""

FROZEN = ("feed_frozen", "price_frozen")
"""Feeds without new prices: with the time of their last price, or with the present time."""

LIVE_KINDS = ("price_null", "price_times", "price_old", "coin_missing", *FROZEN)
"""Faults of ``/simple/price`` only."""

KINDS = (*ERRORS, *LIVE_KINDS, "broken_json", "connection_lost", "connection_refused", "slow")


def error_response(kind: str, retry_after: float | None = None) -> Response:
    """Return an error by its name in ``ERRORS``."""
    status, body = ERRORS[kind]
    if isinstance(body, str):
        content_type = "text/html; charset=UTF-8" if body.startswith("<") else "text/plain; charset=utf-8"
    else:
        body, content_type = json.dumps(body), "application/json; charset=utf-8"
    headers = {"Content-Type": content_type}
    if retry_after is not None:
        headers["Retry-After"] = f"{retry_after:g}"
    return Response(status, body, headers)


@dataclass(config=ConfigDict(extra="forbid"))
class Fault:
    """A fault that is switched on.

    Attributes:
        kind: One of ``KINDS``.
        times: How many answers it still changes; None means all.
        path: Only requests whose path contains this.
        retry_after: Seconds that an error asks to wait.
        coin: The coin whose value is changed.
        factor: By which a price is multiplied.
        seconds: How late a slow answer is, or by how much an old price is older.
        since: When a feed froze; by default when the fault is switched on.
    """

    kind: str
    times: int | None = Field(default=None, ge=1)
    path: str = ""
    retry_after: float | None = Field(default=None, ge=0)
    coin: str = "bitcoin"
    factor: float = Field(default=10.0, ge=0)
    seconds: float = Field(default=60.0, ge=0)
    since: AwareDatetime | None = None

    def __post_init__(self) -> None:
        """Raise a ValueError if the kind is unknown."""
        if self.kind not in KINDS:
            raise ValueError(f"unknown fault {self.kind!r}; known are {', '.join(KINDS)}")

    def concerns(self, path: str) -> bool:
        """Return whether the fault changes answers of a path."""
        return self.path in path and (path.endswith("/simple/price") or self.kind not in LIVE_KINDS)

    def apply(self, response: flask.Response) -> flask.Response:
        """Return what becomes of a good answer."""
        if self.kind in ERRORS:
            return error_response(self.kind, self.retry_after)
        body = response.get_data()
        if self.kind in LIVE_KINDS:
            body = json.dumps(self._changed(response.get_json())).encode()
        elif self.kind == "broken_json":
            body = body[: len(body) // 2]
        cut_after = {"connection_lost": len(body) // 2, "connection_refused": -1}.get(self.kind)
        delay = self.seconds if self.kind == "slow" else 0.0
        headers = {"Content-Type": response.headers["Content-Type"]}
        return Response(response.status_code, body, headers, delay=delay, cut_after=cut_after)

    def _changed(self, content: dict[str, Any]) -> dict[str, Any]:
        quote = content.get(self.coin, {})
        # Currencies have no underscore in them, and all other fields do.
        prices = [name for name in quote if "_" not in name]
        if self.kind == "price_null":
            quote |= dict.fromkeys(prices)
        elif self.kind == "price_times":
            quote |= {name: quote[name] * self.factor for name in prices}
        elif self.kind == "price_old" and "last_updated_at" in quote:
            quote["last_updated_at"] -= int(self.seconds)
        elif self.kind == "coin_missing":
            content.pop(self.coin, None)
        return content
