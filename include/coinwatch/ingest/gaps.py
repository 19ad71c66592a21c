"""Gaps: hours that a raw log does not have, what was tried, and when the next request for them is worth it."""

import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Connection, Row, or_, select, update

from coinwatch.coingecko.client import HISTORY_DAYS
from coinwatch.ingest.stored import stored_times
from coinwatch.times import HOUR, ceil_hour, hours_between
from coinwatch.warehouse import schema
from coinwatch.warehouse.engine import lock_table, upsert

if TYPE_CHECKING:
    from coinwatch.app import App

log = logging.getLogger(__name__)

LATE = timedelta(minutes=15)
"""From this age of the as-of time on, the price of now would be wrong for it."""

FIRST_BACKOFF = timedelta(hours=6)
"""Before hours without a price are requested again; twice as long after each further try."""

DOUBLINGS_MAX = 7
"""After this many doublings (32 days) the backoff grows no more."""

Span = tuple[datetime, datetime]
"""Full hours, without the second one."""

_g = schema.gaps.c


def find_gaps(app: "App", as_of: datetime) -> dict[str, int]:
    """Store the hours before the as-of time that the raw logs do not have, looking only at those not checked yet.

    Returns:
        How many ``coins`` and ``hours`` are due for a request.
    """
    currency, coins = app.settings.currency, app.settings.coins
    start, end = earliest_hour(app, as_of), ceil_hour(as_of)
    table = schema.checked_hours
    with app.warehouse.begin() as connection:
        # load_raw_prices deletes the row of a coin whose log has changed: not while it is read and written here.
        lock_table(connection, table)
        rows = connection.execute(select(table).where(table.c.currency == currency))
        before = {row.coin: (row.since, row.until) for row in rows}
        unchecked: dict[Span, list[str]] = defaultdict(list)
        checked = []
        for coin in coins:
            since, until = before.get(coin, (start, start))
            for span in ((start, since), (max(until, start), end)):
                if span[0] < span[1]:
                    unchecked[span].append(coin)
            checked.append({"coin": coin, "currency": currency, "since": min(start, since), "until": max(until, end)})
        check_hours(app, connection, unchecked)
        upsert(connection, table, checked)
        out_of_reach = (_g.state == "open", _g.currency == currency, _g.last_hour < start)
        reason = "COINWATCH_HISTORY_DAYS does not reach back to these hours any more"
        connection.execute(update(schema.gaps).where(*out_of_reach).values(state="no_data", reason=reason))
    return count_due(app, as_of)


