"""What the raw logs have already, by the warehouse's index: no step reads a whole log."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import Connection, select

from coinwatch.archive.raw_log import LoadedRows, stored_keys
from coinwatch.record import Key
from coinwatch.times import ceil_hour, format_time, hours_between, parse_time
from coinwatch.warehouse import schema
from coinwatch.warehouse.engine import optional_warehouse

if TYPE_CHECKING:
    from coinwatch.app import App

_p = schema.log_positions.c
_r = schema.raw_prices.c


def read_loaded(app: "App", coins: Collection[str], first: datetime, last: datetime) -> dict[str, LoadedRows]:
    """Return what the warehouse has of the raw logs of coins, with the keys of rows from a time to another.

    A log that was never loaded is not in it; without a warehouse none is, and the logs themselves are read.
    """
    loaded: dict[str, LoadedRows] = {}
    with optional_warehouse("the raw logs are read as a whole"), app.warehouse.begin() as connection:
        loaded |= _select_loaded(connection, app.settings.currency, coins, first, last)
    return loaded


def _select_loaded(
    connection: Connection, currency: str, coins: Collection[str], first: datetime, last: datetime
) -> dict[str, LoadedRows]:
    # Positions first: the rows before a position are among those that are read after it.
    positions = connection.execute(select(schema.log_positions).where(_p.log.startswith("raw:"))).all()
    keys: dict[str, set[Key]] = defaultdict(set)
    rows = select(_r.coin, _r.ts, _r.source).where(
        _r.coin.in_(coins), _r.currency == currency, _r.ts.between(first, last)
    )
    for row in connection.execute(rows):
        keys[row.coin].add((row.coin, currency, format_time(row.ts), row.source))
    wanted = set(coins)
    return {
        coin: LoadedRows(row.position, row.tail_length, row.tail_sha256, keys[coin])
        for row in positions
        if (coin := row.log.removeprefix("raw:")) in wanted
    }


def stored_times(
    app: "App", coins: Collection[str], first: datetime, last: datetime, connection: Connection | None = None
) -> dict[str, set[datetime]]:
    """Return the times from one to another, both included, that the raw log of each coin has a row for.

    Args:
        app: The app.
        coins: CoinGecko ids.
        first: The first time.
        last: The last time.
        connection: The caller's transaction; without it the warehouse is optional.
    """
    if connection is None:
        loaded = read_loaded(app, coins, first, last)
    else:
        loaded = _select_loaded(connection, app.settings.currency, coins, first, last)
    span = (format_time(first), format_time(last))
    full_hours = set(hours_between(ceil_hour(first), last))
    stored = {}
    for coin in coins:
        of_log = loaded.get(coin)
        stored[coin] = _times(of_log.keys if of_log else (), app.settings.currency)
        # In an ordinary hour the warehouse has them all, and no log is opened.
        if not stored[coin] >= full_hours:
            keys = stored_keys(app.settings.raw_path(coin), *span, of_log)
            stored[coin] = _times(keys, app.settings.currency)
    return stored


def _times(keys: Iterable[Key], currency: str) -> set[datetime]:
    return {parse_time(timestamp) for _, of_row, timestamp, _ in keys if of_row == currency}
