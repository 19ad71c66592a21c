"""The processed CSV of a coin, and its rows as S3 partitions have them too (contract, section 5)."""

import logging
import mmap
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, Select, and_, select

from coinwatch.files import append_lines, cut_torn_line, locked, replace_file
from coinwatch.record import write_csv
from coinwatch.times import format_time, parse_time
from coinwatch.warehouse import schema
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


def write_processed_csv(connection: Connection, path: Path, coin: str, since: datetime) -> None:
    """Update a coin's processed CSV from a time on; it has the same bytes as if it were written whole.

    New rows are appended. If an older row changed, the file is replaced, with the lines before that row as they are. A
    file that is missing or damaged is written whole.
    """
    with locked(path):
        torn = cut_torn_line(path)
        if torn:
            log.warning("%s ended in a torn line: %d bytes cut; its row is written again", path, len(torn))
        if path.exists() and path.stat().st_size > len(_HEADER):
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as lines:
                if _update(connection, path, lines, coin, since):
                    return
            log.warning("%s is damaged: it is written whole", path)
        rows = connection.execute(select_processed(coin=coin))
        replace_file(path, format_processed(rows).encode())


def _update(connection: Connection, path: Path, lines: mmap.mmap, coin: str, since: datetime) -> bool:
    """Write the rows from a time on; return False if the file is damaged: its lines are not the warehouse's rows."""
    end = _offset(lines, format_time(since).encode())
    last = lines[lines.rfind(b"\n", 0, end - 1) + 1 : end].partition(b",")[0]
    if lines[: len(_HEADER)] != _HEADER:
        return False
    try:
        last_time = parse_time(last.decode()) if end > len(_HEADER) else None
    except ValueError:
        return False
    start = _offset(lines, last) if last_time is not None else end
    rows = connection.execute(select_processed(coin=coin, since=last_time))
    content = format_processed(rows, header=False).encode()
    if not content.startswith(lines[start:end]):
        return False
    new = content[end - start :]
    if end < len(lines):
        replace_file(path, lines[:end] + new)
    else:
        append_lines(path, new)
    return True


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


def export_processed_csv(app: "App") -> dict[str, str]:
    """Update the processed CSV of each coin with pending work, and return the first time written by coin."""
    exported: dict[str, datetime] = {}
    with app.warehouse.begin() as connection:
        for currency, since in pending_work(connection, "export").items():
            for coin, moment in since.items():
                exported[coin] = min(moment, exported.get(coin, moment))
            clear_work(connection, "export", currency, since)
        for coin, moment in exported.items():
            write_processed_csv(connection, app.settings.processed_path(coin), coin, moment)
    return {coin: format_time(moment) for coin, moment in exported.items()}
