"""The outbox of market alerts: stored in the transaction that decides them, delivered after it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Self

from sqlalchemy import Connection, Row, and_, exists, or_, select, update

from coinwatch.alerts.decide import Transition
from coinwatch.alerts.silences import ALL, active_silences
from coinwatch.slack.wording import describe, format_utc
from coinwatch.warehouse import schema
from coinwatch.warehouse.engine import upsert

WAITING = ("pending", "not_configured")
"""Values of ``delivery`` before Slack has accepted an alert."""

_a = schema.alerts.c


@dataclass(frozen=True, slots=True)
class Alert:
    """A row of the table ``alerts``, where each column is described."""

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
    def of(cls, transition: Transition, symbol: str, *, raised_at: datetime, run_id: str) -> Self:
        """Return the alert of a transition; the same transition always has the same id."""
        return cls(
            id=transition.id,
            coin=transition.incident.coin,
            currency=transition.incident.currency,
            rule=transition.note,
            severity=transition.severity,
            state=transition.incident.state,
            ts=transition.ts,
            value=transition.change_pct if transition.incident.is_open else None,
            threshold=transition.threshold_pct,
            message=describe(transition, symbol),
            raised_at=raised_at,
            run_id=run_id,
            incident_id=transition.incident.id,
        )


def store_alerts(connection: Connection, alerts: Sequence[Alert]) -> None:
    """Store new alerts in the caller's transaction; one that exists stays as it is, delivered or not."""
    upsert(connection, schema.alerts, [asdict(alert) for alert in alerts], keep=True)


def due(connection: Connection, not_before: datetime) -> Sequence[Row[Any]]:
    """Return the alerts that Slack has not accepted yet, the oldest first.

    Args:
        connection: A transaction.
        not_before: Alerts raised while Slack was not configured are due only if their price is not older than this.
    """
    waits = or_(_a.delivery == "pending", and_(_a.delivery == "not_configured", _a.ts >= not_before))
    return connection.execute(select(schema.alerts).where(waits).order_by(_a.raised_at, _a.id)).all()


def hold(connection: Connection, at: datetime) -> None:
    """Take out of the outbox what is silenced or acknowledged, and the end of incidents that were never notified."""
    for silence in active_silences(connection, at):
        where = [_a.delivery.in_(WAITING)]
        where += [_a.coin == silence.coin] if silence.coin != ALL else []
        where += [_a.rule == silence.rule] if silence.rule != ALL else []
        reason = f"silenced until {format_utc(silence.until)}: {silence.reason}"
        connection.execute(update(schema.alerts).where(*where).values(delivery="silenced", delivery_error=reason))
    i = schema.incidents.c
    acknowledged = _a.incident_id.in_(select(i.id).where(i.acknowledged_at.is_not(None)))
    _hold(connection, and_(_a.state == "worse", acknowledged), "acknowledged")
    other = schema.alerts.alias()
    notified = exists().where(
        other.c.incident_id == _a.incident_id, other.c.id != _a.id, other.c.delivery.not_in(("silenced", "held"))
    )
    ended = and_(_a.state.in_(("resolved", "corrected")), _a.incident_id.is_not(None))
    _hold(connection, and_(ended, ~notified), "its incident was never notified")


def _hold(connection: Connection, which: Any, reason: str) -> None:
    statement = update(schema.alerts).where(_a.delivery.in_(WAITING), which)
    connection.execute(statement.values(delivery="held", delivery_error=reason))


def mark_delivered(connection: Connection, ids: Sequence[str], message_id: str, at: datetime) -> None:
    """Note that Slack accepted the message with these alerts."""
    _mark(connection, ids, delivery="delivered", delivered_at=at, delivery_error=None, message_id=message_id)


def mark_failed(connection: Connection, ids: Sequence[str], error: str) -> None:
    """Note why Slack did not accept a message; its alerts stay pending."""
    _mark(connection, ids, delivery="pending", delivery_error=error)


def mark_refused(connection: Connection, ids: Sequence[str], error: str) -> None:
    """Note that Slack will never accept a message, though it accepts others."""
    _mark(connection, ids, delivery="refused", delivery_error=error)


def mark_not_configured(connection: Connection) -> None:
    """Note on pending alerts that there is no Slack connection."""
    where = _a.delivery == "pending"
    connection.execute(update(schema.alerts).where(where).values(delivery="not_configured"))


def _mark(connection: Connection, ids: Sequence[str], **values: Any) -> None:
    connection.execute(update(schema.alerts).where(_a.id.in_(ids)).values(**values))
