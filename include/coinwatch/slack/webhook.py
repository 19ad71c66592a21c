"""Slack's HTTP: one post to an incoming webhook, and the upload of a chart by a bot."""

import hashlib
import logging
from http.client import HTTPException, InvalidURL
from typing import Any, Protocol
from urllib.parse import urlsplit

from slack_sdk.errors import SlackApiError, SlackClientError, SlackRequestError

from coinwatch.errors import CoinwatchError
from coinwatch.settings import SLACK_API_CONN_ID, SLACK_CONN_ID
from coinwatch.slack.blocks import SlackMessage

log = logging.getLogger(__name__)

TIMEOUT = 10
"""Seconds for Slack to answer."""

REVOKED = (403, 404, 410)
"""Statuses of a webhook that was revoked, or whose channel is archived or gone."""

# slack_sdk logs the whole webhook URL when it retries, at DEBUG, and with some errors.
_QUIET = logging.getLogger(f"{__name__}.sdk")
_QUIET.setLevel(logging.CRITICAL + 1)


class SlackError(CoinwatchError):
    """Slack did not accept a message; the text never contains the webhook, which is a secret."""


class WebhookRefused(SlackError):
    """The webhook is wrong: an operator has to act."""

    retryable = False


class WebhookRevoked(WebhookRefused):
    """The webhook was revoked, or its channel is gone: nothing is posted to it any more."""


class MessageRefused(WebhookRefused):
    """Slack does not accept this message; it may accept others."""


class Webhook(Protocol):
    """The provider's ``SlackWebhookHook.client``; ``url`` is a secret."""

    url: str

    def send(self, *, text: str, blocks: list[dict[str, Any]]) -> Any:
        """Post a message."""


class Bot(Protocol):
    """The provider's ``SlackHook.client``."""

    def files_upload_v2(self, *, channel: str, content: bytes, filename: str, title: str, alt_txt: str) -> Any:
        """Upload a file, and show it in a channel."""


def open_webhook(conn_id: str = SLACK_CONN_ID) -> Webhook:
    """Return the webhook of a connection."""
    from airflow.providers.slack.hooks.slack_webhook import SlackWebhookHook

    hook = SlackWebhookHook(slack_webhook_conn_id=conn_id, timeout=TIMEOUT, retry_handlers=[], logger=_QUIET)
    webhook: Webhook = hook.client
    return webhook


def fingerprint(webhook: Webhook) -> str:
    """Return what identifies a webhook without revealing it."""
    return hashlib.sha256(webhook.url.encode()).hexdigest()[:16]


def post(webhook: Webhook, message: SlackMessage, conn_id: str = SLACK_CONN_ID) -> None:
    """Post one message.

    Args:
        webhook: Where to.
        message: What.
        conn_id: The webhook's connection, named in errors.

    Raises:
        SlackError: Slack did not accept it.
    """
    # The text of each of these errors may contain the URL.
    try:
        response = webhook.send(text=message.text, blocks=message.blocks)
    except (InvalidURL, SlackRequestError, UnicodeEncodeError) as error:
        raise WebhookRefused(
            f"{conn_id}: the webhook is not a valid URL ({type(error).__name__}): check the connection's host and "
            "password; messages wait until then"
        ) from None
    except (OSError, HTTPException, UnicodeDecodeError) as error:
        raise SlackError(f"{conn_id}: no response from Slack ({type(error).__name__}); sent again later") from None
    if response.status_code == 200 and response.body.strip() == "ok":
        return
    raise _judge(response, conn_id)


def _judge(response: Any, conn_id: str) -> SlackError:
    """Return the error of a response other than "ok"."""
    status = response.status_code
    answer = f"{conn_id}: Slack answered {status} {_without_secret(response)[:200]!r}"
    if status == 200:
        # For example the login page of a network.
        return SlackError(f"{answer} instead of 'ok', so it was not Slack; sent again later")
    if status == 429:
        wait = str({name.lower(): value for name, value in response.headers.items()}.get("retry-after", ""))
        return SlackError(f"{answer}; sent again later", retry_after=float(wait) if wait.isdecimal() else None)
    if status >= 500:
        return SlackError(f"{answer}; sent again later")
    if status in REVOKED:
        return WebhookRevoked(
            f"{answer}: the webhook is revoked. Put a new one into the connection {conn_id}; messages wait until then"
        )
    if status == 400:
        return MessageRefused(f"{answer}: it does not accept this message, which is kept in the warehouse")
    return WebhookRefused(f"{answer}: check the webhook in the connection {conn_id}; messages wait until then")


def _without_secret(response: Any) -> str:
    """Return the body without the webhook's path; some error pages repeat it."""
    body: str = response.body
    path = urlsplit(response.api_url).path
    for secret in (path, path.rsplit("/", 1)[-1]):
        if secret.strip("/"):
            body = body.replace(secret, "***")
    return body


class ChartUploads:
    """A channel that shows charts, which a webhook cannot upload.

    Args:
        bot: Uploads them.
        channel: The channel's id, such as C0123456789.
    """

    def __init__(self, bot: Bot, channel: str) -> None:
        self._bot = bot
        self._channel = channel

    def upload(self, png: bytes, title: str) -> None:
        """Upload a chart. It is an extra: a failure is logged and fails nothing."""
        try:
            self._bot.files_upload_v2(
                channel=self._channel, content=png, filename="chart.png", title=title, alt_txt=title
            )
        except SlackApiError as error:
            answer = error.response.get("error")
            log.warning("chart not uploaded: Slack answered %s; check the connection %s", answer, SLACK_API_CONN_ID)
        except (SlackClientError, OSError, HTTPException, ValueError) as error:
            # The text of some of these contains an upload URL, which is a secret.
            log.warning("chart not uploaded: no response from Slack (%s)", type(error).__name__)


def open_chart_uploads(channel: str, conn_id: str = SLACK_API_CONN_ID) -> ChartUploads:
    """Return the uploads by the bot of a connection."""
    from airflow.providers.slack.hooks.slack import SlackHook

    hook = SlackHook(slack_conn_id=conn_id, timeout=TIMEOUT, retry_handlers=[], logger=_QUIET)
    bot: Bot = hook.client
    return ChartUploads(bot, channel)
