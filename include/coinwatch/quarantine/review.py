"""The steps of `review_quarantine`: what a person decides of values that were held back."""

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, Row

from coinwatch.alerts.silences import ALL
from coinwatch.errors import WrongOrder
from coinwatch.quarantine.held import held_values, reject, release
from coinwatch.settings import Settings
from coinwatch.times import format_time, parse_time
from coinwatch.warehouse.load import accept_prices

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Review:
    """The collaborators of the step.

    Attributes:
        settings: What the environment decides.
        warehouse: Where prices and the quarantine are.
        clock: Tells the time.
    """

    settings: Settings
    warehouse: Engine
    clock: Callable[[], datetime]

    def decide(self, params: Mapping[str, Any], run_id: str) -> dict[str, list[str]]:
        """List what is held back, release it, or reject it.

        Args:
            params: ``action`` (list, release or reject), ``coin`` and ``ts`` (``*``: all), ``reason``.
            run_id: The run, which the decision names.

        Returns:
            The times of the values that are prices by now, by coin.

        Raises:
            WrongOrder: There is no such value, or it can be no price.
        """
        action, coin, ts = params["action"], params["coin"].strip() or ALL, (params["ts"] or "").strip() or ALL
        released: dict[str, list[str]] = defaultdict(list)
        with self.warehouse.begin() as connection:
            held = held_values(connection, self.settings.currency)
            for value in held:
                log.info("held back: %s", _told(value))
            if action == "list":
                log.info("%d values are held back", len(held))
                return {}
            if coin == ALL and ts == ALL and action == "release":
                raise WrongOrder("release needs a coin or a time: not everything that is held back is right")
            chosen = [value for value in held if coin in (ALL, value.coin) and ts in (ALL, _time(value))]
            if ts != ALL and not chosen:
                self._check_time(ts)
            if not chosen:
                there = "; ".join(map(_told, held[:20])) or "nothing"
                raise WrongOrder(f"no value of {coin} at {ts} is held back. There is: {there}")
            by, now = f"operator: {params['reason'] or 'no reason given'} ({run_id})", self.clock()
            for value in chosen:
                key = (value.coin, value.currency, value.ts, value.source)
                if action == "reject":
                    reject(connection, *key, by, now)
                    continue
                row = release(connection, *key, by, now)
                if row is None:
                    raise WrongOrder(
                        f"{value.value} of {value.coin} at {_time(value)} can be no price; reject it instead"
                    )
                accept_prices(connection, [row])
                released[value.coin].append(row.timestamp)
        for value in chosen:
            log.warning("%s: %s, by %s", "rejected" if action == "reject" else "released", _told(value), by)
        return dict(released)

    @staticmethod
    def _check_time(text: str) -> None:
        try:
            parse_time(text)
        except ValueError as error:
            raise WrongOrder(f"{text!r} is no time ({error}); write it as the list has it") from None


def _time(value: Row[Any]) -> str:
    return format_time(value.ts)


def _told(value: Row[Any]) -> str:
    return f"{value.coin} {_time(value)} ({value.source}): {value.value}; {value.reason}; snapshot {value.snapshot}"
