"""The values of a backtest: from the warehouse, or from a CSV file."""

import csv
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path

from sqlalchemy import Engine, select

from coinwatch.errors import InvalidAction
from coinwatch.quarantine.screening import Value
from coinwatch.times import parse_time
from coinwatch.warehouse import schema


def stored_values(engine: Engine, coin: str, currency: str) -> list[Value]:
    """Return all raw prices of a coin; of a live and a history value at one time the live one."""
    raw = schema.raw_prices.c
    # "live" sorts after "history", and replaces it.
    query = select(raw.ts, raw.price).where(raw.coin == coin, raw.currency == currency).order_by(raw.source, raw.ts)
    with engine.begin() as connection:
        prices = {row.ts: row.price for row in connection.execute(query)}
    return [Value(ts, _number(price)) for ts, price in sorted(prices.items())]


def csv_values(path: Path, coin: str, currency: str) -> list[Value]:
    """Read values from a file with the columns timestamp and price, such as a raw log.

    If it has a column coin or currency, only matching lines count. Of two lines at one time a live one wins over one
    from history, and otherwise the later one.
    """
    prices: dict[tuple[datetime, bool], Decimal | None] = {}
    try:
        # Spreadsheets put a byte order mark before the header line.
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if not {"timestamp", "price"} <= set(reader.fieldnames or ()):
                found = ",".join(reader.fieldnames or ()) or "nothing"
                raise InvalidAction(f"{path} needs a header line with timestamp and price; it has {found}")
            for row in reader:
                if row.get("coin", coin) != coin or row.get("currency", currency) != currency:
                    continue
                ts, price = _read_line(row)
                prices[ts, row.get("source") != "history"] = price
    except OSError as error:
        raise InvalidAction(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidAction(f"{path} is not UTF-8 text; save it as UTF-8") from None
    except (ValueError, csv.Error) as error:
        raise InvalidAction(f"{path}, line {reader.line_num}: {error}") from None
    # A live one comes after one from history, and replaces it.
    return [Value(ts, price) for ts, price in {ts: prices[ts, live] for ts, live in sorted(prices)}.items()]


def _read_line(row: Mapping[str, str | None]) -> tuple[datetime, Decimal | None]:
    """Return time and price; an empty price is unknown."""
    timestamp, price = row["timestamp"], row["price"]
    if timestamp is None or price is None:
        raise ValueError("it has fewer fields than the header line")
    try:
        Decimal(price or "0")
    except InvalidOperation:
        raise ValueError(f"the price {price!r} is not a number; write for example 62000.5") from None
    return parse_time(timestamp), _number(price)


def _number(text: str) -> Decimal | None:
    """Return a price; None if it is not a positive number, which is quarantined."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() and number > 0 else None
