"""Pictures in Slack, which a webhook cannot take: uploaded by a bot, if there is one."""

import logging
from http.client import HTTPException
from typing import Any, Protocol

from slack_sdk.errors import SlackApiError, SlackClientError

from coinwatch.settings import SLACK_API_CONN_ID

log = logging.getLogger(__name__)

_TIMEOUT = 10


class Bot(Protocol):
    """What is needed of the provider's ``SlackHook.client``."""

    def files_upload_v2(self, *, channel: str, content: bytes, filename: str, title: str, alt_txt: str) -> Any:
        """Upload a file, and show it in a channel."""


class Pictures:
    """A channel that takes pictures.

    Args:
        bot: Uploads them.
        channel: The channel's id, such as C0123456789.
    """

    def __init__(self, bot: Bot, channel: str) -> None:
        self._bot = bot
        self._channel = channel

    def show(self, content: bytes, title: str) -> bool:
        """Upload a PNG. It is an extra: that it cannot be shown is logged and is no failure.

        Returns:
            Whether Slack took it.
        """
        try:
            self._bot.files_upload_v2(
                channel=self._channel, content=content, filename="chart.png", title=title, alt_txt=title
            )
        except SlackApiError as error:
            said = error.response.get("error")
            log.warning("the picture is not shown: Slack says %s. Check the connection %s", said, SLACK_API_CONN_ID)
        except (SlackClientError, OSError, HTTPException, ValueError) as error:
            # The text of some of these holds an address that is a secret for a while.
            log.warning("the picture is not shown: Slack cannot be reached (%s)", type(error).__name__)
        else:
            return True
        return False


def open_pictures(channel: str, conn_id: str = SLACK_API_CONN_ID) -> Pictures:
    """The bot of the connection, by the provider's hook."""
    from airflow.providers.slack.hooks.slack import SlackHook

    # As for the webhook: what slack_sdk logs is told by our own messages, without what is secret in it.
    quiet = logging.getLogger(f"{__name__}.sdk")
    quiet.setLevel(logging.CRITICAL + 1)
    hook = SlackHook(slack_conn_id=conn_id, timeout=_TIMEOUT, retry_handlers=[], logger=quiet)
    bot: Bot = hook.client
    return Pictures(bot, channel)
