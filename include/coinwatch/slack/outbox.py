"""The outbox: what is to be told is stored first, in the transaction that decides it, and delivered after.

It has two tables of the same make: ``alerts`` of the market, and ``trouble_messages`` of the pipeline itself.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Self

from sqlalchemy import Connection, Row, Table, and_, exists, or_, select, update

from coinwatch.alerts.decide import Transition
from coinwatch.alerts.silences import active_silences, silenced_alerts, silenced_troubles
from coinwatch.slack.messages import ENDS, describe
from coinwatch.warehouse import schema
from coinwatch.warehouse.engine import upsert

WAITING = ("pending", "not_configured")
"""How a delivery stands before Slack has taken it."""

_a = schema.alerts.c


@dataclass(frozen=True, slots=True)
class Alert:
    """A row of the table ``alerts``; its columns say what each field means."""

    id: str
    coin: str
    currency: str
    rule: str
    severity: str
    state: str
    ts: datetime
    value: float | None
    threshold: float | None
    message: str
    raised_at: datetime
    run_id: str
    incident_id: str | None = None
    delivery: str = "pending"

    @classmethod
    def of(cls, turn: Transition, symbol: str, *, raised_at: datetime, run_id: str) -> Self:
        """The alert about a transition; the same transition has the same id whenever it is found."""
        return cls(
            id=turn.id,
            coin=turn.incident.coin,
            currency=turn.incident.currency,
            rule=turn.note,
            severity=turn.severity,
            state=turn.incident.state,
            ts=turn.ts,
            value=turn.change_pct if turn.incident.is_open else None,
            threshold=turn.threshold_pct,
            message=describe(turn, symbol),
            raised_at=raised_at,
            run_id=run_id,
            incident_id=turn.incident.id,
        )


def store_alerts(connection: Connection, alerts: Sequence[Alert]) -> None:
    """Store new alerts in the caller's transaction; one that is there already stays as it is."""
    # What has been delivered must not become pending again.
    upsert(connection, schema.alerts, [asdict(alert) for alert in alerts], keep=True)


def waiting(connection: Connection, table: Table, of_interest_since: datetime) -> Sequence[Row[Any]]:
    """What Slack has yet to get, in the order in which it was raised.

    Args:
        connection: A transaction.
        table: ``alerts`` or ``trouble_messages``.
        of_interest_since: Of what was raised while there was no Slack, only that of this time on; what Slack did not
            take comes whatever its age.
    """
    c = table.c
    # A market alert is as old as its price.
    age = c.ts if table is schema.alerts else c.raised_at
    waits = or_(c.delivery == "pending", and_(c.delivery == "not_configured", age >= of_interest_since))
    return connection.execute(select(table).where(waits).order_by(c.raised_at, c.id)).all()


def hold_back(connection: Connection, at: datetime) -> None:
    """Take out of what waits what nobody wants to hear: silenced, acknowledged, or the end of what was never told.

    Args:
        connection: The transaction in which is read what waits.
        at: The time.
    """
    for silence in active_silences(connection, at):
        said = f"silenced until {silence.until:%Y-%m-%d %H:%M} UTC: {silence.reason}"
        for table, concerned in (
            (schema.alerts, silenced_alerts(silence)),
            (schema.trouble_messages, silenced_troubles(silence)),
        ):
            where = and_(table.c.delivery.in_(WAITING), concerned)
            connection.execute(update(table).where(where).values(delivery="silenced", delivery_error=said))
    acknowledged = select(schema.acknowledgements.c.subject)
    where = and_(_a.delivery.in_(WAITING), _a.state == "worse", _a.incident_id.in_(acknowledged))
    connection.execute(update(schema.alerts).where(where).values(delivery="held", delivery_error="acknowledged"))
    _hold_ends_of_untold(connection)


def _hold_ends_of_untold(connection: Connection) -> None:
    """Whoever was not told that something began need not hear that it is over."""
    unheard = "nobody was told that it began"
    for table, group, ends in (
        (schema.alerts, "incident_id", ENDS),
        (schema.trouble_messages, "trouble_id", ("over",)),
    ):
        other = table.alias()
        # A trouble that ended before it could be told is told by its end alone.
        told = select(other.c.id).where(
            other.c[group] == table.c[group],
            other.c.id != table.c.id,
            other.c.delivery.not_in(("silenced", "held")),
        )
        where = and_(table.c.delivery.in_(WAITING), table.c.state.in_(ends), table.c[group].is_not(None), ~exists(told))
        connection.execute(update(table).where(where).values(delivery="held", delivery_error=unheard))


def mark_delivered(connection: Connection, table: Table, ids: Sequence[str], message_id: str, at: datetime) -> None:
    """Slack has taken a message."""
    _change(connection, table, ids, delivery="delivered", delivered_at=at, delivery_error=None, message_id=message_id)


def mark_failed(connection: Connection, table: Table, ids: Sequence[str], error: str) -> None:
    """Slack has not taken a message; what was in it stays pending."""
    _change(connection, table, ids, delivery="pending", delivery_error=error)


def mark_refused(connection: Connection, table: Table, ids: Sequence[str], error: str) -> None:
    """Slack takes everything else, but never this."""
    _change(connection, table, ids, delivery="refused", delivery_error=error)


def mark_not_configured(connection: Connection, table: Table) -> None:
    """There is no Slack to deliver to; what is waiting says so."""
    statement = update(table).where(table.c.delivery == "pending")
    connection.execute(statement.values(delivery="not_configured"))


def _change(connection: Connection, table: Table, ids: Sequence[str], **values: Any) -> None:
    connection.execute(update(table).where(table.c.id.in_(ids)).values(**values))
