"""A raw row: one price of one coin at one time, as the raw log and the archive write it."""

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from datetime import datetime
from operator import attrgetter
from typing import Literal

from coinwatch.times import parse_time

Source = Literal["live", "history"]

Key = tuple[str, str, str, str]
"""(coin, currency, timestamp, source): at most one row of a raw log has it."""


@dataclass(frozen=True, slots=True)
class RawPrice:
    """One line of a raw log (contract, section 5). All texts, exactly as they stand in the file; empty is unknown.

    Numbers keep the digits that the API wrote: a float would change them.

    Attributes:
        timestamp: The run's as-of time for a live poll, a full hour for history (ISO 8601 UTC, ``Z``).
        coin: CoinGecko id.
        currency: Quote currency.
        price: One coin in the quote currency.
        market_cap: In the quote currency.
        volume_24h: Traded in 24 hours, in the quote currency.
        change_24h_pct: The provider's own 24-hour change in percent; kept for audit only.
        last_updated_at: The provider's own time of the price.
        fetched_at: When the answer was received.
        source: ``live`` or ``history``.
        snapshot: Name of the archived answer that the row was taken from.
    """

    timestamp: str
    coin: str
    currency: str
    price: str
    market_cap: str
    volume_24h: str
    change_24h_pct: str
    last_updated_at: str
    fetched_at: str
    source: Source
    snapshot: str

    @property
    def key(self) -> Key:
        """Its key in the raw log."""
        return (self.coin, self.currency, self.timestamp, self.source)

    @property
    def moment(self) -> datetime:
        """The timestamp as an aware time."""
        return parse_time(self.timestamp)


RAW_COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(RawPrice))

_values = attrgetter(*RAW_COLUMNS)


def write_csv(columns: Iterable[str], rows: Iterable[Iterable[object]], *, header: bool = True) -> str:
    r"""Return rows as CSV text: comma, ``\n``, quoted only where needed, ``None`` as an empty field."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def format_raw_prices(rows: Iterable[RawPrice], *, header: bool = True) -> str:
    """Return raw prices in the raw log's format."""
    return write_csv(RAW_COLUMNS, map(_values, rows), header=header)


def parse_raw_prices(text: str) -> Iterator[RawPrice]:
    """Read lines of a raw log, without its header line.

    Raises:
        ValueError: A line does not have the raw log's columns.
    """
    for number, fields_ in enumerate(csv.reader(io.StringIO(text, newline="")), start=1):
        if len(fields_) != len(RAW_COLUMNS):
            raise ValueError(f"line {number} has {len(fields_)} fields instead of {len(RAW_COLUMNS)}: {fields_}")
        yield RawPrice(*fields_)  # type: ignore[arg-type]  # the file's `source` is one of the two
