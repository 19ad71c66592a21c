"""Where a backtest's values come from: the warehouse, or a CSV file."""

import csv
from datetime import datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path

from sqlalchemy import Engine, select

from coinwatch.analysis.screening import Value
from coinwatch.local.errors import WrongInput
from coinwatch.storage import schema
from coinwatch.times import parse_time


def stored_values(engine: Engine, coin: str, currency: str) -> list[Value]:
    """All that the raw logs say of a coin, as the warehouse has it; of one time the live value."""
    raw = schema.raw_prices.c
    # In this order a live value comes after one from history, and replaces it.
    query = select(raw.ts, raw.price).where(raw.coin == coin, raw.currency == currency).order_by(raw.source, raw.ts)
    with engine.begin() as connection:
        prices = {row.ts: row.price for row in connection.execute(query)}
    return [Value(ts, _number(price)) for ts, price in sorted(prices.items())]


def csv_values(path: Path, coin: str) -> list[Value]:
    """Values from a file with the columns timestamp and price; of several coins only one, if it has a column coin.

    Raises:
        WrongInput: It cannot be read, or a line of it is not understood.
    """
    prices: dict[datetime, Decimal | None] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if not {"timestamp", "price"} <= set(reader.fieldnames or ()):
                found = ",".join(reader.fieldnames or ()) or "nothing"
                raise WrongInput(f"{path} needs a header line with timestamp and price; it has {found}")
            for row in reader:
                if row.get("coin") in (None, coin):
                    prices[parse_time(row["timestamp"])] = _number(row["price"])
    except OSError as error:
        raise WrongInput(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError) as error:
        raise WrongInput(f"{path}, line {reader.line_num}: {error}") from None
    return [Value(ts, price) for ts, price in sorted(prices.items())]


def _number(text: str | None) -> Decimal | None:
    """A price; none if it is no positive number, which the rules hold back."""
    try:
        number = Decimal(text or "")
    except InvalidOperation:
        return None
    return number if number.is_finite() and number > 0 else None
