"""Reading CoinGecko's answers: pure. Shapes by the public API specification (coingecko/coingecko-api-oas)."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from math import isfinite
from typing import Any, Literal, NoReturn, Self

from pydantic import BaseModel, InstanceOf, ValidationError

from coinwatch.archive.snapshots import Answer
from coinwatch.coingecko.response_errors import EXCERPT, Unavailable, UnexpectedAnswer, excerpt, judge
from coinwatch.record import RawPrice
from coinwatch.times import format_time, from_milliseconds, from_seconds, nearest_hour

NUMBER_LENGTH_MAX = 100
"""Characters of a number: five times as many as the longest seen. A longer one is refused as invalid JSON."""


class Number(Decimal):
    """A JSON number that keeps the digits it was written with."""

    text: str

    def __new__(cls, text: str) -> Self:
        """Read the literal; a ``ValueError`` if it has more digits than any price or time."""
        if len(text) > NUMBER_LENGTH_MAX:
            raise ValueError(f"a number of {len(text)} characters")
        try:
            number = super().__new__(cls, text)
        except InvalidOperation:
            raise ValueError(f"{text} is too large or too small to be read") from None
        number.text = text
        return number

    def is_whole(self, *, below: int) -> bool:
        """Whether it is a whole number from 1 on; the limit comes first, because 1e999999 takes minutes to convert."""
        return 0 < self < below and self == int(self)

    @property
    def is_price(self) -> bool:
        """Whether it is positive and finite as a float: 1e400 is a JSON number."""
        return 0 < float(self) < float("inf")


class _Quote(BaseModel):
    """One coin of ``/simple/price`` in one currency; every field may be null or absent."""

    price: InstanceOf[Number] | None = None
    market_cap: InstanceOf[Number] | None = None
    volume_24h: InstanceOf[Number] | None = None
    change_24h_pct: InstanceOf[Number] | None = None
    last_updated_at: InstanceOf[Number] | None = None


class _Chart(BaseModel):
    """The history endpoints: three lists of [UNIX milliseconds, value or null], not always of one length."""

    prices: list[tuple[InstanceOf[Number], InstanceOf[Number] | None]]
    market_caps: list[tuple[InstanceOf[Number], InstanceOf[Number] | None]] = []
    total_volumes: list[tuple[InstanceOf[Number], InstanceOf[Number] | None]] = []


@dataclass(frozen=True, slots=True)
class Reject:
    """A coin of an answer that has no usable price.

    Attributes:
        coin: CoinGecko id.
        kind: The id is unknown, the price is null, the value cannot be a price, or the shape is unexpected.
        reason: For operators.
        value: In place of a price; empty for an unknown id or a null price.
    """

    coin: str
    kind: Literal["unknown_id", "no_price", "bad_value", "unexpected"]
    reason: str
    value: str = ""


def read_quotes(
    answer: Answer, coins: Sequence[str], currency: str, as_of: datetime, snapshot: str
) -> tuple[list[RawPrice], list[Reject]]:
    """Return a row for each coin that has a price in an answer of ``/simple/price``, and a reject for each other one.

    Raises:
        CoinGeckoError: The answer is an error, or not what the documentation promises.
    """
    body = read_json(answer)
    rows: list[RawPrice] = []
    rejects: list[Reject] = []
    for coin in coins:
        quote = _read_quote(body, coin, currency)
        if isinstance(quote, Reject):
            rejects.append(quote)
            continue
        seconds = quote.last_updated_at
        row = RawPrice(
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
        rows.append(row)
    unexpected = [reject.reason for reject in rejects if reject.kind == "unexpected"]
    if not rows and unexpected:
        _raise_unexpected(answer, "; ".join(unexpected[:5]))
    return rows, rejects


def _read_quote(body: Mapping[str, Any], coin: str, currency: str) -> _Quote | Reject:
    if coin not in body:
        return Reject(coin, "unknown_id", "unknown id: correct or remove it in COINWATCH_COINS")
    fields = body[coin]
    if not isinstance(fields, dict):
        return _unexpected(coin, f"{coin} is {type(fields).__name__} instead of an object", repr(fields))
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
        name = names[str(error.errors()[0]["loc"][0])]
        value = repr(fields[name])
        return _unexpected(coin, f"{coin}.{name} is {value[:EXCERPT]}, not a number", value)
    seconds = quote.last_updated_at
    if seconds is not None and not seconds.is_whole(below=2**33):
        reason = f"{coin}.last_updated_at is {seconds.text}, not a UNIX time in seconds"
        return _unexpected(coin, reason, seconds.text)
    if quote.price is None:
        return Reject(coin, "no_price", f"no {currency} price now")
    price = quote.price
    return quote if price.is_price else Reject(coin, "bad_value", f"{price.text} cannot be a price", price.text)


def _unexpected(coin: str, reason: str, value: str) -> Reject:
    return Reject(coin, "unexpected", reason, value[:EXCERPT])


def read_history(
    answer: Answer, coin: str, currency: str, hours: Collection[datetime], snapshot: str, *, ends_now: bool
) -> list[RawPrice]:
    """Return a row for each full hour that has a price in an answer of ``/coins/{id}/market_chart/range``.

    An hour takes the point nearest to it, at most 30 minutes away, the earlier one on a tie. If the window
    ``ends_now``, its last point is the price of now, not of an hour.

    Raises:
        CoinGeckoError: The answer is an error, or not what the documentation promises.
    """
    try:
        chart = _Chart.model_validate(read_json(answer))
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        _raise_unexpected(answer, f"{where} of {coin}'s history: {problem['msg']}")
    market_caps = {moment: value for moment, value in chart.market_caps if value is not None}
    volumes = {moment: value for moment, value in chart.total_volumes if value is not None}
    points = sorted((moment, price) for moment, price in chart.prices if price is not None)
    if ends_now:
        points = points[:-1]
    nearest: dict[datetime, tuple[timedelta, datetime, Number, Number]] = {}
    for milliseconds, price in points:
        if not milliseconds.is_whole(below=2**43):
            _raise_unexpected(answer, f"{milliseconds.text} in {coin}'s history is not a UNIX time in milliseconds")
        moment = from_milliseconds(int(milliseconds))
        hour = nearest_hour(moment)
        if hour in hours and price.is_price:
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


def _text(number: Number | None) -> str:
    """Return a number as it was written; empty (unknown) if it is none or infinite as a float."""
    return "" if number is None or not isfinite(float(number)) else number.text


def read_json(answer: Answer) -> dict[str, Any]:
    """Read a sound answer's JSON object, its numbers as ``Number``.

    Raises:
        CoinGeckoError: It is not JSON, has an error in it, or another status than 200.
    """
    try:
        body = json.loads(answer.body, parse_float=Number, parse_int=Number, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        message = f"{answer.request}: incomplete or invalid JSON {excerpt(answer)}. Retry later"
        raise judge(answer, None) or Unavailable(message, answer=answer) from None
    error = judge(answer, body)
    if error is not None:
        raise error
    if not isinstance(body, dict):
        _raise_unexpected(answer, f"the answer is a {type(body).__name__} instead of an object")
    return body


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _raise_unexpected(answer: Answer, what: str) -> NoReturn:
    message = f"{answer.request}: unexpected answer: {what}. The body starts: {excerpt(answer)}"
    raise UnexpectedAnswer(message, answer=answer)
