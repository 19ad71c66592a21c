"""CoinGecko's errors: their classes, and which one an answer stands for. Pure.

An error may have the HTTP status 200, and be in any of seven places of a body. CoinGecko's own code counts first, then
the status.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any

from coinwatch.archive.snapshots import Answer
from coinwatch.errors import CoinwatchError
from coinwatch.times import parse_time

EXCERPT = 200
"""Characters of a body that stand in a message."""

RETRY_AFTER_MAX = 3600.0
"""Seconds; 7 to 119 are seen, and the next run polls in any case."""

BLOCKED_BACKOFF = 600.0
"""Seconds before the next request to a firewall that refuses us; an earlier one makes it worse."""


class CoinGeckoError(CoinwatchError):
    """CoinGecko gave no price.

    Attributes:
        answer: What it answered instead, for the archive; None where no answer came.
    """

    def __init__(self, message: str, *, answer: Answer | None = None, retry_after: float | None = None) -> None:
        super().__init__(message, retry_after=retry_after)
        self.answer = answer


class RateLimited(CoinGeckoError):
    """Too many requests for the plan."""


class Unavailable(CoinGeckoError):
    """CoinGecko cannot be reached, is out of order, refuses this address, or its answer broke off."""


class UnexpectedAnswer(CoinGeckoError):
    """The answer is not what the documentation promises."""


class KeyRejected(CoinGeckoError):
    """The API key is missing or wrong, or belongs to the other one of the two hosts."""

    retryable = False


class BeyondPlan(CoinGeckoError):
    """The plan does not include what was requested."""

    retryable = False


class UnknownCoin(CoinGeckoError):
    """CoinGecko has no coin with this id."""

    retryable = False


class BadRequest(CoinGeckoError):
    """CoinGecko does not accept the request."""

    retryable = False


def judge(answer: Answer, body: Any) -> CoinGeckoError | None:
    """Return the error that an answer stands for, if any; ``body`` is its JSON with numbers as ``Decimal``."""
    code, message = _find_error(body)
    error = _by_code(answer, code, message) or _by_status(answer, code, message)
    if error is None and (code is not None or message):
        return UnexpectedAnswer(f"{answer.request}: unknown error {excerpt(answer)}", answer=answer)
    return error


def _find_error(body: Any) -> tuple[int | None, str]:
    """Return the code and the message of an error inside a body; None and an empty text without one."""
    if not isinstance(body, Mapping):
        return None, ""
    error = body.get("error")
    if isinstance(error, Mapping) and "status" in error:
        return _find_error(error)
    if isinstance(error, str | Mapping):
        return None, str(error)
    status = body.get("status")
    if not isinstance(status, Mapping):
        status = {}
    code = status.get("error_code", body.get("error_code"))
    # The limits come first: 1e999999 takes minutes to become an integer.
    number = int(code) if isinstance(code, Decimal) and 0 < code < 10**6 and code == int(code) else None
    return number, str(status.get("error_message", ""))


def _by_code(answer: Answer, code: int | None, message: str) -> CoinGeckoError | None:
    what = f"{answer.request}: CoinGecko error {code}: {message[:EXCERPT]!r}"
    if code in (10010, 10011):
        return KeyRejected(
            f"{what}. In the connection coingecko_default, a demo key needs the host https://api.coingecko.com/api/v3 "
            "and plan demo, a paid key https://pro-api.coingecko.com/api/v3 and plan pro",
            answer=answer,
        )
    if code == 10005 or "does not have access" in message or (code == 10012 and "time range" in message):
        return BeyondPlan(f"{what}. The plan does not include it: only a larger plan helps", answer=answer)
    if code == 10002:
        return KeyRejected(f"{what}. Check the key in the connection coingecko_default", answer=answer)
    if "coin not found" in message.lower() or "could not find coin" in message.lower():
        return UnknownCoin(f"{what}. Correct or remove the id in COINWATCH_COINS", answer=answer)
    return None


def _by_status(answer: Answer, code: int | None, message: str) -> CoinGeckoError | None:
    """Return the error of the status that stands in the body, or else of the HTTP status."""
    status = code if code is not None and 400 <= code < 600 else answer.status
    what = f"{answer.request}: HTTP {status}: {message[:EXCERPT] or excerpt(answer)}"
    if status == 200:
        return None
    if status == 429:
        wait = retry_after(answer)
        when = "later" if wait is None else f"in {wait:.0f} s"
        return RateLimited(
            f"{what}. Retry {when}; if this lasts, a key (connection coingecko_default) raises the limit",
            answer=answer,
            retry_after=wait,
        )
    if status == 403:
        return Unavailable(
            f"{what}. A firewall blocks this address or client; retry in {BLOCKED_BACKOFF / 60:.0f} minutes",
            answer=answer,
            retry_after=BLOCKED_BACKOFF,
        )
    if status in (408, 425) or status >= 500:
        return Unavailable(f"{what}. Retry later", answer=answer, retry_after=retry_after(answer))
    host = "the host in the connection coingecko_default"
    kind, check = {
        401: (KeyRejected, "the key in the connection coingecko_default"),
        404: (UnknownCoin, f"the ids in COINWATCH_COINS and {host}"),
    }.get(status, (BadRequest, f"COINWATCH_CURRENCY, COINWATCH_COINS and {host}"))
    return kind(f"{what}. Check {check}", answer=answer)


def retry_after(answer: Answer) -> float | None:
    """Return the seconds to wait by ``Retry-After`` (seconds or a date) or ``x-ratelimit-reset``, an hour at most."""
    header = answer.headers.get("retry-after", "").strip()
    if header.isdecimal():
        return min(float(header), RETRY_AFTER_MAX)
    reset = answer.headers.get("x-ratelimit-reset", "").strip()
    for text, read in (
        (header, parsedate_to_datetime),
        (reset, lambda text: datetime.strptime(text, "%Y-%m-%d %H:%M:%S %z")),
    ):
        try:
            wait = read(text).astimezone(UTC) - parse_time(answer.fetched_at)
        except (ValueError, TypeError, IndexError, OverflowError):
            # An unreadable header is no header.
            continue
        return min(max(0.0, wait.total_seconds()), RETRY_AFTER_MAX)
    return None


def excerpt(answer: Answer) -> str:
    """Return the beginning of a body for a message."""
    return repr(answer.body[: EXCERPT * 4].decode("utf-8", "replace")[:EXCERPT])
