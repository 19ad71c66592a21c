"""What the raw logs have already, by the warehouse's index: no step reads a whole log."""

import logging
from collections import defaultdict
from collections.abc import Collection
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from coinwatch.archive.raw_log import LoadedRows, stored_keys
from coinwatch.record import Key
from coinwatch.times import format_time, parse_time
from coinwatch.warehouse import schema

if TYPE_CHECKING:
    from coinwatch.app import App

log = logging.getLogger(__name__)

_p = schema.log_positions.c
_r = schema.raw_prices.c


def read_loaded(app: "App", coins: Collection[str], first: datetime, last: datetime) -> dict[str, LoadedRows]:
    """Return what the warehouse has of the raw logs of coins, with the keys of rows from a time to another.

    A log that was never loaded is not in it; without a warehouse none is, and the logs themselves are read.
    """
    keys: dict[str, set[Key]] = defaultdict(set)
    rows = select(_r.coin, _r.currency, _r.ts, _r.source).where(
        _r.coin.in_(coins), _r.currency == app.settings.currency, _r.ts.between(first, last)
    )
    try:
        with app.warehouse.begin() as connection:
            # In one transaction with the rows: what stands before the position is among them.
            positions = connection.execute(select(schema.log_positions).where(_p.log.startswith("raw:"))).all()
            for row in connection.execute(rows):
                keys[row.coin].add((row.coin, row.currency, format_time(row.ts), row.source))
    except OperationalError as error:
        log.error("warehouse unavailable (%s): the raw logs are read as a whole", error.orig)
        return {}
    wanted = set(coins)
    return {
        coin: LoadedRows(row.position, row.tail_length, row.tail_sha256, keys[coin])
        for row in positions
        if (coin := row.log.removeprefix("raw:")) in wanted
    }


def stored_times(app: "App", coins: Collection[str], first: datetime, last: datetime) -> dict[str, set[datetime]]:
    """Return the times from one to another, both included, that the raw log of each coin has a row for."""
    loaded = read_loaded(app, coins, first, last)
    span = (format_time(first), format_time(last))
    return {
        coin: {
            parse_time(timestamp)
            for _, currency, timestamp, _ in stored_keys(app.settings.raw_path(coin), *span, loaded.get(coin))
            if currency == app.settings.currency
        }
        for coin in coins
    }
