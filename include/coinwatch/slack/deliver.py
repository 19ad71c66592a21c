"""Delivery to Slack: market alerts from the outbox, then the pipeline issues that are due.

One process delivers at a time and marks each message as soon as Slack has accepted it. Only a kill between Slack's "ok"
and the mark sends a message twice, both times with the same ids.
"""

import logging
from datetime import timedelta
from typing import TYPE_CHECKING

from coinwatch.files import locked
from coinwatch.health import issues
from coinwatch.settings import SLACK_CONN_ID
from coinwatch.slack import outbox
from coinwatch.slack.blocks import IssueView, issue_message
from coinwatch.slack.channels import (
    Channel,
    is_revoked,
    issue_channels,
    live_channels,
    resolve_replaced,
    seconds_to_wait,
    send,
)
from coinwatch.slack.render import Batch, batches, issue_view, upload_chart
from coinwatch.slack.webhook import MessageRefused, SlackError, WebhookRevoked, post

if TYPE_CHECKING:
    from coinwatch.app import App

log = logging.getLogger(__name__)

PACE = 1.0
"""Seconds between messages (Slack: about one message a second for each webhook)."""


def send_slack_alerts(app: "App") -> int:
    """Send the market alerts that are due, then the pipeline issues.

    Returns:
        Alerts that were delivered.

    Raises:
        SlackError: Slack did not accept a message; it and those after it stay due. Not raised for a revoked webhook if
            operators were notified of that through the other channel.
    """
    with locked(app.settings.data_dir / "delivery"):
        try:
            delivered = _send_alerts(app)
        except WebhookRevoked as error:
            if not _send_issues(app):
                raise
            log.error("%s. Operators were notified", error)
            return 0
        except SlackError:
            _send_issues(app)
            raise
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
    for channel in issue_channels(app.slack):
        try:
            post(channel.webhook, issue_message([issue], simulated=app.simulated), channel.conn_id)
        except SlackError as error:
            log.error("pipeline issue not posted: %s", error)
        else:
            return True
    return False


def _send_alerts(app: "App") -> int:
    now, max_age = app.clock(), timedelta(hours=app.settings.alert_max_age_hours)
    if app.slack.alerts is None:
        with app.warehouse.begin() as connection:
            outbox.hold(connection, now)
            waiting = len(outbox.due(connection, now - max_age))
            outbox.mark_not_configured(connection)
        hours = max_age / timedelta(hours=1)
        log.warning("no connection %s: %d alerts wait; sent if it exists within %g h", SLACK_CONN_ID, waiting, hours)
        return 0
    channel = Channel(SLACK_CONN_ID, app.slack.alerts)
    with app.warehouse.begin() as connection:
        outbox.hold(connection, now)
        due = outbox.due(connection, now - max_age)
        revoked, wait = is_revoked(connection, channel), seconds_to_wait(connection, channel, now)
        messages = [] if revoked else list(batches(app, connection, due, now - max_age))
    if due and revoked:
        log.warning(
            "%d alerts wait: the webhook of %s is revoked. Put a new one into the connection; if the old one works "
            "again, run manage_alerts with reenable_webhooks",
            len(due),
            SLACK_CONN_ID,
        )
    elif due and wait:
        raise SlackError(f"{SLACK_CONN_ID}: Slack accepts nothing for another {wait:.0f} s", retry_after=wait)
    delivered = 0
    for number, batch in enumerate(messages):
        if number:
            app.slack.sleep(PACE)
        delivered += _send_batch(app, channel, batch)
    return delivered


def _send_batch(app: "App", channel: Channel, batch: Batch) -> int:
    ids = [row.id for row in batch.rows]
    try:
        send(app, channel, batch.message)
    except SlackError as error:
        refused = isinstance(error, MessageRefused)
        with app.warehouse.begin() as connection:
            (outbox.mark_refused if refused else outbox.mark_failed)(connection, ids, str(error))
        if not refused:
            raise
        # One bad message does not hold up those after it.
        log.error("message %s: %s", batch.id, error)
        return 0
    with app.warehouse.begin() as connection:
        outbox.mark_delivered(connection, ids, batch.id, app.clock())
    log.info("delivered to %s: %s", channel.conn_id, ", ".join(ids))
    # After the mark, so that a chart is never the reason for a second message.
    if batch.charted is not None:
        upload_chart(app, batch.charted)
    return len(ids)


def _send_issues(app: "App") -> bool:
    now, channels = app.clock(), issue_channels(app.slack)
    with app.warehouse.begin() as connection:
        resolve_replaced(connection, channels, now)
        channels = live_channels(connection, channels, now)
    for channel in channels:
        # Read for each channel: that the one before is revoked is an issue, too.
        with app.warehouse.begin() as connection:
            due = issues.due(connection, now)
        if not due:
            return True
        try:
            send(app, channel, issue_message([issue_view(row, now) for row in due], simulated=app.simulated))
        except SlackError as error:
            log.error("pipeline issues not sent: %s", error)
            with app.warehouse.begin() as connection:
                issues.mark_failed(connection, [row.key for row in due], str(error))
            continue
        with app.warehouse.begin() as connection:
            issues.mark_notified(connection, due, app.clock())
        log.info("pipeline issues sent to %s: %s", channel.conn_id, ", ".join(row.key for row in due))
        return True
    with app.warehouse.begin() as connection:
        due = issues.due(connection, now)
    for row in due:
        log.error(
            "no channel accepts this pipeline issue (%s): %s. %s %s", row.state, row.title, row.detail, row.action
        )
    return not due
