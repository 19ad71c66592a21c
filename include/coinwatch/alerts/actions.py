"""The steps of `manage_alerts`: what a person says to alerts and troubles."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine

from coinwatch.alerts.incidents import open_incidents
from coinwatch.alerts.silences import ALL, acknowledge, active_silences, silence, unsilence
from coinwatch.errors import InvalidAction
from coinwatch.health.troubles import open_troubles
from coinwatch.settings import Settings
from coinwatch.slack.webhooks import revive
from coinwatch.times import parse_time

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Operator:
    """The collaborators of the steps.

    Attributes:
        settings: What the environment decides.
        warehouse: Where alerts and troubles are stored.
        clock: Tells the time.
    """

    settings: Settings
    warehouse: Engine
    clock: Callable[[], datetime]

    def carry_out(self, params: Mapping[str, Any]) -> str:
        """Do what the params of the run say.

        Args:
            params: ``action`` (silence, unsilence, acknowledge or revive_webhooks), ``coin``, ``rule``, ``until`` or
                ``hours``, and ``reason``.

        Returns:
            What was done, in words.

        Raises:
            InvalidAction: It cannot be done.
        """
        coin, rule = params["coin"].strip() or ALL, params["rule"].strip() or ALL
        actions: dict[str, Callable[[Connection], str]] = {
            "silence": lambda connection: self._silence(connection, coin, rule, params),
            "unsilence": lambda connection: self._unsilence(connection, coin, rule),
            "acknowledge": lambda connection: self._acknowledge(connection, coin, rule, params),
            "revive_webhooks": lambda connection: f"{revive(connection)} dead webhooks are tried again",
        }
        if params["action"] not in actions:
            raise InvalidAction(f"action {params['action']!r} is not known; known are {', '.join(actions)}")
        with self.warehouse.begin() as connection:
            done = actions[params["action"]](connection)
        log.info("%s", done)
        return done

    def _silence(self, connection: Connection, coin: str, rule: str, params: Mapping[str, Any]) -> str:
        now, reason = self.clock(), params["reason"].strip()
        if not reason:
            raise InvalidAction("a silence needs a reason, for those who wonder about it later")
        try:
            until = parse_time(params["until"]) if params["until"] else now + timedelta(hours=params["hours"])
            silence(connection, coin=coin, rule=rule, until=until, reason=reason, at=now)
        except ValueError as error:
            raise InvalidAction(f"until: {error}") from None
        return f"silent until {until:%Y-%m-%d %H:%M} UTC: coin {coin}, rule {rule} ({reason})"

    @staticmethod
    def _unsilence(connection: Connection, coin: str, rule: str) -> str:
        if unsilence(connection, coin=coin, rule=rule):
            return f"not silent any more: coin {coin}, rule {rule}"
        raise InvalidAction(
            f"there is no silence with coin {coin} and rule {rule}. There is {_all_silences(connection)}"
        )

    def _acknowledge(self, connection: Connection, coin: str, rule: str, params: Mapping[str, Any]) -> str:
        reason = params["reason"].strip()
        if not reason:
            raise InvalidAction("an acknowledgement needs a reason: who looks after it, for example")
        incidents = open_incidents(connection)
        troubles = open_troubles(connection)
        subjects = [row.id for row in incidents if coin in (ALL, row.coin) and rule in (ALL, row.rule)] + [
            row.id for row in troubles if rule == row.key
        ]
        if not subjects:
            there = [f"{row.coin} {row.rule}" for row in incidents] + [row.key for row in troubles]
            raise InvalidAction(
                f"nothing is open with coin {coin} and rule {rule}. Open are {', '.join(there) or 'no incidents'}"
            )
        acknowledge(connection, subjects, reason, self.clock())
        return f"acknowledged ({reason}): {', '.join(subjects)}"


def _all_silences(connection: Connection) -> str:
    # Far in the past all silences that were ever set still hold.
    silences = active_silences(connection, datetime.min.replace(tzinfo=UTC))
    return "; ".join(f"coin {row.coin}, rule {row.rule}" for row in silences) or "none at all"
