"""What is due as Slack messages: one for the alerts of each run, one summary of old ones, one for pipeline issues."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sqlalchemy import Connection, Row, select

from coinwatch.alerts.incidents import WATCH_FEED
from coinwatch.slack.blocks import (
    AlertView,
    IssueView,
    SlackMessage,
    alert_message,
    rule_facts,
    summary_message,
    worst_open,
)
from coinwatch.slack.charts import Point, draw_chart, sparkline
from coinwatch.slack.wording import format_price, format_utc
from coinwatch.times import compact_time
from coinwatch.warehouse import schema

if TYPE_CHECKING:
    from coinwatch.app import App

CHART_SPAN = timedelta(hours=24)


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
    """Return a summary of old alerts, and then the alerts of each run."""
    old = [row for row in rows if row.raised_at < since]
    if len(old) > 1:
        rows = [row for row in rows if row.raised_at >= since]
        views = [_alert_view(app, connection, row) for row in old]
        hours = app.settings.alert_max_age_hours
        yield Batch(old, summary_message(views, hours, simulated=app.simulated))
    for (_, run_id), group in groupby(rows, lambda row: (row.raised_at, row.run_id)):
        of_run = list(group)
        views = [_alert_view(app, connection, row) for row in of_run]
        worst = worst_open(views)
        charted = next((row for row in of_run if worst is not None and row.id == worst.id), None)
        run = WATCH_FEED if run_id == WATCH_FEED else f"process_prices/runs/{quote(run_id, safe='')}"
        message = alert_message(views, f"{app.airflow_url}/dags/{run}", simulated=app.simulated)
        yield Batch(of_run, message, charted)


def _alert_view(app: "App", connection: Connection, row: Row[Any]) -> AlertView:
    rule = getattr(app.rules.for_coin(row.coin), row.rule, None)
    names = ("id", "coin", "rule", "state", "severity", "message", "ts", "value", "threshold")
    return AlertView(
        **{name: getattr(row, name) for name in names},
        facts=rule_facts(row.rule, row.threshold, "" if rule is None else rule.summary()),
        chart=_text_chart(connection, row),
    )


def issue_view(row: Row[Any], now: datetime) -> IssueView:
    """Return an issue as a message shows it; what is sent again has the same id."""
    is_reminder = row.state == row.notified_state == "open" and row.notified_at is not None
    state = "reminder" if is_reminder else row.state
    since = row.notified_at if is_reminder else row.opened_at
    return IssueView(
        id=f"{row.key}@{compact_time(since)}-{state}",
        state=state,
        title=row.title,
        detail=row.detail,
        action=row.action,
        link=row.link,
        opened_at=row.opened_at,
        at=now,
    )


def _text_chart(connection: Connection, row: Row[Any]) -> str:
    """Return the day before an alert as bars, with its lowest and highest price."""
    points = _read_points(connection, row)
    bars = sparkline(points, row.ts - CHART_SPAN, row.ts)
    if not bars:
        return ""
    low, high = (format_price(pick(price for _, price in points), row.currency) for pick in (min, max))
    return f"{bars} 24 h, {low} to {high}"


def upload_chart(app: "App", row: Row[Any]) -> None:
    """Upload the chart of the day before an alert, if a bot is configured."""
    if app.slack.charts is None:
        return
    with app.warehouse.begin() as connection:
        points = _read_points(connection, row)
    title = f"{'[SIMULATED] ' if app.simulated else ''}{row.coin}, 24 hours to {format_utc(row.ts)}"
    png = draw_chart(points, row.ts - CHART_SPAN, row.ts, title=title, currency=row.currency)
    if png:
        app.slack.charts.upload(png, title)


def _read_points(connection: Connection, row: Row[Any]) -> list[Point]:
    p = schema.prices.c
    start = row.ts - CHART_SPAN
    query = select(p.ts, p.price).where(p.coin == row.coin, p.currency == row.currency, p.ts > start, p.ts <= row.ts)
    return [(ts, float(price)) for ts, price in connection.execute(query.order_by(p.ts))]
