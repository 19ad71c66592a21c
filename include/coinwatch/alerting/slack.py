"""Delivery to Slack: each stored alert once, and none lost."""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from http.client import HTTPException, InvalidURL
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

from slack_sdk.errors import SlackRequestError
from sqlalchemy import Engine, Row

from coinwatch.alerting import messages, outbox
from coinwatch.alerting.messages import SlackMessage
from coinwatch.errors import CoinwatchError
from coinwatch.settings import SLACK_CONN_ID

log = logging.getLogger(__name__)

TIMEOUT = 10
"""Seconds for Slack to answer."""

OF_INTEREST = timedelta(hours=24)
"""Once there is a Slack, it gets the alerts about prices no older than this that were raised while there was none."""


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

    # slack_sdk logs the whole webhook URL: when it retries, at DEBUG, and with some errors. It has nothing to say that
    # our own errors do not.
    quiet = logging.getLogger(f"{__name__}.sdk")
    quiet.setLevel(logging.CRITICAL + 1)
    hook = SlackWebhookHook(slack_webhook_conn_id=conn_id, timeout=TIMEOUT, retry_handlers=[], logger=quiet)
    webhook: Webhook = hook.client
    return webhook


def post(webhook: Webhook, message: SlackMessage) -> None:
    """Post one message.

    Raises:
        SlackError: Slack did not take it.
    """
    # The text of each of these may hold the URL.
    try:
        response = webhook.send(text=message.text, blocks=message.blocks)
    except (InvalidURL, SlackRequestError, UnicodeEncodeError) as error:
        raise WebhookRefused(
            f"the webhook is no URL that can be asked ({type(error).__name__}). Check host and password of the "
            f"connection {SLACK_CONN_ID}; the alerts are kept and sent by the first run after it is mended"
        ) from None
    except (OSError, HTTPException, UnicodeDecodeError) as error:
        # Everything that the network can do to it: timeouts, answers that broke off or are no text.
        raise SlackError(
            f"Slack cannot be reached ({type(error).__name__}); the alerts are kept, and sent again later"
        ) from None
    if response.status_code == 200 and response.body.strip() == "ok":
        return
    said = f"Slack answered {response.status_code} {_without_secret(response)[:200]!r}"
    if response.status_code == 200:
        # Something on the way, such as the login page of a network, answered in Slack's place.
        raise SlackError(f"{said} and not 'ok', so it was not Slack; the alerts are kept, and sent again later")
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


def _without_secret(response: Any) -> str:
    """What was answered; some error pages repeat the address."""
    body: str = response.body
    path = urlsplit(response.api_url).path
    for secret in (path, path.rsplit("/", 1)[-1]):
        if secret.strip("/"):
            body = body.replace(secret, "***")
    return body


def deliver(
    engine: Engine, webhook: Webhook | None, clock: Callable[[], datetime], base_url: str, *, simulated: bool
) -> int:
    """Send every alert that has not been delivered, oldest first, and note each as soon as Slack has taken it.

    Args:
        engine: The warehouse.
        webhook: None if Slack is not configured: the alerts stay, and say so. Once it is, those that are no longer of
            interest stay for good.
        clock: Tells the time.
        base_url: Where Airflow's pages are, for links.
        simulated: Whether the prices come from the sandbox.

    Returns:
        Alerts that were delivered.

    Raises:
        SlackError: Slack did not take one; that and those after it stay.
    """
    with engine.begin() as connection:
        waiting = outbox.undelivered(connection, clock() - OF_INTEREST)
        if webhook is None:
            outbox.mark_not_configured(connection)
    if webhook is None:
        log.warning(
            "no connection %s: %d alerts are stored and wait; they are sent if the connection exists within %d hours",
            SLACK_CONN_ID,
            len(waiting),
            OF_INTEREST // timedelta(hours=1),
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
