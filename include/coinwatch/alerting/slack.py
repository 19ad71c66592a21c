"""Delivery to Slack: each stored alert once, and none lost."""

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol
from urllib.parse import quote

from sqlalchemy import Engine, Row

from coinwatch.alerting import messages, outbox
from coinwatch.alerting.messages import SlackMessage
from coinwatch.errors import CoinwatchError
from coinwatch.settings import SLACK_CONN_ID

log = logging.getLogger(__name__)

TIMEOUT = 10
"""Seconds for Slack to answer."""


class SlackError(CoinwatchError):
    """Slack did not take a message; nothing of it says where the webhook is, which is a secret."""


class WebhookRefused(SlackError):
    """The webhook is wrong, was revoked, or its channel is gone."""

    retryable = False


class Webhook(Protocol):
    """What is needed of the provider's ``SlackWebhookHook.client``."""

    def send(self, *, text: str, blocks: list[dict[str, Any]]) -> Any:
        """Post a message."""


def open_webhook(conn_id: str = SLACK_CONN_ID) -> Webhook:
    """The webhook of the connection, by the provider's hook."""
    from airflow.providers.slack.hooks.slack_webhook import SlackWebhookHook

    # slack_sdk logs the whole webhook URL, at INFO when it retries and at DEBUG always: neither happens here.
    quiet = logging.getLogger(f"{__name__}.sdk")
    quiet.setLevel(logging.WARNING)
    hook = SlackWebhookHook(slack_webhook_conn_id=conn_id, timeout=TIMEOUT, retry_handlers=[], logger=quiet)
    webhook: Webhook = hook.client
    return webhook


def post(webhook: Webhook, message: SlackMessage) -> None:
    """Post one message.

    Raises:
        SlackError: Slack did not take it.
    """
    # Outside of try: what the SDK raises for a wrong argument is a bug of ours.
    text, blocks = message.text, message.blocks
    try:
        response = webhook.send(text=text, blocks=blocks)
    except OSError as error:
        # Everything that the network can do to it, timeouts included; its text may hold the URL.
        raise SlackError(
            f"Slack cannot be reached ({type(error).__name__}); the alerts are kept, and sent again later"
        ) from None
    if response.status_code == 200:
        return
    said = f"Slack answered {response.status_code} {str(response.body)[:200]!r}"
    if response.status_code == 429:
        wait = str({name.lower(): value for name, value in response.headers.items()}.get("retry-after", ""))
        raise SlackError(
            f"{said}; the alerts are kept, and sent again later", retry_after=float(wait) if wait.isdecimal() else None
        )
    if response.status_code >= 500:
        raise SlackError(f"{said}; the alerts are kept, and sent again later")
    raise WebhookRefused(
        f"{said}: it will not take these messages. Check the webhook in the connection {SLACK_CONN_ID}; the alerts are "
        "kept and sent by the first run after it is mended"
    )


def deliver(
    engine: Engine, webhook: Webhook | None, clock: Callable[[], datetime], base_url: str, *, simulated: bool
) -> int:
    """Send every alert that has not been delivered, oldest first, and note each as soon as Slack has taken it.

    Args:
        engine: The warehouse.
        webhook: None if Slack is not configured: the alerts stay, and say so.
        clock: Tells the time.
        base_url: Where Airflow's pages are, for links.
        simulated: Whether the prices come from the sandbox.

    Returns:
        Alerts that were delivered.

    Raises:
        SlackError: Slack did not take one; that and those after it stay.
    """
    with engine.begin() as connection:
        waiting = outbox.undelivered(connection)
        if webhook is None:
            outbox.mark_not_configured(connection)
    if webhook is None:
        log.warning(
            "no connection %s: %d alerts are stored and wait; they are sent once the connection exists",
            SLACK_CONN_ID,
            len(waiting),
        )
        return 0
    for alert in waiting:
        try:
            post(webhook, _message(alert, base_url, simulated=simulated))
        except SlackError as error:
            with engine.begin() as connection:
                outbox.mark_failed(connection, alert.id, str(error))
            raise
        with engine.begin() as connection:
            outbox.mark_delivered(connection, alert.id, clock())
        log.info("alert %s delivered to Slack", alert.id)
    return len(waiting)


def _message(alert: Row[Any], base_url: str, *, simulated: bool) -> SlackMessage:
    return messages.slack_message(
        alert_id=alert.id,
        rule=alert.rule,
        severity=alert.severity,
        message=alert.message,
        threshold_pct=alert.threshold,
        ts=alert.ts,
        run_url=f"{base_url.rstrip('/')}/dags/process_prices/runs/{quote(alert.run_id, safe='')}",
        simulated=simulated,
    )
