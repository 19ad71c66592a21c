"""Slack's HTTP: one post to an incoming webhook, and the upload of a chart by a bot."""

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException, InvalidURL
from urllib.parse import urlsplit

from slack_sdk.errors import SlackApiError, SlackClientError, SlackRequestError
from slack_sdk.webhook import WebhookClient, WebhookResponse

from coinwatch.errors import CoinwatchError
from coinwatch.settings import SLACK_API_CONN_ID
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


@dataclass(frozen=True, slots=True)
class Webhook:
    """The incoming webhook of a connection; the client's URL is a secret."""

    conn_id: str
    client: WebhookClient

    @property
    def fingerprint(self) -> str:
        """Identifies the webhook without revealing it."""
        return hashlib.sha256(self.client.url.encode()).hexdigest()[:16]

    def post(self, message: SlackMessage) -> None:
        """Post one message.

        Raises:
            SlackError: Slack did not accept it.
        """
        # The text of each of these errors may contain the URL.
        try:
            response = self.client.send(text=message.text, blocks=message.blocks)
        except (InvalidURL, SlackRequestError, UnicodeEncodeError) as error:
            raise WebhookRefused(
                f"{self.conn_id}: the webhook is not a valid URL ({type(error).__name__}): check the connection's host "
                "and password; messages wait until then"
            ) from None
        except (OSError, HTTPException, UnicodeDecodeError) as error:
            name = type(error).__name__
            raise SlackError(f"{self.conn_id}: no response from Slack ({name}); retried later") from None
        if response.status_code != 200 or response.body.strip() != "ok":
            raise _judge(response, self.conn_id)


@dataclass(frozen=True, slots=True)
class Slack:
    """What of Slack is configured.

    Attributes:
        failures: For pipeline issues; without it, or while it does not work, they go to ``alerts``.
        upload_chart: For a chart of the worst alert of a message: (PNG, title).
    """

    alerts: Webhook | None = None
    failures: Webhook | None = None
    upload_chart: Callable[[bytes, str], None] | None = None
    sleep: Callable[[float], None] = time.sleep


def open_webhook(conn_id: str) -> Webhook:
    """Return the webhook of a connection."""
    from airflow.providers.slack.hooks.slack_webhook import SlackWebhookHook

    hook = SlackWebhookHook(slack_webhook_conn_id=conn_id, timeout=TIMEOUT, retry_handlers=[], logger=_QUIET)
    return Webhook(conn_id, hook.client)


def _judge(response: WebhookResponse, conn_id: str) -> SlackError:
    """Return the error of a response other than "ok"."""
    status = response.status_code
    answer = f"{conn_id}: Slack answered {status} {_without_secret(response)[:200]!r}"
    if status == 200:
        # For example the login page of a network.
        return SlackError(f"{answer} instead of 'ok', so it was not Slack; retried later")
    if status == 429:
        wait = str({name.lower(): value for name, value in response.headers.items()}.get("retry-after", ""))
        return SlackError(f"{answer}; retried later", retry_after=float(wait) if wait.isdecimal() else None)
    if status >= 500:
        return SlackError(f"{answer}; retried later")
    if status in REVOKED:
        return WebhookRevoked(
            f"{answer}: the webhook is revoked. Put a new one into the connection {conn_id}; messages wait until then"
        )
    if status == 400:
        return MessageRefused(f"{answer}: it does not accept this message, which is kept in the warehouse")
    return WebhookRefused(f"{answer}: check the webhook in the connection {conn_id}; messages wait until then")


def _without_secret(response: WebhookResponse) -> str:
    """Return the body without the webhook's path; some error pages repeat it."""
    body = response.body
    path = urlsplit(response.api_url).path
    for secret in (path, path.rsplit("/", 1)[-1]):
        if secret.strip("/"):
            body = body.replace(secret, "***")
    return body


def open_chart_upload(channel: str) -> Callable[[bytes, str], None]:
    """Return a function that uploads a chart with its title to a channel, by the bot of ``slack_api_default``.

    A chart is an extra: a failure is logged and fails nothing.
    """
    from airflow.providers.slack.hooks.slack import SlackHook

    bot = SlackHook(slack_conn_id=SLACK_API_CONN_ID, timeout=TIMEOUT, retry_handlers=[], logger=_QUIET).client

    def upload(png: bytes, title: str) -> None:
        try:
            bot.files_upload_v2(channel=channel, content=png, filename="chart.png", title=title, alt_txt=title)
        except SlackApiError as error:
            answer = error.response.get("error")
            log.warning("chart not uploaded: Slack answered %s; check the connection %s", answer, SLACK_API_CONN_ID)
        except (SlackClientError, OSError, HTTPException, ValueError) as error:
            # The text of some of these contains an upload URL, which is a secret.
            log.warning("chart not uploaded: no response from Slack (%s)", type(error).__name__)

    return upload
