"""The pipeline's own troubles: one message when one begins, one when it is over, and none in between.

A trouble is known by its key. Whoever sees it says so as often as they see it; only the first time makes a message, and
a day later a reminder. Messages are stored in the caller's transaction and delivered like the alerts.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, select, update

from coinwatch.alerts.silences import is_acknowledged
from coinwatch.times import compact_time
from coinwatch.warehouse import schema
from coinwatch.warehouse.engine import upsert

REMIND_AFTER = timedelta(hours=24)
"""A trouble that nobody has taken care of is told of again after so long."""

NO_TIME = timedelta(0)

_t = schema.troubles.c
_m = schema.trouble_messages.c


def raise_trouble(
    connection: Connection,
    key: str,
    *,
    title: str,
    what: str,
    action: str,
    at: datetime,
    link: str | None = None,
    lasting: timedelta = NO_TIME,
) -> bool:
    """Say that a trouble is there; to be said each time that it is seen.

    Args:
        connection: The caller's transaction; the message is stored in it.
        key: Names the trouble: ``stale:bitcoin``, ``task:ingest_prices.fetch_prices``.
        title: In a few words.
        what: What happened, and to whom.
        action: What to do.
        at: The time.
        link: The page to look at.
        lasting: Only when it has been seen for so long it becomes a trouble.

    Returns:
        Whether a message was stored: it has begun, or is reminded of.
    """
    old = _find(connection, key)
    goes_on = old is not None and old.state != "over"
    since = old.since if old is not None and goes_on else at
    trouble: dict[str, Any] = {
        "key": key,
        "id": f"{key}@{compact_time(since)}",
        "state": "open" if at - since >= lasting or (old is not None and old.state == "open") else "noticed",
        "title": title,
        "what": what,
        "action": action,
        "link": link,
        "since": since,
        "last_seen": at,
        "times": old.times + 1 if old is not None and goes_on else 1,
        "told_at": old.told_at if old is not None and goes_on else None,
        "over_at": None,
    }
    told = _state_to_tell(connection, trouble, at)
    if told:
        trouble["told_at"] = at
        _store_message(connection, trouble, told, at)
    upsert(connection, schema.troubles, [trouble])
    return told is not None


def _state_to_tell(connection: Connection, trouble: Mapping[str, Any], at: datetime) -> str | None:
    if trouble["state"] != "open":
        return None
    if trouble["told_at"] is None:
        return "begun"
    if at - trouble["told_at"] < REMIND_AFTER or is_acknowledged(connection, trouble["id"]):
        return None
    # Somebody who has not been told yet needs no reminder.
    waiting = connection.execute(select(_m.id).where(_waits(trouble["id"]))).first()
    return "reminder" if waiting is None else None


def _waits(trouble_id: str) -> ColumnElement[bool]:
    return (_m.trouble_id == trouble_id) & _m.delivery.in_(("pending", "not_configured"))


def end_trouble(connection: Connection, key: str, at: datetime, what: str = "") -> bool:
    """Say that a trouble is not there (any more); nothing happens if it was not.

    Args:
        connection: The caller's transaction; the message is stored in it.
        key: As it was raised.
        at: The time.
        what: How it stands now, if there is something to tell.

    Returns:
        Whether a message was stored.
    """
    old = _find(connection, key)
    if old is None or old.state == "over":
        return False
    connection.execute(update(schema.troubles).where(_t.key == key).values(state="over", over_at=at))
    if old.state != "open":
        return False
    # What nobody has been told of is told in one message, by the one that says that it is over.
    connection.execute(update(schema.trouble_messages).where(_waits(old.id)).values(delivery="superseded"))
    told = " ".join(filter(None, (what, f"It was: {old.what}")))
    _store_message(connection, {**old._mapping, "what": told, "action": ""}, "over", at)  # noqa: SLF001 - documented; the underscore keeps it apart from columns
    return True


def open_troubles(connection: Connection) -> Sequence[Row[Any]]:
    """The troubles that are there, rows of ``troubles``, the oldest first."""
    return connection.execute(select(schema.troubles).where(_t.state == "open").order_by(_t.since, _t.key)).all()


def _find(connection: Connection, key: str) -> Row[Any] | None:
    return connection.execute(select(schema.troubles).where(_t.key == key)).one_or_none()


def _store_message(connection: Connection, trouble: Mapping[str, Any], state: str, at: datetime) -> None:
    # A trouble may come and go several times in a second: the first time tells it.
    message_id = f"{trouble['id']}-{state}" + (f"-{compact_time(at)}" if state == "reminder" else "")
    values = {
        "id": message_id,
        "trouble_id": trouble["id"],
        "state": state,
        "raised_at": at,
        "delivery": "pending",
        **{name: trouble[name] for name in ("key", "title", "what", "action", "link", "since")},
    }
    # Two tasks may see it at once.
    upsert(connection, schema.trouble_messages, [values], keep=True)
