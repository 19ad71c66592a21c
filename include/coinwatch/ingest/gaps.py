"""Gaps: hours that a raw log does not have, what was tried, and when the next request for them is worth it."""

import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, or_, select, update

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
    start, end = earliest_hour(app, as_of), ceil_hour(as_of)
    with app.warehouse.begin() as connection:
        checked = _read_checked(connection, app.settings.currency)
    spans = {coin: _unchecked(checked.get(coin), start, end) for coin in app.settings.coins}
    check_hours(app, spans, checked)
    with app.warehouse.begin() as connection:
        out_of_reach = (_g.state == "open", _g.currency == app.settings.currency, _g.last_hour < start)
        reason = "COINWATCH_HISTORY_DAYS does not reach back to these hours any more"
        connection.execute(update(schema.gaps).where(*out_of_reach).values(state="no_data", reason=reason))
        due = due_gaps(connection, app.settings.currency, app.settings.coins, app.clock(), (start, end))
    hours = sum((row.last_hour - max(row.first_hour, start)) // HOUR + 1 for row in due)
    coins = len({row.coin for row in due})
    log.info("%d hours of %d coins are due for a request", hours, coins)
    return {"coins": coins, "hours": hours}


def earliest_hour(app: "App", as_of: datetime) -> datetime:
    """Return the first hour of the history that the settings ask for and the plan includes."""
    days = timedelta(days=app.settings.history_days)
    if app.client.plan in HISTORY_DAYS:
        # An hour less: the limit moves on while the requests are sent.
        days = min(days, timedelta(days=HISTORY_DAYS[app.client.plan]) - HOUR)
    # A past run looks no further back than one of now: it fills gaps, and does not lengthen the history.
    return ceil_hour(max(as_of, app.clock() - LATE) - days)


def check_hours(app: "App", spans: Mapping[str, Sequence[Span]], checked: Mapping[str, Span] | None = None) -> None:
    """Store as gaps the hours of some spans that the raw logs do not have.

    Args:
        app: The app.
        spans: What to check, by coin.
        checked: What was checked before; where it has changed meanwhile, the coin is left to the next run. Without it
            the spans are checked once more.
    """
    currency, now = app.settings.currency, app.clock()
    stored = _stored(app, spans)
    with app.warehouse.begin() as connection:
        lock_table(connection, schema.gaps)
        before = _read_checked(connection, currency)
        unfilled: dict[str, list[Row[Any]]] = defaultdict(list)
        for row in connection.execute(select(schema.gaps).where(_g.currency == currency, _g.state != "filled")):
            unfilled[row.coin].append(row)
        gaps: list[dict[str, Any]] = []
        seen: list[dict[str, Any]] = []
        for coin, coin_spans in spans.items():
            if checked is not None and before.get(coin) != checked.get(coin):
                continue
            for since, until in coin_spans:
                noted = hours_of(unfilled[coin], since, until)
                runs = missing_runs(stored[coin] | noted, since, until)
                gaps += [_gap(coin, currency, run, unfilled[coin], now) for run in runs]
            if checked is not None and coin_spans:
                known = [*coin_spans, *([before[coin]] if coin in before else [])]
                since, until = min(span[0] for span in known), max(span[1] for span in known)
                seen.append({"coin": coin, "currency": currency, "since": since, "until": until})
        upsert(connection, schema.gaps, gaps)
        upsert(connection, schema.checked_hours, seen)


def _stored(app: "App", spans: Mapping[str, Sequence[Span]]) -> dict[str, set[datetime]]:
    """Return the stored times of each coin in its spans; coins with the same span are read together."""
    by_span: dict[Span, list[str]] = defaultdict(list)
    for coin, coin_spans in spans.items():
        for span in coin_spans:
            by_span[span].append(coin)
    stored: dict[str, set[datetime]] = defaultdict(set)
    for (since, until), coins in by_span.items():
        for coin, times in stored_times(app, coins, since, until - HOUR).items():
            stored[coin] |= times
    return stored


def _read_checked(connection: Connection, currency: str) -> dict[str, Span]:
    table = schema.checked_hours
    rows = connection.execute(select(table).where(table.c.currency == currency))
    return {row.coin: (row.since, row.until) for row in rows}


def _unchecked(checked: Span | None, start: datetime, end: datetime) -> list[Span]:
    """Return the spans of hours from ``start`` to ``end`` that were not checked yet."""
    if checked is None:
        return [(start, end)] if start < end else []
    since, until = checked
    return [span for span in ((start, since), (max(until, start), end)) if span[0] < span[1]]


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
    since, until = span
    due = select(schema.gaps).where(
        _g.currency == currency,
        _g.state != "filled",
        or_(_g.retry_at.is_(None), _g.retry_at <= now),
        _g.last_hour >= since,
        _g.first_hour < until,
    )
    rows = connection.execute(due.order_by(_g.coin, _g.first_hour))
    wanted = set(coins)
    return [row for row in rows if row.coin in wanted]


def end_backoff(app: "App", coins: Collection[str], span: Span) -> None:
    """Let the next run request the gaps of coins that reach into a span."""
    since, until = span
    gaps = (_g.coin.in_(coins), _g.currency == app.settings.currency, _g.state != "filled")
    with app.warehouse.begin() as connection:
        inside = (_g.last_hour >= since, _g.first_hour < until)
        connection.execute(update(schema.gaps).where(*gaps, *inside).values(retry_at=None))


def change_hours(
    connection: Connection,
    coin: str,
    currency: str,
    hours: AbstractSet[datetime],
    change: Callable[[Row[Any]], Mapping[str, Any]],
) -> None:
    """Change the gaps of some hours, splitting a row where only a part of its hours is concerned.

    Args:
        connection: The caller's transaction.
        coin: CoinGecko id.
        currency: Quote currency.
        hours: The hours; those that are in no unfilled gap do not matter.
        change: Returns the new values by column for a row.
    """
    if not hours:
        return
    lock_table(connection, schema.gaps)
    query = select(schema.gaps).where(
        _g.coin == coin,
        _g.currency == currency,
        _g.state != "filled",
        _g.last_hour >= min(hours),
        _g.first_hour <= max(hours),
    )
    pieces = []
    for row in connection.execute(query).all():
        for is_meant, run in groupby(hours_between(row.first_hour, row.last_hour), key=lambda hour: hour in hours):
            piece = list(run)
            values = {"first_hour": piece[0], "last_hour": piece[-1], **(change(row) if is_meant else {})}
            pieces.append({**row._asdict(), **values})
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
