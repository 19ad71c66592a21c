"""What people say to alerts: be silent about this until then, and: I have seen it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, or_, select

from coinwatch.warehouse import schema
from coinwatch.warehouse.engine import upsert

ALL = "*"
"""Every coin, or every rule."""

_s = schema.silences.c
_a = schema.alerts.c
_m = schema.trouble_messages.c


def silence(connection: Connection, *, coin: str, rule: str, until: datetime, reason: str, at: datetime) -> str:
    """Store a silence; the same one at another time replaces the old.

    Args:
        connection: The caller's transaction.
        coin: A CoinGecko id, or ``*``.
        rule: A rule, ``*`` for all rules, or the key of a trouble (which ``*`` does not cover).
        until: When it ends.
        reason: Why; shown with what was silenced.
        at: The time.

    Returns:
        The silence's id.

    Raises:
        ValueError: It would be over already.
    """
    if until <= at:
        raise ValueError(f"the silence would end at {until:%Y-%m-%d %H:%M} UTC, which is past: give a later time")
    silence_id = f"{coin}-{rule}"
    values = {"coin": coin, "rule": rule, "until": until, "reason": reason, "created_at": at}
    upsert(connection, schema.silences, [{"id": silence_id, **values}])
    return silence_id


def unsilence(connection: Connection, *, coin: str, rule: str) -> int:
    """End the silences of a coin and rule, as they were set.

    Returns:
        Silences that were ended.
    """
    return connection.execute(delete(schema.silences).where(_s.coin == coin, _s.rule == rule)).rowcount


def active_silences(connection: Connection, at: datetime) -> Sequence[Row[Any]]:
    """The silences that hold at a time, rows of ``silences``."""
    return connection.execute(select(schema.silences).where(_s.until > at).order_by(_s.id)).all()


def silenced_alerts(silence_row: Row[Any]) -> ColumnElement[bool]:
    """Which alerts a silence is about."""
    return and_(
        or_(silence_row.coin == ALL, _a.coin == silence_row.coin),
        or_(silence_row.rule == ALL, _a.rule == silence_row.rule),
    )


def silenced_troubles(silence_row: Row[Any]) -> ColumnElement[bool]:
    """Which messages about troubles a silence is about: only those whose key it names."""
    key: str = silence_row.rule
    return _m.key == key


def acknowledge(connection: Connection, subjects: Sequence[str], reason: str, at: datetime) -> None:
    """Note that somebody takes care of incidents or troubles; said twice, the first time stands.

    Args:
        connection: The caller's transaction.
        subjects: Ids of incidents or troubles.
        reason: Who, or why.
        at: The time.
    """
    rows = [{"subject": subject, "reason": reason, "acknowledged_at": at} for subject in subjects]
    upsert(connection, schema.acknowledgements, rows, keep=True)


def is_acknowledged(connection: Connection, subject: str) -> bool:
    """Whether somebody takes care of an incident or trouble."""
    c = schema.acknowledgements.c
    return connection.execute(select(c.subject).where(c.subject == subject)).one_or_none() is not None
