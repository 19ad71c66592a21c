"""The processed CSV of a coin, and its rows as S3 partitions have them too (contract, section 5)."""

import logging
import mmap
import os
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, Select, and_, func, select

from coinwatch.files import append_lines, open_log, replace_file, sync_files
from coinwatch.record import write_csv
from coinwatch.times import format_time, parse_time
from coinwatch.warehouse import schema
from coinwatch.warehouse.engine import begin_bulk
from coinwatch.warehouse.work import clear_work, pending_work

if TYPE_CHECKING:
    from coinwatch.app import App

log = logging.getLogger(__name__)

STATISTICS = (
    "points_24h",
    "rolling_mean_24h",
    "rolling_std_24h",
    "zscore_24h",
    "change_1h_pct",
    "change_24h_pct",
    "sigma_1h_pct",
    "sigma_samples",
)

PROCESSED_COLUMNS = ("timestamp", "coin", "currency", "price", *STATISTICS)

_HEADER = write_csv(PROCESSED_COLUMNS, []).encode()

NEW = timedelta(days=1)
"""Work that starts so close to the newest row is read for all coins with one query."""

CHUNK_ROWS = 10_000
"""Rows of a file that is rewritten are read so many at a time."""


def select_processed(
    *, coin: str | None = None, since: datetime | None = None, until: datetime | None = None
) -> Select[Any]:
    """Return a query of processed rows by time, coin and currency, each with its price as the API wrote it."""
    raw, prices, statistics = schema.raw_prices.c, schema.prices.c, schema.price_statistics.c
    same_price = and_(
        prices.coin == statistics.coin, prices.currency == statistics.currency, prices.ts == statistics.ts
    )
    # Of a live and a history row of one time, prices has the one that counts.
    same_row = and_(
        raw.coin == prices.coin, raw.currency == prices.currency, raw.ts == prices.ts, raw.source == prices.source
    )
    query = (
        select(statistics.ts, statistics.coin, statistics.currency, raw.price)
        .add_columns(*(statistics[name] for name in STATISTICS))
        .select_from(schema.price_statistics.join(schema.prices, same_price).join(schema.raw_prices, same_row))
        .order_by(statistics.ts, statistics.coin, statistics.currency)
    )
    if coin is not None:
        query = query.where(statistics.coin == coin)
    if since is not None:
        query = query.where(statistics.ts >= since)
    if until is not None:
        query = query.where(statistics.ts < until)
    return query


def format_processed(rows: Iterable[Row[Any]], *, header: bool = True) -> str:
    """Write rows of ``select_processed`` as CSV; unknown is an empty field, a float its shortest exact form."""
    return write_csv(PROCESSED_COLUMNS, ((format_time(row[0]), *row[1:]) for row in rows), header=header)


def export_processed_csv(app: "App") -> int:
    """Bring the processed CSV of each coin with pending work up to date; return how many were written.

    Each has the same bytes as if it were written whole: new rows are appended; if an older row changed, the lines from
    that row on are replaced; a file that is missing or damaged is written whole.
    """
    since: dict[str, datetime] = {}
    with begin_bulk(app.warehouse) as connection:
        work = pending_work(connection, "export")
        for of_currency in work.values():
            for coin, moment in of_currency.items():
                since[coin] = min(moment, since.get(coin, moment))
        rewritten = set(since)
        newest = connection.execute(select(func.max(schema.price_statistics.c.ts))).scalar()
        if newest is not None:
            new_rows = connection.execute(_select_new(newest - NEW))
            for coin, rows in groupby(new_rows, key=lambda row: str(row.coin)):
                if _append(app.settings.processed_path(coin), list(rows), since[coin]):
                    rewritten.remove(coin)
        for coin in sorted(rewritten):
            _rewrite(connection, app.settings.processed_path(coin), coin, since[coin])
        sync_files([app.settings.processed_path(coin) for coin in since])
        for currency, done in work.items():
            clear_work(connection, "export", currency, done)
    log.info("%d processed CSV files are up to date, %d of them rewritten", len(since), len(rewritten))
    return len(since)


def _select_new(since: datetime) -> Select[Any]:
    """Return a query of the rows of pending work from a time on, by coin, each coin's with the row before them."""
    work, rows, earlier = schema.pending_work.c, schema.price_statistics.c, schema.price_statistics.alias().c
    before = select(func.max(earlier.ts)).where(
        earlier.coin == work.coin, earlier.currency == work.currency, earlier.ts < work.since
    )
    first = func.coalesce(before.scalar_subquery(), work.since)
    query = select_processed().where(rows.coin == work.coin, rows.currency == work.currency, rows.ts >= first)
    query = query.where(work.step == "export", work.since >= since)
    return query.order_by(None).order_by(rows.coin, rows.ts, rows.currency)


def _append(path: Path, rows: Sequence[Row[Any]], since: datetime) -> bool:
    """Append the rows from a time on, if the file ends in the rows before them; return whether it does."""
    number = sum(row.ts < since for row in rows)
    end = format_processed(rows[:number], header=False).encode()
    if not end or not path.exists():
        return False
    with open_log(path) as file:
        if os.pread(file.fileno(), len(_HEADER), 0) != _HEADER:
            return False
        # Twice as much, because somebody may have copied the last line.
        file.seek(max(0, file.seek(0, os.SEEK_END) - 2 * len(end)))
        tail = file.read()
        if not tail.endswith(end) or tail == 2 * end:
            return False
        append_lines(file, format_processed(rows[number:], header=False).encode(), sync=False)
    return True


def _rewrite(connection: Connection, path: Path, coin: str, since: datetime) -> None:
    """Write a coin's processed CSV from the row before a time on; the lines before that stay as they are."""
    kept, last = _kept(path, format_time(since).encode()) if path.exists() else (b"", None)
    result = connection.execute(select_processed(coin=coin, since=last))
    chunks = (format_processed(rows, header=False).encode() for rows in result.partitions(CHUNK_ROWS))
    replace_file(path, chain([kept or _HEADER], chunks))


def _kept(path: Path, since: bytes) -> tuple[bytes, datetime | None]:
    """Return the lines before the last time that is before another, and that time; nothing if the file is damaged."""
    with open_log(path) as file:
        if file.seek(0, os.SEEK_END) <= len(_HEADER):
            return b"", None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as lines:
            end = _offset(lines, since)
            last = lines[lines.rfind(b"\n", 0, end - 1) + 1 : end].partition(b",")[0]
            try:
                if lines[: len(_HEADER)] == _HEADER:
                    return lines[: _offset(lines, last)], parse_time(last.decode())
            except ValueError:
                pass
    log.warning("%s is damaged: it is written whole", path)
    return b"", None


def _offset(lines: mmap.mmap, timestamp: bytes) -> int:
    """Return where the first line that is not before a time starts, by binary search."""
    low, high = len(_HEADER), len(lines)
    while low < high:
        middle = lines.rfind(b"\n", low - 1, (low + high) // 2) + 1
        if lines[middle : middle + len(timestamp)] < timestamp:
            low = lines.find(b"\n", middle) + 1
        else:
            high = middle
    return low
