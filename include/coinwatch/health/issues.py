"""Pipeline issues: one row for each fault of the pipeline itself, level-triggered.

A check reports an issue each time it finds it, and resolves it each time it does not. Which notifications are due
follows from the state and the last notified state, as in Alertmanager's notification log.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, and_, exists, or_, select, update

from coinwatch.warehouse import schema
from coinwatch.warehouse.engine import upsert

REMIND_AFTER = timedelta(hours=24)
"""Time from a notification of an open issue to its reminder, unless it was acknowledged."""

_i = schema.pipeline_issues.c
_s = schema.silences.c


def report(
    connection: Connection,
    key: str,
    *,
    title: str,
    detail: str,
    action: str,
    at: datetime,
    link: str | None = None,
    grace: timedelta = timedelta(0),
    coins: Sequence[str] = (),
) -> None:
    """Open an issue, or update it if it is open.

    Args:
        connection: The caller's transaction.
        key: For example ``uploads`` or ``task:ingest_prices.fetch_prices``.
        title: The issue in a few words.
        detail: What happened.
        action: What to do.
        at: The present.
        link: The page to look at.
        grace: How long the issue is open before operators are notified.
        coins: The coins it concerns; one that is added later notifies operators again.
    """
    old = find(connection, key)
    news: dict[str, Any] = {"title": title, "detail": detail, "action": action, "link": link, "seen_at": at}
    news["coins"] = ",".join(coins)
    unacknowledged = {"acknowledged_at": None, "acknowledged_by": None}
    if old is None or old.state != "open":
        opened = {"key": key, "state": "open", "opened_at": at, "seen_count": 1, "notify_after": at + grace}
        opened |= {"resolved_at": None, "delivery_error": None}
        # What operators know of the issue before stays.
        upsert(connection, schema.pipeline_issues, [opened | unacknowledged | news])
        return
    if not set(coins) <= set(old.coins.split(",")):
        news |= {"notified_at": None} | unacknowledged
    _update(connection, [key], seen_count=_i.seen_count + 1, **news)


def resolve(connection: Connection, key: str, at: datetime, detail: str = "") -> None:
    """Resolve an issue if it is open; ``detail`` says why, and is put before the old detail."""
    old = find(connection, key)
    if old is None or old.state != "open":
        return
    detail = f"{detail} It was: {old.detail}" if detail else old.detail
    _update(connection, [key], state="resolved", resolved_at=at, detail=detail, action="")


def find(connection: Connection, key: str) -> Row[Any] | None:
    """Return an issue's row, open or resolved."""
    return connection.execute(select(schema.pipeline_issues).where(_i.key == key)).one_or_none()


def open_issues(connection: Connection, prefix: str = "") -> Sequence[Row[Any]]:
    """Return the open issues whose key starts with a prefix, the oldest first."""
    query = select(schema.pipeline_issues).where(_i.state == "open", _i.key.startswith(prefix, autoescape=True))
    return connection.execute(query.order_by(_i.opened_at, _i.key)).all()


def due(connection: Connection, now: datetime) -> Sequence[Row[Any]]:
    """Return the issues with a notification that is due: opened, resolved, or a reminder.

    Not one that was resolved before operators were notified, and none whose key is silenced.
    """
    is_open = _i.state == "open"
    opened = and_(is_open, or_(_i.notified_state.is_distinct_from("open"), _i.notified_at.is_(None)))
    reminder = and_(is_open, _i.notified_at <= now - REMIND_AFTER, _i.acknowledged_at.is_(None))
    resolved = and_(_i.state == "resolved", _i.notified_state == "open")
    silenced = exists().where(_s.rule == _i.key, _s.until > now)
    query = select(schema.pipeline_issues).where(or_(and_(opened, _i.notify_after <= now), reminder, resolved))
    return connection.execute(query.where(~silenced).order_by(_i.opened_at, _i.key)).all()


def mark_notified(connection: Connection, issues: Sequence[Row[Any]], at: datetime) -> None:
    """Record that operators were notified of issues, in the state in which they were read."""
    for issue in issues:
        _update(connection, [issue.key], notified_state=issue.state, notified_at=at, delivery_error=None)


def mark_failed(connection: Connection, keys: Sequence[str], error: str) -> None:
    """Record why notifications were not delivered; they stay due."""
    _update(connection, keys, delivery_error=error)


def acknowledge(connection: Connection, keys: Sequence[str], by: str, at: datetime) -> None:
    """Acknowledge issues: there are no reminders until they are resolved."""
    _update(connection, keys, acknowledged_at=at, acknowledged_by=by)


def _update(connection: Connection, keys: Sequence[str], **values: Any) -> None:
    connection.execute(update(schema.pipeline_issues).where(_i.key.in_(keys)).values(**values))
