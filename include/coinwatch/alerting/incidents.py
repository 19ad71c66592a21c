"""Incidents as they are stored: what the next decision has to remember of the ones before."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, select

from coinwatch.storage import schema

OPEN = ("firing", "worse")
"""States of an incident that is not over."""

_i = schema.incidents.c


def open_incidents(connection: Connection) -> Sequence[Row[Any]]:
    """The incidents that are not over, rows of ``incidents``, the oldest first."""
    query = select(schema.incidents).where(_i.state.in_(OPEN)).order_by(_i.opened_at, _i.id)
    return connection.execute(query).all()
