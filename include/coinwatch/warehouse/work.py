"""The work that one step leaves for the next: stored in the transaction that causes it, cleared once it is done."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import Connection, bindparam, delete, select

from coinwatch.times import floor_hour
from coinwatch.warehouse import schema
from coinwatch.warehouse.engine import upsert

CONTEXT = timedelta(hours=25)
"""How far the windows of a price's statistics reach back: 24 hours and an hour of tolerance."""

Step = Literal["statistics", "detection", "export"]

_w = schema.pending_work.c


def mark_work(connection: Connection, step: Step, currency: str, since: Mapping[str, datetime]) -> None:
    """Mark coins as pending from a time on; a mark with an earlier time stays."""
    upsert(
        connection,
        schema.pending_work,
        [
            {"step": step, "coin": coin, "currency": currency, "since": moment, "context_since": moment - CONTEXT}
            for coin, moment in since.items()
        ],
        update_where=lambda new: new.since < _w.since,
    )


def pending_work(connection: Connection, step: Step) -> dict[str, dict[str, datetime]]:
    """Return what is pending for a step: currency → coin → from which time on.

    The rows are locked: what a concurrent run adds to them waits until this one has cleared what it did.
    """
    query = select(schema.pending_work).where(_w.step == step).order_by(_w.currency, _w.coin).with_for_update()
    work: dict[str, dict[str, datetime]] = defaultdict(dict)
    for row in connection.execute(query):
        work[row.currency][row.coin] = row.since
    return work


def clear_work(connection: Connection, step: Step, currency: str, done: Mapping[str, datetime]) -> None:
    """Clear work that is done, unless its mark has changed since it was read."""
    if not done:
        return
    statement = delete(schema.pending_work).where(
        _w.step == step,
        _w.currency == currency,
        _w.coin == bindparam("done_coin"),
        _w.since == bindparam("done_since"),
    )
    connection.execute(statement, [{"done_coin": coin, "done_since": since} for coin, since in done.items()])


def mark_uploads(connection: Connection, layer: str, moments: Iterable[datetime]) -> None:
    """Mark the S3 partitions of some rows' times as changed, in the layer ``raw`` or ``processed``."""
    hours = {floor_hour(moment) for moment in set(moments)}
    upsert(connection, schema.pending_uploads, [{"layer": layer, "hour": hour} for hour in sorted(hours)])
