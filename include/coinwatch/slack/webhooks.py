"""Which webhooks have to be left alone: for good, because Slack refuses them, or for as long as it asked for."""

import hashlib
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, select

from coinwatch.warehouse import schema
from coinwatch.warehouse.engine import upsert

_w = schema.webhooks.c


def fingerprint(url: str) -> str:
    """What tells one webhook from another and gives neither away."""
    return hashlib.sha256(url.encode()).hexdigest()[:16]


def is_dead(connection: Connection, url: str) -> bool:
    """Whether Slack has refused a webhook for good."""
    row = _find(connection, url)
    return row is not None and row.dead_since is not None


def seconds_to_wait(connection: Connection, url: str, at: datetime) -> float:
    """How long Slack still wants to get nothing by a webhook; 0 if it does not mind."""
    row = _find(connection, url)
    if row is None or row.not_before is None:
        return 0.0
    seconds: float = (row.not_before - at).total_seconds()
    return max(0.0, seconds)


def mark_dead(connection: Connection, url: str, conn_id: str, reason: str, at: datetime) -> None:
    """Post nothing more to a webhook; another one in the same connection is alive at once."""
    _store(connection, url, conn_id, reason, dead_since=at, not_before=None)


def mark_paused(connection: Connection, url: str, conn_id: str, reason: str, until: datetime) -> None:
    """Post nothing to a webhook for a while, whichever task it is."""
    _store(connection, url, conn_id, reason, dead_since=None, not_before=until)


def mark_well(connection: Connection, url: str) -> None:
    """A webhook has worked."""
    connection.execute(delete(schema.webhooks).where(_w.fingerprint == fingerprint(url)))


def revive(connection: Connection) -> int:
    """Forget which webhooks are dead, because somebody has mended them where they are.

    Returns:
        How many were dead.
    """
    return connection.execute(delete(schema.webhooks).where(_w.dead_since.is_not(None))).rowcount


def _find(connection: Connection, url: str) -> Row[Any] | None:
    return connection.execute(select(schema.webhooks).where(_w.fingerprint == fingerprint(url))).one_or_none()


def _store(connection: Connection, url: str, conn_id: str, reason: str, **state: datetime | None) -> None:
    values = {"fingerprint": fingerprint(url), "connection": conn_id, "reason": reason, **state}
    upsert(connection, schema.webhooks, [values])
