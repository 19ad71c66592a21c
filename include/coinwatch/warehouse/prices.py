"""Accepted prices: one for each coin, currency and time, and the work that follows from them."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, or_

from coinwatch.record import RawPrice
from coinwatch.times import parse_time
from coinwatch.warehouse import schema
from coinwatch.warehouse.engine import upsert
from coinwatch.warehouse.work import mark_work


def accept_prices(connection: Connection, rows: Sequence[RawPrice]) -> None:
    """Store raw prices as prices, and mark the work that follows; a live price is never replaced by history."""
    # Separately: one statement must not contain a key twice.
    for source in ("history", "live"):
        upsert(
            connection,
            schema.prices,
            [_values(row) for row in rows if row.source == source],
            update_where=lambda new: or_(schema.prices.c.source != "live", new.source == "live"),
        )
    since: dict[str, dict[str, datetime]] = defaultdict(dict)
    for row in rows:
        coins, moment = since[row.currency], row.moment
        coins[row.coin] = min(moment, coins.get(row.coin, moment))
    for currency, coins in since.items():
        mark_work(connection, "statistics", currency, coins)


def _values(row: RawPrice) -> dict[str, Any]:
    return {
        "coin": row.coin,
        "currency": row.currency,
        "ts": row.moment,
        "price": Decimal(row.price),
        "market_cap": Decimal(row.market_cap) if row.market_cap else None,
        "volume_24h": Decimal(row.volume_24h) if row.volume_24h else None,
        "source": row.source,
        "last_updated_at": parse_time(row.last_updated_at) if row.last_updated_at else None,
        "fetched_at": parse_time(row.fetched_at) if row.fetched_at else None,
        "snapshot": row.snapshot,
    }
