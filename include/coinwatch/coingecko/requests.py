"""Requests to CoinGecko: paced and counted in the warehouse for all workers together, and the month's budget."""

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, select

from coinwatch.coingecko.response_errors import RETRY_AFTER_MAX, RateLimited
from coinwatch.times import HOUR
from coinwatch.warehouse import schema
from coinwatch.warehouse.engine import increment, lock_table, optional_warehouse, upsert

if TYPE_CHECKING:
    from coinwatch.app import App

log = logging.getLogger(__name__)

NAME = "coingecko"
"""Of the row in ``rate_limits``."""

COINS_PER_REQUEST = 250
"""As many as CoinGecko's lists have in one page."""

WAIT_MAX = timedelta(minutes=5)
"""A next request further away than this was set by a wrong clock."""

BACKOFF_MAX = timedelta(seconds=RETRY_AFTER_MAX)

DAY = timedelta(days=1)

RECENT = 7 * DAY
"""The days that the forecast is based on."""

WARN_SHARE = 0.8
"""Part of a month's requests from which on operators are notified."""


class RequestMeter:
    """Paces and counts requests before they are sent: CoinGecko counts errors too."""

    def __init__(
        self,
        open_warehouse: Callable[[], Engine],
        *,
        clock: Callable[[], datetime],
        sleep: Callable[[float], None],
        per_minute: float,
        monthly_limit: int | None = None,
    ) -> None:
        self.monthly_limit = monthly_limit
        self.interval = timedelta(minutes=1) / per_minute
        self._open_warehouse = open_warehouse
        self._clock = clock
        self._sleep = sleep

    def wait_turn(self, endpoint: str) -> None:
        """Count a request and sleep until it may be sent.

        Raises:
            RateLimited: An earlier answer had Retry-After, and that time has not passed; nothing is counted.
        """
        wait = 0.0
        # A price that is not fetched now is lost; a request that is not counted is not.
        consequence = f"{endpoint}: the request is neither counted nor paced"
        with optional_warehouse(consequence), self._open_warehouse().begin() as connection:
            wait = self._reserve(connection, endpoint)
        if wait > 0:
            log.info("%s: next request in %.1f s", endpoint, wait)
            self._sleep(wait)

    def _reserve(self, connection: Connection, endpoint: str) -> float:
        """Return the seconds until the request may be sent."""
        now = self._clock()
        table = schema.rate_limits
        lock_table(connection, table)
        row = connection.execute(select(table).where(table.c.name == NAME)).one_or_none()
        if row is not None and row.retry_at is not None and now < row.retry_at <= now + BACKOFF_MAX:
            seconds = (row.retry_at - now).total_seconds()
            raise RateLimited(f"{endpoint}: CoinGecko rate limit, retry in {seconds:.0f} s", retry_after=seconds)
        turn = now
        if row is not None and row.next_at is not None and row.next_at <= now + WAIT_MAX:
            turn = max(now, row.next_at)
        upsert(connection, table, [{"name": NAME, "next_at": turn + self.interval, "retry_at": None}])
        day = now.replace(hour=0, minute=0, second=0, microsecond=0)
        increment(connection, schema.api_requests, {"day": day, "endpoint": endpoint}, "requests")
        return (turn - now).total_seconds()

    def back_off(self, seconds: float) -> None:
        """Let no worker send a request for some time: CoinGecko counts and refuses every earlier one."""
        until = self._clock() + min(timedelta(seconds=seconds), BACKOFF_MAX)
        with optional_warehouse("other workers do not back off"), self._open_warehouse().begin() as connection:
            upsert(connection, schema.rate_limits, [{"name": NAME, "next_at": until, "retry_at": until}])


@dataclass(frozen=True, slots=True)
class Budget:
    """A month's requests: used so far, forecast for its end, and the plan's limit, None if that is not known."""

    used: int
    forecast: int
    limit: int | None

    @property
    def is_short(self) -> bool:
        """Whether four fifths are used, or the month will need more than the plan allows."""
        return self.limit is not None and (self.used >= WARN_SHARE * self.limit or self.forecast > self.limit)

    def __str__(self) -> str:
        """Return it for logs and messages."""
        month = f"{self.used:,} requests to CoinGecko this month, forecast {self.forecast:,}"
        return f"{month}; the plan allows {self.limit:,}" if self.limit is not None else f"{month}; no limit is set"


def budget(app: "App") -> Budget:
    """Return this month's requests to CoinGecko, used and forecast."""
    now = app.clock()
    with app.warehouse.begin() as connection:
        counts = requests_since(connection, month_start(now) - RECENT - DAY)
    per_hour = -(-len(app.settings.coins) // COINS_PER_REQUEST)
    return forecast_month(counts, now, per_hour, app.client.meter.monthly_limit)


def requests_since(connection: Connection, start: datetime) -> dict[datetime, dict[str, int]]:
    """Return the requests from a day on: midnight → endpoint → count."""
    table = schema.api_requests
    counts: dict[datetime, dict[str, int]] = defaultdict(dict)
    for row in connection.execute(select(table).where(table.c.day >= start).order_by(table.c.day)):
        counts[row.day][row.endpoint] = row.requests
    return dict(counts)


def month_start(now: datetime) -> datetime:
    """Return midnight of the month's first day."""
    return now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def forecast_month(
    counts: Mapping[datetime, Mapping[str, int]], now: datetime, per_hour: int, limit: int | None
) -> Budget:
    """Return a month's budget by the requests of this month and of the 7 days before today.

    The rest of the month has the rate of these days, and at least one poll an hour, of ``per_hour`` requests. Requests
    for history are not extrapolated: they fill a gap once.
    """
    start = month_start(now)
    end = month_start(start + 32 * DAY)
    used = sum(sum(endpoints.values()) for day, endpoints in counts.items() if day >= start)
    recent = [endpoints.get("prices", 0) for day, endpoints in counts.items() if now - RECENT - DAY < day <= now - DAY]
    hourly = max(float(per_hour), sum(recent) / len(recent) / (DAY / HOUR) if recent else 0.0)
    return Budget(used, used + round(hourly * ((end - now) / HOUR)), limit)
