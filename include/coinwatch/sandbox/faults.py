"""What can go wrong with the sandbox's CoinGecko, by name."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from datetime import datetime
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
_USE_PRO_HOST = (
    "If you are using Pro API key, please change your root URL from api.coingecko.com to pro-api.coingecko.com"
)
_USE_PUBLIC_HOST = (
    "If you are using Demo API key, please change your root URL from pro-api.coingecko.com to api.coingecko.com"
)
_TOO_MANY = "Number of contract addresses in the request exceeds the allowed limit (10 addresses)."

ERRORS: dict[str, tuple[int, Any]] = {
    "rate_limited": (429, _RATE_LIMIT),
    "rate_limited_page": (429, _PAGE),
    "rate_limited_empty": (429, ""),
    "rate_limited_under_200": (200, _RATE_LIMIT),
    "key_missing": (
        401,
        _status(10002, "API Key Missing. Please make sure you're using the right authentication method."),
    ),
    "key_rejected": (401, _status(401, "Invalid API key")),
    "key_rejected_empty": (401, ""),
    "wrong_host": (400, _status(10010, _USE_PRO_HOST)),
    "wrong_host_code_outside": (
        400,
        {"error_code": 10010, "status": {"error_message": _USE_PRO_HOST}},
    ),
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
"""Answers that are errors, in the shapes that CoinGecko gives them: name → status and body."""


_SAID_TO_BE_JSON = {"page_under_200"}


def error_response(kind: str) -> Response:
    """An error by its name in ``ERRORS``."""
    status, body = ERRORS[kind]
    if not isinstance(body, str):
        return json_response(body, status)
    if kind in _SAID_TO_BE_JSON:
        content_type = "application/json; charset=utf-8"
    else:
        content_type = "text/html; charset=UTF-8" if body.startswith("<") else "text/plain; charset=utf-8"
    return Response(status, body.encode(), {"Content-Type": content_type})


@dataclass(slots=True)
class Fault:
    """A fault that is switched on.

    Attributes:
        kind: A name of ``ERRORS``, of what happens to a sound answer (``MISHAPS``), or of a feed that stands still
            (``FROZEN``).
        times: How many answers it still befalls; none means all.
        path: Only requests whose path has this in it.
        retry_after: Seconds that an error asks to wait.
        coin: Of which coin the value is changed.
        factor: By which a price is multiplied; 0.1 and 0 are among what is seen in the field.
        seconds: How late a slow answer is, or how much older than usual an old price.
        since: When a feed came to stand still: the sandbox's time at which this is switched on, unless it is given.
    """

    kind: str
    times: int | None = None
    path: str = ""
    retry_after: float | None = None
    coin: str = "bitcoin"
    factor: float = 10.0
    seconds: float = 60.0
    since: datetime | None = None

    def __post_init__(self) -> None:
        """Refuse what nobody understands.

        Raises:
            ValueError: The kind is not known, or an option is not of its type.
        """
        if self.kind not in KINDS:
            raise ValueError(f"fault {self.kind!r} is not known; known are {', '.join(KINDS)}")
        if self.times is not None and (type(self.times) is not int or self.times < 1):
            raise ValueError(f"times is {self.times!r}; 1 or more is needed, or null for all")
        for name, kind, wanted in (("path", str, "a text"), ("coin", str, "a text"), ("since", datetime, "a time")):
            value = getattr(self, name)
            unset = value is None and name == "since"
            if not unset and not isinstance(value, kind):
                raise ValueError(f"{name} is {value!r}; {wanted} is needed")
        for name in ("retry_after", "factor", "seconds"):
            value = getattr(self, name)
            unset = value is None and name == "retry_after"
            if not unset and (type(value) not in {int, float} or value < 0):
                raise ValueError(f"{name} is {value!r}; a number from 0 on is needed")

    def concerns(self, path: str) -> bool:
        """Whether it befalls requests of a path; what happens to live prices leaves the others alone."""
        is_live = path.endswith(LIVE_PATHS)
        return self.path in path and (is_live or self.kind not in LIVE_KINDS)

    def befall(self, response: Response) -> Response:
        """What becomes of a sound answer."""
        if self.kind in MISHAPS:
            return MISHAPS[self.kind](self, response)
        if self.kind in FROZEN:
            return response
        broken = error_response(self.kind)
        if self.retry_after is not None:
            broken.headers["Retry-After"] = f"{self.retry_after:g}"
        return broken

    def described(self) -> dict[str, Any]:
        """Its options, ready for JSON."""
        options = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**options, "since": self.since and self.since.isoformat()}


def _quotes(content: Any, coin: str) -> Iterator[tuple[dict[str, Any], list[str], str]]:
    """What an answer says of a coin: the object, names of its prices, and that of its time."""
    if isinstance(content, list):
        for item in content:
            if item["id"] == coin:
                yield item, ["current_price"], "last_updated"
    elif isinstance(content.get(coin), dict):
        # Currencies have no underscore in them, and all other fields do.
        yield content[coin], [name for name in content[coin] if "_" not in name], "last_updated_at"


def _change_prices(change: Callable[[Fault, Any], Any]) -> Callable[[Fault, Response], Response]:
    def befall(fault: Fault, response: Response) -> Response:
        content = json.loads(response.body)
        for quote, names, _ in _quotes(content, fault.coin):
            quote.update({name: change(fault, quote[name]) for name in names})
        response.body = json.dumps(content).encode()
        return response

    return befall


def _lose_coin(fault: Fault, response: Response) -> Response:
    content = json.loads(response.body)
    if isinstance(content, list):
        content = [item for item in content if item["id"] != fault.coin]
    else:
        content.pop(fault.coin, None)
    response.body = json.dumps(content).encode()
    return response


def _age(fault: Fault, response: Response) -> Response:
    content = json.loads(response.body)
    for quote, _, name in _quotes(content, fault.coin):
        if isinstance(quote.get(name), int):
            quote[name] -= int(fault.seconds)
    response.body = json.dumps(content).encode()
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
    "price_null": _change_prices(lambda _, __: None),
    "price_times": _change_prices(lambda fault, price: price * fault.factor),
    "price_old": _age,
    "coin_missing": _lose_coin,
    "broken_json": _break_off,
    "connection_lost": _hang_up,
    "connection_refused": _say_nothing,
    "slow": _wait,
}
"""What befalls an answer that was sound."""

FROZEN = ("feed_frozen", "price_frozen")
"""Feeds that stand still: with the time of their last price, or saying that each old price is a new one."""

LIVE_KINDS = ("price_null", "price_times", "price_old", "coin_missing", *FROZEN)
"""What happens to live prices only."""

LIVE_PATHS = ("/simple/price", "/coins/markets")

KINDS = (*ERRORS, *MISHAPS, *FROZEN)
