"""Reading CoinGecko's answers: pure, and never fooled by a status of 200.

The order of judgement: is it JSON, does it carry an error inside, what is the status, is it what was promised.
Shapes and codes: the public API specification (coingecko/coingecko-api-oas) and what users met in the field.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from email.utils import parsedate_to_datetime
from math import ceil, isfinite
from typing import Any, Literal, NoReturn, Self

from pydantic import BaseModel, InstanceOf, ValidationError

from coinwatch.archive.snapshots import Answer
from coinwatch.coingecko import errors
from coinwatch.record import RawPrice
from coinwatch.times import HOUR, ceil_hour, format_time, from_milliseconds, from_seconds, nearest_hour, parse_time

EXCERPT = 200
"""Characters of a body that stand in a message."""

RETRY_AFTER_MAX = 3600.0
"""Seconds; 7 to 119 are seen, and a header that says a year is a mistake."""

LITERAL_MAX = 100
"""Characters of a number: five times as many as the longest seen; longer ones would not fit into tables and files."""

STALE_AFTER = timedelta(minutes=60)
"""Prices are half a minute old by design; a price that is older than this when it is fetched is not of this hour."""

BLOCKED_PAUSE = 600.0
"""Seconds to stay away from a front door that refuses us; asking again soon makes it worse."""


ConditionName = Literal["unknown_id", "no_price", "bad_price", "not_understood", "stale", "unchanged"]
"""With the first four a coin has no row; with the last two its price is stored, and nobody should trust it."""


class Number(Decimal):
    """A JSON number that keeps the digits it was written with.

    Attributes:
        text: As it stood in the body.
    """

    text: str

    def __new__(cls, text: str) -> Self:
        """Read the literal; the JSON grammar has made sure that it is one.

        Raises:
            ValueError: It has more digits than any price or time.
        """
        if len(text) > LITERAL_MAX:
            raise ValueError(f"a number of {len(text)} characters")
        try:
            number = super().__new__(cls, text)
        except InvalidOperation:
            raise ValueError(f"{text} is too large or too small to be read") from None
        number.text = text
        return number

    def is_whole(self, *, below: int) -> bool:
        """Whether it is a whole number from 1 on; a limit comes first, because 1e999999 takes for ever to be one."""
        return 0 < self < below and self == int(self)


class _Quote(BaseModel):
    """What ``/simple/price`` says of one coin in one currency; every field may be null or absent."""

    price: InstanceOf[Number] | None = None
    market_cap: InstanceOf[Number] | None = None
    volume_24h: InstanceOf[Number] | None = None
    change_24h_pct: InstanceOf[Number] | None = None
    last_updated_at: InstanceOf[Number] | None = None


class _Chart(BaseModel):
    """What the history endpoints say: three lists of [UNIX milliseconds, value or null], not always of one length."""

    prices: list[tuple[InstanceOf[Number], InstanceOf[Number] | None]]
    market_caps: list[tuple[InstanceOf[Number], InstanceOf[Number] | None]] = []
    total_volumes: list[tuple[InstanceOf[Number], InstanceOf[Number] | None]] = []


@dataclass(frozen=True, slots=True)
class Condition:
    """What is wrong with one coin's price although the answer as a whole is sound.

    Attributes:
        coin: CoinGecko id.
        name: What kind of wrong it is.
        reason: What is missing or wrong, in words for the operator.
        value: What stood in the price's place, if something did that is none.
    """

    coin: str
    name: ConditionName
    reason: str
    value: str = ""


def read_quotes(
    answer: Answer, coins: Sequence[str], currency: str, as_of: datetime, snapshot: str
) -> tuple[list[RawPrice], list[Condition]]:
    """Take the live prices of coins from an answer of ``/simple/price``.

    Returns:
        A row for each coin that has a price, in the order of ``coins``, and a condition for each that has none.

    Raises:
        CoinGeckoError: The answer is an error, or not what was promised.
    """
    body = read_json(answer)
    rows: list[RawPrice] = []
    conditions: list[Condition] = []
    for coin in coins:
        found = _read_coin(answer, body, coin, currency, as_of, snapshot)
        if isinstance(found, Condition):
            conditions.append(found)
        else:
            rows.append(found)
    if not rows and any(condition.name == "not_understood" for condition in conditions):
        _not_understood(answer, "; ".join(condition.reason for condition in conditions[:5]))
    return rows, conditions


def _read_coin(
    answer: Answer, body: Mapping[str, Any], coin: str, currency: str, as_of: datetime, snapshot: str
) -> RawPrice | Condition:
    if coin not in body:
        reason = "CoinGecko does not know this id (any more): correct or remove it in COINWATCH_COINS"
        return Condition(coin, "unknown_id", reason)
    try:
        quote = _read_quote(body[coin], coin, currency)
    except _NotAQuote as error:
        return Condition(coin, "not_understood", str(error), error.price)
    if quote.price is None:
        return Condition(coin, "no_price", f"CoinGecko has no {currency} price for it now")
    if not _is_price(quote.price):
        return Condition(coin, "bad_price", f"{quote.price.text} is no price", quote.price.text)
    return _live_row(answer, quote, coin, currency, as_of, snapshot)


def judge_freshness(
    rows: Sequence[RawPrice], last_updates: Mapping[str, tuple[datetime, datetime]], repeat_after: timedelta
) -> list[Condition]:
    """Find the live prices that are old, by what CoinGecko says of their time; its word is ``last_updated_at``.

    Args:
        rows: Live rows of one pull.
        last_updates: Coin → (as-of time, last_updated_at) of the pull before.
        repeat_after: A pull so soon after the one before may well have the same price: CoinGecko caches it.
    """
    conditions = []
    for row in rows:
        if not row.last_updated_at:
            continue
        updated = parse_time(row.last_updated_at)
        age = parse_time(row.fetched_at) - updated
        if age > STALE_AFTER:
            minutes = age // timedelta(minutes=1)
            reason = f"its price is {minutes} minutes old: CoinGecko last updated it at {row.last_updated_at}"
            conditions.append(Condition(row.coin, "stale", reason))
        before, updated_before = last_updates.get(row.coin, (row.moment, updated))
        if row.moment - before >= repeat_after and updated <= updated_before:
            reason = f"CoinGecko has not updated it since the pull of {format_time(before)}"
            conditions.append(Condition(row.coin, "unchanged", reason))
    return conditions


class _NotAQuote(ValueError):
    """What stands for a coin is not what the documentation promises.

    Attributes:
        price: What stood in the price's place, if that is the matter.
    """

    def __init__(self, message: str, price: str = "") -> None:
        super().__init__(message)
        self.price = price


def _read_quote(fields: Any, coin: str, currency: str) -> _Quote:
    if not isinstance(fields, dict):
        raise _NotAQuote(f"{coin} is {type(fields).__name__} instead of an object")
    names = {
        "price": currency,
        "market_cap": f"{currency}_market_cap",
        "volume_24h": f"{currency}_24h_vol",
        "change_24h_pct": f"{currency}_24h_change",
        "last_updated_at": "last_updated_at",
    }
    try:
        quote = _Quote(**{field: fields.get(name) for field, name in names.items()})
    except ValidationError as error:
        field = str(error.errors()[0]["loc"][0])
        value = repr(fields[names[field]])[:EXCERPT]
        price = value if field == "price" else ""
        raise _NotAQuote(f"{coin}.{names[field]} is {value}, which is no number", price) from None
    seconds = quote.last_updated_at
    if seconds is not None and not seconds.is_whole(below=2**33):
        raise _NotAQuote(f"{coin}.last_updated_at is {seconds.text}, which is no UNIX time in seconds")
    return quote


def _live_row(answer: Answer, quote: _Quote, coin: str, currency: str, as_of: datetime, snapshot: str) -> RawPrice:
    seconds = quote.last_updated_at
    return RawPrice(
        timestamp=format_time(as_of),
        coin=coin,
        currency=currency,
        price=_text(quote.price),
        market_cap=_text(quote.market_cap),
        volume_24h=_text(quote.volume_24h),
        change_24h_pct=_text(quote.change_24h_pct),
        last_updated_at="" if seconds is None else format_time(from_seconds(int(seconds))),
        fetched_at=answer.fetched_at,
        source="live",
        snapshot=snapshot,
    )


def read_history(
    answer: Answer, coin: str, currency: str, hours: Iterable[datetime], snapshot: str, *, ends_now: bool
) -> list[RawPrice]:
    """Take full hours from an answer of ``/coins/{id}/market_chart/range``.

    For each hour it is the point nearest to it, at most 30 minutes away, the earlier one on a tie.

    Args:
        answer: What the API said.
        coin: CoinGecko id.
        currency: Quote currency.
        hours: The full hours that are wanted.
        snapshot: Name that the answer is archived under.
        ends_now: Whether the window that was asked for reaches to now: then the last point is the price of that
            moment and no hour's.

    Returns:
        Rows in the order of time; no row for an hour that the API has no price near to.

    Raises:
        CoinGeckoError: The answer is an error, or not what was promised.
    """
    try:
        chart = _Chart.model_validate(read_json(answer))
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        _not_understood(answer, f"{where} of {coin}'s history: {problem['msg']}")
    market_caps = {moment: value for moment, value in chart.market_caps if value is not None}
    volumes = {moment: value for moment, value in chart.total_volumes if value is not None}
    points = sorted((moment, price) for moment, price in chart.prices if price is not None)
    if ends_now:
        points = points[:-1]
    wanted = set(hours)
    nearest: dict[datetime, tuple[timedelta, datetime, Number, Number]] = {}
    for milliseconds, price in points:
        moment = _point_time(answer, coin, milliseconds)
        hour = nearest_hour(moment)
        if hour in wanted and _is_price(price):
            candidate = (abs(moment - hour), moment, milliseconds, price)
            nearest[hour] = min(candidate, nearest.get(hour, candidate))
    return [
        RawPrice(
            timestamp=format_time(hour),
            coin=coin,
            currency=currency,
            price=price.text,
            market_cap=_text(market_caps.get(milliseconds)),
            volume_24h=_text(volumes.get(milliseconds)),
            change_24h_pct="",
            last_updated_at=format_time(moment),
            fetched_at=answer.fetched_at,
            source="history",
            snapshot=snapshot,
        )
        for hour, (_, moment, milliseconds, price) in sorted(nearest.items())
    ]


def _point_time(answer: Answer, coin: str, milliseconds: Number) -> datetime:
    if not milliseconds.is_whole(below=2**43):
        _not_understood(answer, f"{milliseconds.text} in {coin}'s history is no UNIX time in milliseconds")
    return from_milliseconds(int(milliseconds))


def _is_price(number: Number) -> bool:
    # 1e400 is a JSON number, and infinite wherever it is computed with.
    return 0 < float(number) < float("inf")


def _text(number: Number | None) -> str:
    """As it was written; unknown if it cannot be computed with."""
    return "" if number is None or not isfinite(float(number)) else number.text


def read_json(answer: Answer) -> dict[str, Any]:
    """Read a sound answer's JSON object, its numbers as ``Number``.

    Raises:
        CoinGeckoError: It is no JSON, carries an error, or has another status than 200.
    """
    try:
        body = json.loads(answer.body, parse_float=Number, parse_int=Number, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        _raise_by_status(answer, code=None, said="")
        raise errors.Unavailable(
            f"CoinGecko's answer to {answer.request} is no whole JSON: {excerpt(answer)}. It is asked again later",
            answer=answer,
        ) from None
    code, said = _error_inside(body)
    if code is not None or said:
        _raise_by_code(answer, code, said)
        _raise_by_status(answer, code, said)
        raise errors.NotUnderstood(
            f"CoinGecko answered {answer.request} with an error that is not known: {excerpt(answer)}", answer=answer
        )
    _raise_by_status(answer, code=None, said="")
    if not isinstance(body, dict):
        _not_understood(answer, f"the answer is a {type(body).__name__} instead of an object")
    return body


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _error_inside(body: Any) -> tuple[int | None, str]:
    """Find an error in any of the seven places where CoinGecko puts one: (code, message)."""
    if not isinstance(body, Mapping):
        return None, ""
    if isinstance(body.get("error"), str):
        return None, body["error"]
    if isinstance(body.get("error"), Mapping):
        return _error_inside(body["error"]) if "status" in body["error"] else (None, str(body["error"]))
    status: Any = body.get("status")
    if not isinstance(status, Mapping):
        status = {}
    code = status.get("error_code", body.get("error_code"))
    said = status.get("error_message", "")
    number = int(code) if isinstance(code, Number) and code.is_whole(below=10**6) else None
    return number, said if isinstance(said, str) else str(said)


def _raise_by_code(answer: Answer, code: int | None, said: str) -> None:
    what = f"CoinGecko answered {answer.request}: {said[:EXCERPT]!r} (code {code})"
    if code in (10010, 10011):
        raise errors.WrongHost(
            f"{what}. The API key and the host do not belong together: in the connection coingecko_default, a demo key "
            "goes with https://api.coingecko.com/api/v3 and plan demo, a paid key with "
            "https://pro-api.coingecko.com/api/v3 and plan pro",
            answer=answer,
        )
    if code == 10005 or "does not have access" in said or (code == 10012 and "time range" in said):
        raise errors.BeyondPlan(
            f"{what}. The plan does not include it: there is nothing to do, unless a larger plan is wanted",
            answer=answer,
        )
    if code == 10002:
        raise errors.KeyRejected(f"{what}. Check the key in the connection coingecko_default", answer=answer)
    if "coin not found" in said.lower() or "could not find coin" in said.lower():
        raise errors.UnknownCoin(f"{what}. Correct or remove the id in COINWATCH_COINS", answer=answer)
    if code is not None and 400 <= code < 600:
        _raise_by_status(answer, code, said)


def _raise_by_status(answer: Answer, code: int | None, said: str) -> None:
    """Raise by an error's own status, or else by the HTTP status; a 200 raises nothing."""
    status = code if code is not None and 400 <= code < 600 else answer.status
    what = f"CoinGecko answered {answer.request} with status {status}: {said[:EXCERPT] or excerpt(answer)}"
    if status == 200:
        return
    if status == 429:
        wait = retry_after(answer)
        raise errors.RateLimited(
            f"{what}. It is asked again "
            + (f"in {wait:.0f} s, as it says" if wait is not None else "later")
            + "; if this lasts, a key (connection coingecko_default) raises the limit",
            answer=answer,
            retry_after=wait,
        )
    if status == 401:
        raise errors.KeyRejected(f"{what}. Check the key in the connection coingecko_default", answer=answer)
    if status == 403:
        raise errors.Blocked(
            f"{what}. This address or client is blocked; it is left alone for {BLOCKED_PAUSE / 60:.0f} minutes",
            answer=answer,
            retry_after=BLOCKED_PAUSE,
        )
    if status == 404:
        raise errors.UnknownCoin(
            f"{what}. Check the ids in COINWATCH_COINS and the host in the connection coingecko_default", answer=answer
        )
    if status in (408, 425) or status >= 500:
        raise errors.Unavailable(f"{what}. It is asked again later", answer=answer, retry_after=retry_after(answer))
    raise errors.BadRequest(
        f"{what}. Check COINWATCH_CURRENCY, COINWATCH_COINS and the host in the connection coingecko_default",
        answer=answer,
    )


