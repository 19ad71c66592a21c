"""What is wrong with a coin's live price, from when to when: the memory that tells news from what is known."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, select, update

from coinwatch.coingecko.answers import Condition
from coinwatch.times import parse_time
from coinwatch.warehouse import schema
from coinwatch.warehouse.engine import lock_table, upsert

_c = schema.feed_conditions.c

RECENT = timedelta(days=1)
"""A pull from before that tells nothing of a feed that stands still now."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What a pull has changed.

    Attributes:
        begun: Conditions that the pull before did not have.
        ended: Coin and name of those that are over.
    """

    begun: list[Condition]
    ended: list[tuple[str, str]]


def store_conditions(
    connection: Connection,
    coins: Collection[str],
    currency: str,
    as_of: datetime,
    conditions: Sequence[Condition],
    snapshot: str,
) -> Changes:
    """Store what a live pull says of the feed; the same pull again changes nothing, nor does one that is older.

    Args:
        connection: A transaction.
        coins: The coins that were asked for.
        currency: Quote currency.
        as_of: Time of the pull.
        conditions: All that was wrong; at most one of a name for each coin.
        snapshot: Name of the archived answer.
    """
    lock_table(connection, schema.feed_conditions)
    query = select(schema.feed_conditions).where(_c.currency == currency, _c.ended_at.is_(None))
    open_before = {(row.coin, row.condition): row for row in connection.execute(query) if row.coin in coins}
    seen = {(condition.coin, condition.name): condition for condition in conditions}
    begun, rows = [], []
    for key, condition in seen.items():
        before = open_before.get(key)
        if before is not None and as_of <= before.last_seen:
            continue
        if before is None:
            begun.append(condition)
        rows.append(
            {
                "coin": condition.coin,
                "currency": currency,
                "condition": condition.name,
                "since": before.since if before else as_of,
                "last_seen": as_of,
                "pulls": before.pulls + 1 if before else 1,
                "ended_at": None,
                "reason": condition.reason,
                "snapshot": snapshot,
            }
        )
    upsert(connection, schema.feed_conditions, rows)
    over = [key for key, row in open_before.items() if key not in seen and as_of > row.last_seen]
    for coin, name in over:
        where = (_c.coin == coin, _c.currency == currency, _c.condition == name, _c.ended_at.is_(None))
        connection.execute(update(schema.feed_conditions).where(*where).values(ended_at=as_of))
    return Changes(begun, over)


def last_updates(
    connection: Connection, coins: Collection[str], currency: str, before: datetime
) -> dict[str, tuple[datetime, datetime]]:
    """The newest live pull of each coin in the day before a time: coin → (as-of time, last_updated_at).

    A coin whose pull did not tell a ``last_updated_at`` is not there.
    """
    raw = schema.raw_prices.c
    of_feed = (raw.currency == currency, raw.source == "live", raw.ts < before, raw.ts >= before - RECENT)
    newest = select(raw.coin, func.max(raw.ts).label("ts")).where(*of_feed).group_by(raw.coin).subquery()
    query = select(raw.coin, raw.ts, raw.last_updated_at).join(
        newest, (newest.c.coin == raw.coin) & (newest.c.ts == raw.ts)
    )
    return {
        row.coin: (row.ts, parse_time(row.last_updated_at))
        for row in connection.execute(query.where(*of_feed))
        if row.coin in coins and row.last_updated_at
    }
