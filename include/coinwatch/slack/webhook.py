"""Slack's incoming webhooks: one post, and what became of it."""

import logging
from http.client import HTTPException, InvalidURL
from typing import Any, Protocol
from urllib.parse import urlsplit

from slack_sdk.errors import SlackRequestError

from coinwatch.errors import CoinwatchError
from coinwatch.settings import SLACK_CONN_ID
from coinwatch.slack.messages import SlackMessage

TIMEOUT = 10
"""Seconds for Slack to answer."""

DEAD = (403, 404, 410)
"""Answers of a webhook that was revoked, or whose channel is gone or closed to it: nothing that it gets is shown."""

KEPT = "the alerts are kept, and sent again later"


class SlackError(CoinwatchError):
    """Slack did not take a message; nothing of it says where the webhook is, which is a secret."""


class WebhookRefused(SlackError):
    """The webhook is wrong: somebody has to act."""

    retryable = False


class WebhookDead(WebhookRefused):
    """The webhook was revoked, or its channel is gone: nothing is to be posted to it any more."""


class MessageRefused(WebhookRefused):
    """Slack does not understand this message; others it may take."""


class Webhook(Protocol):
    """What is needed of the provider's ``SlackWebhookHook.client``.

    Attributes:
        url: Where it is; a secret.
    """

    url: str

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


def post(webhook: Webhook, message: SlackMessage, conn_id: str = SLACK_CONN_ID) -> None:
    """Post one message.

    Args:
        webhook: Where to.
        message: What.
        conn_id: The webhook's connection, for what is told of a failure.

    Raises:
        SlackError: Slack did not take it.
    """
    # The text of each of these may hold the URL.
    try:
        response = webhook.send(text=message.text, blocks=message.blocks)
    except (InvalidURL, SlackRequestError, UnicodeEncodeError) as error:
        raise WebhookRefused(
            f"the webhook is no URL that can be asked ({type(error).__name__}). Check host and password of the "
            f"connection {conn_id}; the alerts are kept and sent by the first run after it is mended"
        ) from None
    except (OSError, HTTPException, UnicodeDecodeError) as error:
        # Everything that the network can do to it: timeouts, answers that broke off or are no text.
        raise SlackError(f"Slack cannot be reached ({type(error).__name__}); {KEPT}") from None
    if response.status_code == 200 and response.body.strip() == "ok":
        return
    raise _failure(response, conn_id)


def _failure(response: Any, conn_id: str) -> SlackError:
    """What an answer other than "ok" means."""
    status = response.status_code
    said = f"Slack answered {status} {_without_secret(response)[:200]!r}"
    if status == 200:
        # Something on the way, such as the login page of a network, answered in Slack's place.
        return SlackError(f"{said} and not 'ok', so it was not Slack; {KEPT}")
    if status == 429:
        wait = str({name.lower(): value for name, value in response.headers.items()}.get("retry-after", ""))
        return SlackError(f"{said}; {KEPT}", retry_after=float(wait) if wait.isdecimal() else None)
    if status >= 500:
        return SlackError(f"{said}; {KEPT}")
    mend = "the alerts are kept and sent by the first run after it is mended"
    if status in DEAD:
        return WebhookDead(
            f"{said}: the webhook is dead, and gets nothing more. Put a new one into the connection {conn_id}; {mend}"
        )
    if status == 400:
        return MessageRefused(f"{said}: it does not take this message, which is kept in the warehouse")
    return WebhookRefused(
        f"{said}: it will not take these messages. Check the webhook in the connection {conn_id}; {mend}"
    )


def _without_secret(response: Any) -> str:
    """What was answered; some error pages repeat the address."""
    body: str = response.body
    path = urlsplit(response.api_url).path
    for secret in (path, path.rsplit("/", 1)[-1]):
        if secret.strip("/"):
            body = body.replace(secret, "***")
    return body
