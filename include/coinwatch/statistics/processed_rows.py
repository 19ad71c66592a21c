"""The rows of the processed layer, as the processed CSV and the S3 partitions have them (contract, section 5)."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, and_, select

from coinwatch.record import write_csv
from coinwatch.times import format_time
from coinwatch.warehouse import schema

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


def select_processed(
    *, coin: str | None = None, since: datetime | None = None, until: datetime | None = None
) -> Select[Any]:
    """Select processed rows, by time, coin and currency; each with its price as the API wrote it.

    Args:
        coin: Only this coin's.
        since: Only from this time on.
        until: Only before this time.
    """
    raw, prices, statistics = schema.raw_prices.c, schema.prices.c, schema.price_statistics.c
    same_price = and_(
        prices.coin == statistics.coin, prices.currency == statistics.currency, prices.ts == statistics.ts
    )
    # Of a live and a history row of one time it is the one that stands in prices.
    same_row = and_(
        raw.coin == prices.coin, raw.currency == prices.currency, raw.ts == prices.ts, raw.source == prices.source
    )
    query = (
        select(
            statistics.ts,
            statistics.coin,
            statistics.currency,
            raw.price,
            *(statistics[name] for name in STATISTICS),
        )
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
    """Write rows of ``select_processed`` as CSV; an unknown is an empty field, a float its shortest exact form."""
    return write_csv(PROCESSED_COLUMNS, ((format_time(row[0]), *row[1:]) for row in rows), header=header)
