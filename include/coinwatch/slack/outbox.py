"""The outbox: market alerts that Slack has not accepted yet, and the messages that they become."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sqlalchemy import ColumnElement, Connection, Row, and_, exists, or_, select, update

from coinwatch.alerts.incidents import WATCH_FEED
from coinwatch.alerts.silences import ALL, active_silences
from coinwatch.slack.blocks import CHART_SPAN, AlertView, SlackMessage, alert_message, summary_message, worst_open
from coinwatch.slack.wording import format_utc
from coinwatch.warehouse import schema

if TYPE_CHECKING:
    from coinwatch.app import App

_a = schema.alerts.c


def due(connection: Connection, not_before: datetime) -> Sequence[Row[Any]]:
    """Return the alerts that Slack has not accepted yet, the oldest first.

    Alerts raised while Slack was not configured are due only if their price is not older than ``not_before``.
    """
    waits = or_(_a.delivery == "pending", and_(_a.delivery == "not_configured", _a.ts >= not_before))
    return connection.execute(select(schema.alerts).where(waits).order_by(_a.raised_at, _a.id)).all()


def mark(connection: Connection, which: ColumnElement[bool], **values: Any) -> None:
    """Set columns of alerts that Slack has not accepted yet."""
    statement = update(schema.alerts).where(_a.delivery.in_(("pending", "not_configured")), which)
    connection.execute(statement.values(**values))


def hold(connection: Connection, at: datetime) -> None:
    """Hold what is silenced or acknowledged, and the end of incidents that were never notified: it is never sent."""
    for silence in active_silences(connection, at):
        same = and_(
            or_(silence.coin == ALL, _a.coin == silence.coin), or_(silence.rule == ALL, _a.rule == silence.rule)
        )
        reason = f"silenced until {format_utc(silence.until)}: {silence.reason}"
        mark(connection, same, delivery="silenced", delivery_error=reason)
    i = schema.incidents.c
    acknowledged = _a.incident_id.in_(select(i.id).where(i.acknowledged_at.is_not(None)))
    mark(connection, and_(_a.state == "worse", acknowledged), delivery="held", delivery_error="acknowledged")
    other = schema.alerts.alias()
    notified = exists().where(
        other.c.incident_id == _a.incident_id, other.c.id != _a.id, other.c.delivery.not_in(("silenced", "held"))
    )
    ended = and_(_a.state.in_(("resolved", "corrected")), _a.incident_id.is_not(None))
    reason = "its incident was never notified"
    mark(connection, and_(ended, ~notified), delivery="held", delivery_error=reason)


@dataclass(frozen=True, slots=True)
class Batch:
    """The alerts of one message, and the one whose chart is uploaded after it."""

    ids: Sequence[str]
    message: SlackMessage
    charted: AlertView | None = None

    @property
    def id(self) -> str:
        """The ``message_id`` of its alerts."""
        more = f"+{len(self.ids) - 1}" if len(self.ids) > 1 else ""
        return f"{self.ids[0]}{more}"


def batches(app: "App", connection: Connection, rows: Sequence[Row[Any]], since: datetime) -> Iterator[Batch]:
    """Return a summary of the alerts raised before a time, if there are several, then a message for each run."""
    old = [row for row in rows if row.raised_at < since]
    if len(old) > 1:
        rows = [row for row in rows if row.raised_at >= since]
        hours, views = app.settings.alert_max_age_hours, [_view(app, connection, row) for row in old]
        yield Batch([view.id for view in views], summary_message(views, hours, simulated=app.simulated))
    for (_, run_id), group in groupby(rows, lambda row: (row.raised_at, row.run_id)):
        views = [_view(app, connection, row) for row in group]
        run = WATCH_FEED if run_id == WATCH_FEED else f"process_prices/runs/{quote(run_id, safe='')}"
        message = alert_message(views, f"{app.airflow_url}/dags/{run}", simulated=app.simulated)
        yield Batch([view.id for view in views], message, worst_open(views))


def _view(app: "App", connection: Connection, row: Row[Any]) -> AlertView:
    p = schema.prices.c
    query = select(p.ts, p.price).where(p.coin == row.coin, p.currency == row.currency).order_by(p.ts)
    day_before = connection.execute(query.where(p.ts > row.ts - CHART_SPAN, p.ts <= row.ts))
    rule = getattr(app.rules.for_coin(row.coin), row.rule, None)
    columns = {field.name: getattr(row, field.name) for field in fields(AlertView) if field.name in _a}
    settings = "" if rule is None else rule.summary()
    return AlertView(**columns, settings=settings, prices=[(ts, float(price)) for ts, price in day_before])