def retry_after(answer: Answer) -> float | None:
    """Seconds that the answer asks to wait: ``Retry-After`` (seconds or a date), or else ``x-ratelimit-reset``.

    An hour at most: the next run asks in any case.
    """
    said = answer.headers.get("retry-after", "").strip()
    if said.isdecimal():
        return min(float(said), RETRY_AFTER_MAX)
    reset = answer.headers.get("x-ratelimit-reset", "").strip()
    for text, read in ((said, parsedate_to_datetime), (reset, _read_reset)):
        try:
            wait = read(text).astimezone(UTC) - parse_time(answer.fetched_at)
        except (ValueError, TypeError, IndexError, OverflowError):
            # A header that says nothing that can be read is as good as none.
            continue
        return min(max(0.0, wait.total_seconds()), RETRY_AFTER_MAX)
    return None


def _read_reset(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S %z")


def excerpt(answer: Answer) -> str:
    """The beginning of a body, as it may stand in a message."""
    return repr(answer.body[: EXCERPT * 4].decode("utf-8", "replace")[:EXCERPT])


def _not_understood(answer: Answer, what: str) -> NoReturn:
    raise errors.NotUnderstood(
        f"CoinGecko's answer to {answer.request} is not what it should be: {what}. The body starts: {excerpt(answer)}",
        answer=answer,
    )


def full_hours(start: datetime, end: datetime) -> list[datetime]:
    """The full hours from ``start`` on, up to but without ``end``."""
    first = ceil_hour(start)
    return [first + HOUR * number for number in range(max(0, ceil((end - first) / HOUR)))]
