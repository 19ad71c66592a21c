"""The Slack channels: what each accepts now, and how a message is sent through one."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import Connection, select

from coinwatch.health import issues
from coinwatch.settings import FAILURES_CONN_ID, SLACK_CONN_ID
from coinwatch.slack.blocks import SlackMessage
from coinwatch.slack.webhook import (
    ChartUploads,
    MessageRefused,
    SlackError,
    Webhook,
    WebhookRevoked,
    fingerprint,
    post,
)
from coinwatch.warehouse import schema
from coinwatch.warehouse.engine import upsert

if TYPE_CHECKING:
    from coinwatch.app import App

log = logging.getLogger(__name__)

SHORT_WAIT = 5.0
"""Seconds of a Retry-After that are waited on the spot; after a longer one the task is up for retry."""

SHORT_WAITS = 3
"""Waits on the spot for one message."""


@dataclass(frozen=True, slots=True)
class Slack:
    """The channels that are configured.

    Attributes:
        alerts: For market alerts.
        failures: For pipeline issues; without it, or while it does not work, they go to ``alerts``.
        charts: For a chart of the worst alert of a message.
        sleep: Waits for a number of seconds.
    """

    alerts: Webhook | None = None
    failures: Webhook | None = None
    charts: ChartUploads | None = None
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True, slots=True)
class Channel:
    """A webhook and the connection that has it."""

    conn_id: str
    webhook: Webhook

    @property
    def issue_key(self) -> str:
        """Key of the issue that this webhook is revoked."""
        return f"webhook:{self.conn_id}:{fingerprint(self.webhook)}"

    @property
    def limit_name(self) -> str:
        """Row of ``rate_limits`` with its Retry-After."""
        return f"slack:{fingerprint(self.webhook)}"


def issue_channels(slack: Slack) -> list[Channel]:
    """Return the channels that take pipeline issues, their own first."""
    channels = ((FAILURES_CONN_ID, slack.failures), (SLACK_CONN_ID, slack.alerts))
    return [Channel(conn_id, webhook) for conn_id, webhook in channels if webhook is not None]


def live_channels(connection: Connection, channels: Sequence[Channel], now: datetime) -> list[Channel]:
    """Return the channels that are neither revoked nor asked to wait."""
    return [
        channel
        for channel in channels
        if not is_revoked(connection, channel) and not seconds_to_wait(connection, channel, now)
    ]


def send(app: "App", channel: Channel, message: SlackMessage) -> None:
    """Send a message, as plain text if Slack does not accept its blocks.

    Raises:
        SlackError: Slack did not accept it; a revoked webhook and a Retry-After are stored.
    """
    try:
        try:
            _post(app.slack, channel, message)
        except MessageRefused as error:
            log.error("%s; it is sent as plain text", error)
            _post(app.slack, channel, SlackMessage(message.text, []))
    except SlackError as error:
        with app.warehouse.begin() as connection:
            if isinstance(error, WebhookRevoked):
                _report_revoked(connection, channel, error, app.clock())
            elif error.retry_after is not None:
                retry_at = app.clock() + timedelta(seconds=error.retry_after)
                upsert(connection, schema.rate_limits, [{"name": channel.limit_name, "retry_at": retry_at}])
        raise


def _post(slack: Slack, channel: Channel, message: SlackMessage) -> None:
    """Post, and wait on the spot for a short Retry-After."""
    for _ in range(SHORT_WAITS):
        try:
            return post(channel.webhook, message, channel.conn_id)
        except SlackError as error:
            if error.retry_after is None or error.retry_after > SHORT_WAIT:
                raise
            log.info("%s: HTTP 429, retry in %g s", channel.conn_id, error.retry_after)
            slack.sleep(error.retry_after)
    return post(channel.webhook, message, channel.conn_id)


def is_revoked(connection: Connection, channel: Channel) -> bool:
    """Return whether Slack refused a webhook for good."""
    issue = issues.find(connection, channel.issue_key)
    return issue is not None and issue.state == "open"


def seconds_to_wait(connection: Connection, channel: Channel, now: datetime) -> float:
    """Return the rest of a webhook's Retry-After."""
    r = schema.rate_limits.c
    retry_at = connection.execute(select(r.retry_at).where(r.name == channel.limit_name)).scalar()
    return max(0.0, (retry_at - now).total_seconds()) if retry_at else 0.0


def _report_revoked(connection: Connection, channel: Channel, error: WebhookRevoked, now: datetime) -> None:
    issues.report(
        connection,
        channel.issue_key,
        title=f"Slack refuses the webhook of {channel.conn_id}",
        detail=f"{error}.",
        action=f"Create a webhook in Slack and put it into the connection {channel.conn_id}. If the old one works "
        "again, run manage_alerts with the action reenable_webhooks.",
        at=now,
    )


def resolve_replaced(connection: Connection, channels: Sequence[Channel], now: datetime) -> None:
    """Resolve the issues of revoked webhooks that no connection has any more."""
    used = {channel.issue_key for channel in channels}
    for conn_id in (FAILURES_CONN_ID, SLACK_CONN_ID):
        for issue in issues.open_issues(connection, f"webhook:{conn_id}:"):
            if issue.key not in used:
                issues.resolve(connection, issue.key, now, "The connection has another webhook, or was removed.")
