"""Where a backtest's values come from: the warehouse, or a CSV file."""

import csv
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path

from sqlalchemy import Engine, select

from coinwatch.errors import WrongInput
from coinwatch.quarantine.screening import Value
from coinwatch.times import parse_time
from coinwatch.warehouse import schema


def stored_values(engine: Engine, coin: str, currency: str) -> list[Value]:
    """All that the raw logs say of a coin, as the warehouse has it; of one time the live value."""
    raw = schema.raw_prices.c
    # In this order a live value comes after one from history, and replaces it.
    query = select(raw.ts, raw.price).where(raw.coin == coin, raw.currency == currency).order_by(raw.source, raw.ts)
    with engine.begin() as connection:
        prices = {row.ts: row.price for row in connection.execute(query)}
    return [Value(ts, _number(price)) for ts, price in sorted(prices.items())]


def csv_values(path: Path, coin: str, currency: str) -> list[Value]:
    """Values from a file with the columns timestamp and price, such as a raw log.

    If it has a column coin or currency, only the lines of that coin and currency count; of two lines of one time the
    later one, but one from history never before a live one.

    Raises:
        WrongInput: It cannot be read, or a line of it is not understood.
    """
    prices: dict[datetime, tuple[bool, Decimal | None]] = {}
    try:
        # Spreadsheets put a byte order mark before the header line.
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if not {"timestamp", "price"} <= set(reader.fieldnames or ()):
                found = ",".join(reader.fieldnames or ()) or "nothing"
                raise WrongInput(f"{path} needs a header line with timestamp and price; it has {found}")
            for row in reader:
                if row.get("coin", coin) != coin or row.get("currency", currency) != currency:
                    continue
                ts, price, is_live = _read_line(row)
                if is_live or not prices.get(ts, (False,))[0]:
                    prices[ts] = is_live, price
    except OSError as error:
        raise WrongInput(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise WrongInput(f"{path} is no UTF-8 text; save it as UTF-8") from None
    except (ValueError, csv.Error) as error:
        raise WrongInput(f"{path}, line {reader.line_num}: {error}") from None
    return [Value(ts, price) for ts, (_, price) in sorted(prices.items())]


def _read_line(row: Mapping[str, str | None]) -> tuple[datetime, Decimal | None, bool]:
    """Time, price and whether it is live; an empty price is unknown, and one that is no number at all a mistake."""
    timestamp, price = row["timestamp"], row["price"]
    if timestamp is None or price is None:
        raise ValueError("it has fewer fields than the header line")
    try:
        Decimal(price or "0")
    except InvalidOperation:
        raise ValueError(f"the price {price!r} is no number; write for example 62000.5") from None
    return parse_time(timestamp), _number(price), row.get("source") != "history"


def _number(text: str) -> Decimal | None:
    """A price; none if it is no positive number, which the rules hold back."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() and number > 0 else None
