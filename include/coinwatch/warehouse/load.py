"""Prices in the warehouse: what the raw logs say, and what has to be done again because of it."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import groupby
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, bindparam, delete, or_, select

from coinwatch.archive.raw_log import RawLogError, strip_header
from coinwatch.ingest.stored import forget_lost_rows
from coinwatch.quarantine.held import screen_history, screen_live
from coinwatch.record import RawPrice, parse_raw_prices
from coinwatch.rules import RuleBook
from coinwatch.times import floor_hour, format_time, parse_time
from coinwatch.warehouse import schema
from coinwatch.warehouse.engine import upsert
from coinwatch.warehouse.log_reader import read_new_lines

if TYPE_CHECKING:
    from coinwatch.app import App

log = logging.getLogger(__name__)


def store_raw_prices(
    connection: Connection, rows: Sequence[RawPrice], rules: RuleBook, now: datetime
) -> list[RawPrice]:
    """Store lines of raw logs, and mark what has to be done because of them; all in the caller's transaction.

    What can be no price is held back in quarantine. Lines that are there already change nothing, so a log may be read
    again from its beginning.

    Args:
        connection: The transaction.
        rows: Lines of raw logs.
        rules: What is held back.
        now: The present.

    Returns:
        The lines that were new, or other than before.
    """
    changed: list[RawPrice] = []
    for (coin, _), group in groupby(sorted(rows, key=_series), key=_series):
        other = _other_than_stored(connection, list(group))
        upsert(connection, schema.raw_prices, [_raw_values(row) for row in other])
        mark_uploads(connection, "raw", (row.moment for row in other))
        rule = rules.for_coin(coin).bad_value
        # History first: it tells a live price what came before it.
        accept_prices(
            connection, screen_history(connection, [row for row in other if row.source == "history"], rule, now)
        )
        accept_prices(connection, screen_live(connection, [row for row in other if row.source == "live"], rule, now))
        changed += other
    return changed


def accept_prices(connection: Connection, rows: Sequence[RawPrice]) -> None:
    """Store lines of a raw log as prices, a live one over one from history, and mark what has to be done again."""
    # One statement must not meet a key twice.
    for source in ("history", "live"):
        upsert(
            connection,
            schema.prices,
            [_price_values(row) for row in rows if row.source == source],
            update_where=lambda new: or_(schema.prices.c.source != "live", new.source == "live"),
        )
    _mark_work(connection, rows)


def _series(row: RawPrice) -> tuple[str, str]:
    return (row.coin, row.currency)


def _other_than_stored(connection: Connection, rows: list[RawPrice]) -> list[RawPrice]:
    table = schema.raw_prices
    moments = [row.moment for row in rows]
    query = select(table).where(
        table.c.coin == rows[0].coin,
        table.c.currency == rows[0].currency,
        table.c.ts.between(min(moments), max(moments)),
    )
    stored = {
        RawPrice(timestamp=format_time(row.pop("ts")), **row) for row in map(dict, connection.execute(query).mappings())
    }
    # Of two lines with one key the later one counts; the raw log itself never has two.
    newest = {row.key: row for row in rows}
    return [row for row in newest.values() if row not in stored]


def _raw_values(row: RawPrice) -> dict[str, Any]:
    values = {column.name: getattr(row, column.name) for column in schema.raw_prices.c if column.name != "ts"}
    return values | {"ts": row.moment}


def _price_values(row: RawPrice) -> dict[str, Any]:
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


def _mark_work(connection: Connection, changed: Sequence[RawPrice]) -> None:
    # Hours filled in later update statistics, and never raise a market alert.
    for step, sources in (("statistics", ("live", "history")), ("detection", ("live",))):
        for (coin, currency), group in groupby(sorted(changed, key=_series), key=_series):
            moments = [row.moment for row in group if row.source in sources]
            if moments:
                mark_work(connection, step, currency, {coin: min(moments)})


def mark_uploads(connection: Connection, layer: str, moments: Iterable[datetime]) -> None:
    """Mark the S3 partitions of some times as perhaps changed.

    Args:
        connection: The transaction that changes them.
        layer: ``raw`` or ``processed``.
        moments: Times of rows.
    """
    hours = {floor_hour(moment) for moment in moments}
    upsert(connection, schema.pending_uploads, [{"layer": layer, "hour": hour} for hour in sorted(hours)])


def mark_work(connection: Connection, step: str, currency: str, since: Mapping[str, datetime]) -> None:
    """Leave work for a step, by coin: from this time on, or from the earlier one that is left already."""
    upsert(
        connection,
        schema.pending_work,
        [{"step": step, "coin": coin, "currency": currency, "since": moment} for coin, moment in since.items()],
        update_where=lambda new: new.since < schema.pending_work.c.since,
    )


def pending_work(connection: Connection, step: str) -> dict[str, dict[str, datetime]]:
    """What is left for a step to do: currency → coin → from when on."""
    table = schema.pending_work
    query = select(table).where(table.c.step == step).order_by(table.c.currency, table.c.coin)
    work: dict[str, dict[str, datetime]] = defaultdict(dict)
    for row in connection.execute(query):
        work[row.currency][row.coin] = row.since
    return work


def clear_work(connection: Connection, step: str, currency: str, done: Mapping[str, datetime]) -> None:
    """Take away work that was done in the same transaction, unless it reaches further back by now."""
    table = schema.pending_work
    statement = delete(table).where(
        table.c.step == step,
        table.c.currency == currency,
        table.c.coin == bindparam("done_coin"),
        table.c.since == bindparam("done_since"),
    )
    if done:
        connection.execute(statement, [{"done_coin": coin, "done_since": since} for coin, since in done.items()])


def load_raw_prices(app: "App") -> dict[str, int]:
    """Load new lines of the raw logs into the warehouse.

    Returns:
        New rows by coin.

    Raises:
        RawLogError: A raw log has unexpected lines.
    """
    return {coin: _load(app, coin) for coin in app.settings.coins}


def _load(app: "App", coin: str) -> int:
    path = app.settings.raw_path(coin)
    with app.warehouse.begin() as connection:
        new = read_new_lines(connection, f"raw:{coin}", path)
        if new.restarted:
            log.warning("%s; it is read again from the beginning, which doubles nothing", new.restarted)
        lines = strip_header(path, new.lines) if new.start == 0 else new.lines
        try:
            rows = list(parse_raw_prices(lines.decode()))
        except ValueError as error:
            raise RawLogError(
                f"{path} has unexpected lines after byte {new.start}: {error}. Remove them; none of them was stored"
            ) from None
        stored = store_raw_prices(connection, rows, app.rules, app.clock())
        if new.restarted:
            forget_lost_rows(connection, coin, path)
        new.commit(connection)
    log.info("%s: %d rows read from byte %d on, %d of them new", path, len(rows), new.start, len(stored))
    return len(stored)
