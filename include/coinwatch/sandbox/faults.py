"""What can go wrong with the sandbox's CoinGecko, by name."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from coinwatch.sandbox.http import Response, json_response

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

ERRORS: dict[str, tuple[int, Any]] = {
    "rate_limited": (429, _RATE_LIMIT),
    "rate_limited_page": (429, _PAGE),
    "rate_limited_under_200": (200, _RATE_LIMIT),
    "key_missing": (
        401,
        _status(10002, "API Key Missing. Please make sure you're using the right authentication method."),
    ),
    "key_rejected": (401, _status(401, "Invalid API key")),
    "wrong_host": (
        400,
        _status(
            10010,
            "If you are using Pro API key, please change your root URL from api.coingecko.com to pro-api.coingecko.com",
        ),
    ),
    "beyond_time_range": (401, _TIME_RANGE),
    "beyond_plan": (403, _status(10005, "This request is limited to PRO API subscribers.")),
    "coin_not_found": (404, {"error": "coin not found"}),
    "blocked": (403, _PAGE),
    "server_error": (500, _status(500, "Internal server error")),
    "bad_gateway": (502, "Bad Gateway"),
    "page_under_200": (200, _PAGE),
}
"""Answers that are errors, in the shapes that CoinGecko gives them: name → status and body."""


@dataclass(slots=True)
class Fault:
    """A fault that is switched on.

    Attributes:
        kind: A name of ``ERRORS``, or of what happens to a sound answer (``MISHAPS``).
        times: How many answers it still befalls; none means all.
        path: Only requests whose path has this in it.
        retry_after: Seconds that an error asks to wait.
        coin: Of which coin the value is changed.
        factor: By which a price is multiplied.
        seconds: How late a slow answer is.
    """

    kind: str
    times: int | None = None
    path: str = ""
    retry_after: float | None = None
    coin: str = "bitcoin"
    factor: float = 10.0
    seconds: float = 60.0

    def __post_init__(self) -> None:
        """Refuse a name that nobody knows."""
        if self.kind not in KINDS:
            raise ValueError(f"fault {self.kind!r} is not known; known are {', '.join(KINDS)}")

    def befall(self, response: Response) -> Response:
        """What becomes of a sound answer."""
        if self.kind in MISHAPS:
            return MISHAPS[self.kind](self, response)
        status, body = ERRORS[self.kind]
        broken = json_response(body, status) if isinstance(body, dict) else Response(status, body.encode())
        if self.retry_after is not None:
            broken.headers["Retry-After"] = f"{self.retry_after:g}"
        return broken


def _change_coin(change: Callable[[Fault, dict[str, Any]], None]) -> Callable[[Fault, Response], Response]:
    def befall(fault: Fault, response: Response) -> Response:
        quotes = json.loads(response.body)
        if fault.coin in quotes:
            change(fault, quotes[fault.coin])
        response.body = json.dumps(quotes).encode()
        return response

    return befall


def _multiply(fault: Fault, quote: dict[str, Any]) -> None:
    quote["usd"] *= fault.factor


def _set_null(_: Fault, quote: dict[str, Any]) -> None:
    quote["usd"] = None


def _age(fault: Fault, quote: dict[str, Any]) -> None:
    quote["last_updated_at"] -= int(fault.seconds)


def _lose_coin(fault: Fault, response: Response) -> Response:
    quotes = json.loads(response.body)
    quotes.pop(fault.coin, None)
    response.body = json.dumps(quotes).encode()
    return response


def _break_off(_: Fault, response: Response) -> Response:
    response.body = response.body[: len(response.body) // 2]
    return response


def _hang_up(_: Fault, response: Response) -> Response:
    response.cut_after = len(response.body) // 2
    return response


def _say_nothing(_: Fault, response: Response) -> Response:
    response.cut_after = -1
    return response


def _wait(fault: Fault, response: Response) -> Response:
    response.delay = fault.seconds
    return response


MISHAPS: dict[str, Callable[[Fault, Response], Response]] = {
    "price_null": _change_coin(_set_null),
    "price_times": _change_coin(_multiply),
    "price_old": _change_coin(_age),
    "coin_missing": _lose_coin,
    "broken_json": _break_off,
    "connection_lost": _hang_up,
    "connection_refused": _say_nothing,
    "slow": _wait,
}
"""What befalls an answer that was sound."""

KINDS = (*ERRORS, *MISHAPS)
