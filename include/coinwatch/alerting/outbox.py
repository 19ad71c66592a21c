"""The outbox: alerts are stored first, in the transaction that decides them, and delivered after."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Self

from sqlalchemy import Connection, Row, and_, func, or_, select, update

from coinwatch.alerting.messages import describe
from coinwatch.analysis.anomalies import Anomaly, LastAlert
from coinwatch.storage import schema
from coinwatch.storage.warehouse import upsert
from coinwatch.times import compact_time

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
    value: float
    threshold: float
    message: str
    raised_at: datetime
    run_id: str
    delivery: str = "pending"

    @classmethod
    def of(cls, anomaly: Anomaly, symbol: str, currency: str, *, raised_at: datetime, run_id: str) -> Self:
        """The alert about an anomaly; the same anomaly has the same id whenever it is found."""
        return cls(
            id=f"{anomaly.rule}-{anomaly.coin}-{currency}-{compact_time(anomaly.ts)}",
            coin=anomaly.coin,
            currency=currency,
            rule=anomaly.rule,
            severity=anomaly.severity,
            state="firing",
            ts=anomaly.ts,
            value=anomaly.change_pct,
            threshold=anomaly.threshold_pct,
            message=describe(anomaly, symbol, currency),
            raised_at=raised_at,
            run_id=run_id,
        )


def store_alerts(connection: Connection, alerts: Sequence[Alert]) -> None:
    """Store new alerts in the caller's transaction; one that is there already stays as it is."""
    # What has been delivered must not become pending again.
    upsert(connection, schema.alerts, [asdict(alert) for alert in alerts], keep=True)


def last_alerts(connection: Connection, currency: str) -> dict[tuple[str, str], LastAlert]:
    """The newest alert of each coin and rule."""
    newest = (
        select(_a.coin, _a.rule, func.max(_a.ts).label("ts"))
        .where(_a.currency == currency)
        .group_by(_a.coin, _a.rule)
        .subquery()
    )
    query = select(_a.coin, _a.rule, _a.ts, _a.value).join(
        newest, and_(newest.c.coin == _a.coin, newest.c.rule == _a.rule, newest.c.ts == _a.ts)
    )
    rows = connection.execute(query.where(_a.currency == currency))
    return {(row.coin, row.rule): LastAlert(row.ts, math.log1p(row.value / 100)) for row in rows}


def undelivered(connection: Connection, of_interest_since: datetime) -> Sequence[Row[Any]]:
    """Alerts that Slack has yet to get, in the order in which they were raised.

    Args:
        connection: A transaction.
        of_interest_since: Of those that were raised while there was no Slack, only the ones about a price from this
            time on; those that Slack did not take come whatever their age.
    """
    waiting = or_(_a.delivery == "pending", and_(_a.delivery == "not_configured", _a.ts >= of_interest_since))
    return connection.execute(select(schema.alerts).where(waiting).order_by(_a.raised_at, _a.id)).all()


def mark_delivered(connection: Connection, alert_id: str, at: datetime) -> None:
    """Slack has taken an alert."""
    _change(connection, alert_id, delivery="delivered", delivered_at=at, delivery_error=None)


def mark_failed(connection: Connection, alert_id: str, error: str) -> None:
    """Slack has not taken an alert; it stays pending."""
    _change(connection, alert_id, delivery="pending", delivery_error=error)


def mark_not_configured(connection: Connection) -> None:
    """There is no Slack to deliver to; what is waiting says so."""
    statement = update(schema.alerts).where(_a.delivery == "pending")
    connection.execute(statement.values(delivery="not_configured"))


def _change(connection: Connection, alert_id: str, **values: Any) -> None:
    connection.execute(update(schema.alerts).where(_a.id == alert_id).values(**values))
