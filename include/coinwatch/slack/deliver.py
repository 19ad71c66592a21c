"""Delivery to Slack: market alerts from the outbox, then the pipeline issues that are due.

One process delivers at a time and marks each message as soon as Slack has accepted it. Only a kill between Slack's "ok"
and the mark sends a message twice, both times with the same ids.
"""

import logging
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, select

from coinwatch.files import locked
from coinwatch.health import issues
from coinwatch.settings import SLACK_CONN_ID
from coinwatch.slack import outbox
from coinwatch.slack.blocks import CHART_SPAN, IssueView, SlackMessage, issue_message
from coinwatch.slack.charts import draw_chart
from coinwatch.slack.webhook import MessageRefused, SlackError, Webhook, WebhookRevoked
from coinwatch.slack.wording import format_utc
from coinwatch.times import compact_time
from coinwatch.warehouse import schema
from coinwatch.warehouse.engine import upsert

if TYPE_CHECKING:
    from coinwatch.app import App

log = logging.getLogger(__name__)

PACE = 1.0
"""Seconds between messages (Slack: about one message a second for each webhook)."""

SHORT_WAIT = 5.0
"""Seconds of a Retry-After that are waited on the spot; after a longer one the task is up for retry."""

SHORT_WAITS = 3
"""Waits on the spot for one message."""


def send_slack_alerts(app: "App") -> int:
    """Send the market alerts that are due, then the pipeline issues, and return how many alerts were delivered.

    Raises:
        SlackError: Slack did not accept a message; it and those after it stay due. Not raised for a revoked webhook if
            operators were notified of that through the other channel.
    """
    with locked(app.settings.data_dir / "delivery"):
        try:
            delivered = _send_alerts(app)
        except SlackError as error:
            notified = _send_issues(app)
            if not (notified and isinstance(error, WebhookRevoked)):
                raise
            log.error("%s. Operators were notified", error)
            return 0
        _send_issues(app)
        return delivered


def send_issues(app: "App") -> bool:
    """Send the pipeline issues that are due, and return whether operators are notified of all of them."""
    with locked(app.settings.data_dir / "delivery"):
        return _send_issues(app)


def post_issue(app: "App", *, title: str, detail: str, action: str, link: str | None = None) -> bool:
    """Post an issue without the warehouse, and return whether Slack accepted it."""
    now = app.clock()
    issue = IssueView("", "open", title, detail, action, link, opened_at=now, at=now)
    for webhook in _issue_webhooks(app):
        try:
            webhook.post(issue_message([issue], simulated=app.simulated))
        except SlackError as error:
            log.error("pipeline issue not posted: %s", error)
        else:
            return True
    return False


def _send_alerts(app: "App") -> int:
    now, webhook = app.clock(), app.slack.alerts
    hours = app.settings.alert_max_age_hours
    oldest = now - timedelta(hours=hours)
    with app.warehouse.begin() as connection:
        outbox.hold(connection, now)
        due = outbox.due(connection, oldest)
        if webhook is None:
            outbox.mark(connection, schema.alerts.c.delivery == "pending", delivery="not_configured")
            log.warning(
                "no connection %s: %d alerts wait; sent if it is created within %g h", SLACK_CONN_ID, len(due), hours
            )
            return 0
        revoked, wait = _is_revoked(connection, webhook), _seconds_to_wait(connection, webhook, now)
        batches = [] if revoked else list(outbox.batches(app, connection, due, oldest))
    if due and revoked:
        log.warning("%d alerts wait: the webhook of %s is revoked", len(due), SLACK_CONN_ID)
    elif due and wait:
        raise SlackError(f"{SLACK_CONN_ID}: HTTP 429, retry in {wait:.0f} s", retry_after=wait)
    delivered = 0
    for number, batch in enumerate(batches):
        if number:
            app.slack.sleep(PACE)
        delivered += _send_batch(app, webhook, batch)
    return delivered


def _send_batch(app: "App", webhook: Webhook, batch: outbox.Batch) -> int:
    which = schema.alerts.c.id.in_(batch.ids)
    try:
        _send(app, webhook, batch.message)
    except SlackError as error:
        refused = isinstance(error, MessageRefused)
        with app.warehouse.begin() as connection:
            state = "refused" if refused else "pending"
            outbox.mark(connection, which, delivery=state, delivery_error=str(error))
        if not refused:
            raise
        # One bad message does not hold up those after it.
        log.error("message %s: %s", batch.id, error)
        return 0
    delivered = {"delivery": "delivered", "delivered_at": app.clock(), "delivery_error": None, "message_id": batch.id}
    with app.warehouse.begin() as connection:
        outbox.mark(connection, which, **delivered)
    log.info("delivered to %s: %s", webhook.conn_id, ", ".join(batch.ids))
    # After the mark, so that a chart is never the reason for a second message.
    if batch.charted is not None and app.slack.upload_chart is not None:
        alert = batch.charted
        title = f"{'[SIMULATED] ' if app.simulated else ''}{alert.coin}, 24 hours to {format_utc(alert.ts)}"
        png = draw_chart(alert.prices, alert.ts - CHART_SPAN, alert.ts, title=title, currency=alert.currency)
        if png:
            app.slack.upload_chart(png, title)
    return len(batch.ids)


