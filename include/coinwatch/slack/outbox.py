"""The outbox: market alerts that Slack has not accepted yet, and the messages that they become."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sqlalchemy import Connection, Row, and_, exists, or_, select, update

from coinwatch.alerts.incidents import WATCH_FEED
from coinwatch.alerts.silences import ALL, active_silences
from coinwatch.slack.blocks import AlertView, SlackMessage, alert_message, summary_message, worst_open
from coinwatch.slack.charts import Point, sparkline
from coinwatch.slack.wording import format_price, format_utc
from coinwatch.warehouse import schema

if TYPE_CHECKING:
    from coinwatch.app import App

CHART_SPAN = timedelta(hours=24)

WAITING = ("pending", "not_configured")
"""Values of ``delivery`` before Slack has accepted an alert."""

_a = schema.alerts.c


def due(connection: Connection, not_before: datetime) -> Sequence[Row[Any]]:
    """Return the alerts that Slack has not accepted yet, the oldest first.

    Args:
        connection: A transaction.
        not_before: Alerts raised while Slack was not configured are due only if their price is not older than this.
    """
    waits = or_(_a.delivery == "pending", and_(_a.delivery == "not_configured", _a.ts >= not_before))
    return connection.execute(select(schema.alerts).where(waits).order_by(_a.raised_at, _a.id)).all()


def hold(connection: Connection, at: datetime) -> None:
    """Hold what is silenced or acknowledged, and the end of incidents that were never notified: it is never sent."""
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
    """Mark alerts whose message Slack accepted."""
    _mark(connection, ids, delivery="delivered", delivered_at=at, delivery_error=None, message_id=message_id)


def mark_undelivered(connection: Connection, ids: Sequence[str], delivery: str, error: str) -> None:
    """Note why Slack did not accept a message: pending to send it again, refused if Slack never accepts it."""
    _mark(connection, ids, delivery=delivery, delivery_error=error)


def mark_not_configured(connection: Connection) -> None:
    """Mark pending alerts: there is no Slack connection."""
    where = _a.delivery == "pending"
    connection.execute(update(schema.alerts).where(where).values(delivery="not_configured"))


def _mark(connection: Connection, ids: Sequence[str], **values: Any) -> None:
    connection.execute(update(schema.alerts).where(_a.id.in_(ids)).values(**values))


@dataclass(frozen=True, slots=True)
class Batch:
    """The alerts of one message, and the one whose chart is uploaded after it."""

    rows: Sequence[Row[Any]]
    message: SlackMessage
    charted: Row[Any] | None = None

    @property
    def id(self) -> str:
        """The ``message_id`` of its alerts."""
        more = f"+{len(self.rows) - 1}" if len(self.rows) > 1 else ""
        return f"{self.rows[0].id}{more}"


def batches(app: "App", connection: Connection, rows: Sequence[Row[Any]], since: datetime) -> Iterator[Batch]:
    """Return a summary of the alerts raised before a time, if there are several, then a message for each run."""
    old = [row for row in rows if row.raised_at < since]
    if len(old) > 1:
        rows = [row for row in rows if row.raised_at >= since]
        views = [_view(app, connection, row) for row in old]
        hours = app.settings.alert_max_age_hours
        yield Batch(old, summary_message(views, hours, simulated=app.simulated))
    for (_, run_id), group in groupby(rows, lambda row: (row.raised_at, row.run_id)):
        of_run = list(group)
        views = [_view(app, connection, row) for row in of_run]
        worst = worst_open(views)
        charted = next((row for row in of_run if worst is not None and row.id == worst.id), None)
        run = WATCH_FEED if run_id == WATCH_FEED else f"process_prices/runs/{quote(run_id, safe='')}"
        message = alert_message(views, f"{app.airflow_url}/dags/{run}", simulated=app.simulated)
        yield Batch(of_run, message, charted)


def _view(app: "App", connection: Connection, row: Row[Any]) -> AlertView:
    rule = getattr(app.rules.for_coin(row.coin), row.rule, None)
    names = ("id", "coin", "rule", "state", "severity", "message", "ts", "value", "threshold")
    chart, points = "", day_before(connection, row)
    if bars := sparkline(points, row.ts - CHART_SPAN, row.ts):
        low, high = (format_price(pick(price for _, price in points), row.currency) for pick in (min, max))
        chart = f"{bars} 24 h, {low} to {high}"
    settings = "" if rule is None else rule.summary()
    return AlertView(**{name: getattr(row, name) for name in names}, settings=settings, chart=chart)


def day_before(connection: Connection, row: Row[Any]) -> list[Point]:
    """Return the prices of the day before an alert, with the one that raised it."""
    p = schema.prices.c
    start = row.ts - CHART_SPAN
    query = select(p.ts, p.price).where(p.coin == row.coin, p.currency == row.currency, p.ts > start, p.ts <= row.ts)
    return [(ts, float(price)) for ts, price in connection.execute(query.order_by(p.ts))]