def count_due(app: "App", as_of: datetime) -> dict[str, int]:
    """Return how many ``coins`` and ``hours`` before the as-of time are due for a request."""
    start, end = earliest_hour(app, as_of), ceil_hour(as_of)
    with app.warehouse.begin() as connection:
        due = due_gaps(connection, app.settings.currency, app.settings.coins, app.clock(), (start, end))
    found = {
        "coins": len({row.coin for row in due}),
        "hours": sum((row.last_hour - max(row.first_hour, start)) // HOUR + 1 for row in due),
    }
    log.info("%(hours)d hours of %(coins)d coins are due for a request", found)
    return found


def earliest_hour(app: "App", as_of: datetime) -> datetime:
    """Return the first hour of the history that the settings ask for and the plan includes."""
    days = timedelta(days=app.settings.history_days)
    if app.client.plan in HISTORY_DAYS:
        # An hour less: the limit moves on while the requests are sent.
        days = min(days, timedelta(days=HISTORY_DAYS[app.client.plan]) - HOUR)
    # A past run looks no further back than one of now: it fills gaps, and does not lengthen the history.
    return ceil_hour(max(as_of, app.clock() - LATE) - days)


def check_hours(app: "App", connection: Connection, spans: Mapping[Span, Collection[str]]) -> None:
    """Store as gaps the hours of spans that the raw logs of their coins do not have."""
    currency, now = app.settings.currency, app.clock()
    lock_table(connection, schema.gaps)
    unfilled: dict[str, list[Row[Any]]] = defaultdict(list)
    for row in connection.execute(select(schema.gaps).where(_g.currency == currency, _g.state != "filled")):
        unfilled[row.coin].append(row)
    found: list[dict[str, Any]] = []
    for (since, until), coins in spans.items():
        for coin, stored in stored_times(app, coins, since, until - HOUR, connection).items():
            known = stored | hours_of(unfilled[coin], since, until)
            found += [_gap(coin, currency, run, unfilled[coin], now) for run in missing_runs(known, since, until)]
    upsert(connection, schema.gaps, found)


def missing_runs(stored: Iterable[datetime], since: datetime, until: datetime) -> Iterator[Span]:
    """Return the runs of full hours between two that are not stored: first and last of each."""
    expected = since
    for hour in [*sorted(time for time in stored if since <= time < until and time == ceil_hour(time)), until]:
        if hour > expected:
            yield expected, hour - HOUR
        expected = hour + HOUR


def hours_of(rows: Iterable[Row[Any]], since: datetime, until: datetime) -> set[datetime]:
    """Return the hours of gaps that are in a span."""
    spans = ((max(row.first_hour, since), min(row.last_hour, until - HOUR)) for row in rows)
    return {hour for first, last in spans for hour in hours_between(first, last)}


def _gap(coin: str, currency: str, run: Span, unfilled: Sequence[Row[Any]], now: datetime) -> dict[str, Any]:
    """Return the row of a run of missing hours, which may continue a gap."""
    first, last = run
    for row in unfilled:
        is_new = row.state == "open" and not row.snapshot
        # A coin without any price must not cost a request every hour.
        is_waiting = row.retry_at is not None and row.retry_at > now
        if row.last_hour == first - HOUR and (is_new or is_waiting):
            return {**row._asdict(), "last_hour": last}
    return {
        "coin": coin,
        "currency": currency,
        "first_hour": first,
        "last_hour": last,
        "state": "open",
        "found_at": now,
        "tries": 0,
        "retry_at": None,
        "filled_at": None,
        "snapshot": "",
        "reason": "",
    }


def due_gaps(
    connection: Connection, currency: str, coins: Collection[str], now: datetime, span: Span
) -> list[Row[Any]]:
    """Return the gaps of coins that reach into a span and whose backoff is over, by coin and hour."""
    is_due = or_(_g.retry_at.is_(None), _g.retry_at <= now)
    query = select(schema.gaps).where(*_unfilled(currency, coins, span), is_due)
    return list(connection.execute(query.order_by(_g.coin, _g.first_hour)))


def end_backoff(connection: Connection, currency: str, coins: Collection[str], span: Span) -> None:
    """Make the gaps of coins that reach into a span due."""
    connection.execute(update(schema.gaps).where(*_unfilled(currency, coins, span)).values(retry_at=None))


def _unfilled(currency: str, coins: Collection[str], span: Span) -> list[ColumnElement[bool]]:
    since, until = span
    of_coins = [_g.currency == currency, _g.coin.in_(coins), _g.state != "filled"]
    return [*of_coins, _g.last_hour >= since, _g.first_hour < until]


def change_hours(
    connection: Connection,
    coin: str,
    currency: str,
    hours: AbstractSet[datetime],
    change: Callable[[Row[Any]], Mapping[str, Any]],
) -> None:
    """Change unfilled gaps in some hours, splitting a row where only a part of its hours is concerned.

    ``change`` returns the new values of a row by column.
    """
    if not hours:
        return
    lock_table(connection, schema.gaps)
    query = select(schema.gaps).where(*_unfilled(currency, [coin], (min(hours), max(hours) + HOUR)))
    pieces = []
    for row in connection.execute(query).all():
        for is_meant, run in groupby(hours_between(row.first_hour, row.last_hour), key=hours.__contains__):
            piece = list(run)
            new = change(row) if is_meant else {}
            pieces.append({**row._asdict(), "first_hour": piece[0], "last_hour": piece[-1], **new})
    # The first piece has the key of the row that it was a part of, and replaces it.
    upsert(connection, schema.gaps, pieces)


def refuse(state: str, reason: str, snapshot: str, now: datetime) -> Callable[[Row[Any]], Mapping[str, Any]]:
    """Return the change for hours that an answer does not have: no request before a backoff that doubles."""

    def change(row: Row[Any]) -> Mapping[str, Any]:
        # A retried task reads the same answer again.
        if row.snapshot == snapshot:
            return {}
        retry_at = now + FIRST_BACKOFF * 2 ** min(row.tries, DOUBLINGS_MAX)
        tries = row.tries + 1
        return {"state": state, "tries": tries, "retry_at": retry_at, "snapshot": snapshot, "reason": reason}

    return change


def answer(snapshot: str) -> Callable[[Row[Any]], Mapping[str, Any]]:
    """Return the change for hours that an answer has: they are open until its rows are in the raw log."""

    def change(row: Row[Any]) -> Mapping[str, Any]:
        tries = row.tries + (row.snapshot != snapshot)
        return {"state": "open", "tries": tries, "retry_at": None, "snapshot": snapshot, "reason": ""}

    return change


def fill(connection: Connection, snapshots: Collection[str], now: datetime) -> None:
    """Mark the hours of snapshots as filled, once their rows are in the raw log."""
    answered = (_g.state == "open", _g.snapshot.in_(snapshots))
    connection.execute(update(schema.gaps).where(*answered).values(state="filled", filled_at=now))