def _send_issues(app: "App") -> bool:
    now, webhooks = app.clock(), _issue_webhooks(app)
    used = {_issue_key(webhook) for webhook in webhooks}
    with app.warehouse.begin() as connection:
        for issue in issues.open_issues(connection, "webhook:"):
            if issue.key not in used:
                issues.resolve(connection, issue.key, now, "The connection has another webhook, or was removed.")
    for webhook in webhooks:
        # Read for each webhook: that the one before is revoked is an issue, too.
        with app.warehouse.begin() as connection:
            if _is_revoked(connection, webhook) or _seconds_to_wait(connection, webhook, now):
                continue
            due = issues.due(connection, now)
        if not due:
            return True
        try:
            _send(app, webhook, issue_message([_issue_view(row, now) for row in due], simulated=app.simulated))
        except SlackError as error:
            log.error("pipeline issues not sent: %s", error)
            with app.warehouse.begin() as connection:
                issues.mark_failed(connection, [row.key for row in due], str(error))
            continue
        with app.warehouse.begin() as connection:
            issues.mark_notified(connection, due, app.clock())
        log.info("pipeline issues sent to %s: %s", webhook.conn_id, ", ".join(row.key for row in due))
        return True
    with app.warehouse.begin() as connection:
        due = issues.due(connection, now)
    for row in due:
        log.error(
            "no channel accepts this pipeline issue (%s): %s. %s %s", row.state, row.title, row.detail, row.action
        )
    return not due


def _issue_webhooks(app: "App") -> list[Webhook]:
    """Return the webhooks that pipeline issues are sent to, their own first."""
    return [webhook for webhook in (app.slack.failures, app.slack.alerts) if webhook is not None]


def _issue_view(row: Row[Any], now: datetime) -> IssueView:
    """Return an issue as a message shows it; what is sent again has the same id."""
    state, since = row.state, row.opened_at
    if state == row.notified_state == "open" and row.notified_at is not None:
        state, since = "reminder", row.notified_at
    key = f"{row.key}@{compact_time(since)}-{state}"
    return IssueView(key, state, row.title, row.detail, row.action, row.link, row.opened_at, now)


def _send(app: "App", webhook: Webhook, message: SlackMessage) -> None:
    """Send a message, as plain text if Slack does not accept its blocks.

    Raises:
        SlackError: Slack did not accept it; a revoked webhook and a Retry-After are stored.
    """
    try:
        try:
            _post(app, webhook, message)
        except MessageRefused as error:
            log.error("%s; it is sent as plain text", error)
            _post(app, webhook, SlackMessage(message.text, []))
    except SlackError as error:
        with app.warehouse.begin() as connection:
            if isinstance(error, WebhookRevoked):
                issues.report(
                    connection,
                    _issue_key(webhook),
                    title=f"Slack refuses the webhook of {webhook.conn_id}",
                    detail=f"{error}.",
                    action=f"Create a webhook in Slack and put it into the connection {webhook.conn_id}. If the old "
                    "one works again, run manage_alerts with the action reenable_webhooks.",
                    at=app.clock(),
                )
            elif error.retry_after is not None:
                retry_at = app.clock() + timedelta(seconds=error.retry_after)
                upsert(connection, schema.rate_limits, [{"name": _limit_name(webhook), "retry_at": retry_at}])
        raise


def _post(app: "App", webhook: Webhook, message: SlackMessage) -> None:
    """Post, and wait on the spot for a short Retry-After."""
    for _ in range(SHORT_WAITS):
        try:
            return webhook.post(message)
        except SlackError as error:
            if error.retry_after is None or error.retry_after > SHORT_WAIT:
                raise
            log.info("%s: HTTP 429, retry in %g s", webhook.conn_id, error.retry_after)
            app.slack.sleep(error.retry_after)
    return webhook.post(message)


def _issue_key(webhook: Webhook) -> str:
    return f"webhook:{webhook.conn_id}:{webhook.fingerprint}"


def _limit_name(webhook: Webhook) -> str:
    return f"slack:{webhook.fingerprint}"


def _is_revoked(connection: Connection, webhook: Webhook) -> bool:
    issue = issues.find(connection, _issue_key(webhook))
    return issue is not None and issue.state == "open"


def _seconds_to_wait(connection: Connection, webhook: Webhook, now: datetime) -> float:
    """Return the rest of a webhook's Retry-After."""
    r = schema.rate_limits.c
    retry_at = connection.execute(select(r.retry_at).where(r.name == _limit_name(webhook))).scalar()
    return max(0.0, (retry_at - now).total_seconds()) if retry_at else 0.0
