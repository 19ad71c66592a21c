"""Requests to CoinGecko, counted and kept apart by all workers together: its plans limit both minute and month."""

import logging
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine, select
from sqlalchemy.exc import OperationalError

from coinwatch.coingecko.budget import DAY, RECENT, Budget, forecast_month, month_start
from coinwatch.warehouse import schema
from coinwatch.warehouse.engine import increment, lock_table, upsert

log = logging.getLogger(__name__)

API = "coingecko"

WAIT_MAX = timedelta(minutes=5)
"""No turn is further away than this; if one seems to be, a clock was wrong when it was given."""

CLOSED_MAX = timedelta(hours=1)
"""No answer has asked to wait so long; a longer wait is cut, because one wrong header must not stop all hours."""


class RequestMeter:
    """Gives each request its turn, and counts it before it is sent: CoinGecko counts errors too.

    Attributes:
        interval: Least time between two requests.
        monthly_limit: Requests that the plan allows in a month; none if that is not known.
    """

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

    def admit(self, endpoint: str) -> float:
        """Wait for the turn of a request, and count it.

        Args:
            endpoint: What it asks for, by which the warehouse counts.

        Returns:
            0, or the seconds for which nobody may ask, because CoinGecko has asked to wait; then nothing was counted.
        """
        try:
            with self._open_warehouse().begin() as connection:
                closed, turn = self._take_turn(connection, endpoint)
        except OperationalError as error:
            # A price that is not fetched now is lost; a request that is not counted is not.
            log.error(
                "the warehouse cannot be reached (%s): this request is neither counted nor kept apart from those of "
                "other workers. Check the connection warehouse_default",
                error.orig,
            )
            return 0
        if closed:
            return closed
        wait = (turn - self._clock()).total_seconds()
        if wait > 0:
            log.info("waiting %.1f s for the turn of this request", wait)
            self._sleep(wait)
        return 0

    def _take_turn(self, connection: Connection, endpoint: str) -> tuple[float, datetime]:
        now = self._clock()
        table = schema.api_turns
        lock_table(connection, table)
        state = connection.execute(select(table).where(table.c.api == API)).one_or_none()
        if state is not None and state.closed_until is not None and now < state.closed_until <= now + CLOSED_MAX:
            return (state.closed_until - now).total_seconds(), now
        turn = now
        if state is not None and state.next_at <= now + WAIT_MAX:
            turn = max(now, state.next_at)
        upsert(connection, table, [{"api": API, "next_at": turn + self.interval, "closed_until": None}])
        day = now.replace(hour=0, minute=0, second=0, microsecond=0)
        increment(connection, schema.api_requests, {"day": day, "endpoint": endpoint}, "requests")
        return 0, turn

    def hold_off(self, seconds: float) -> None:
        """Let nobody ask for some time: an answer said so, and every request before that counts and is refused."""
        until = self._clock() + min(timedelta(seconds=seconds), CLOSED_MAX)
        try:
            with self._open_warehouse().begin() as connection:
                upsert(connection, schema.api_turns, [{"api": API, "next_at": until, "closed_until": until}])
        except OperationalError as error:
            log.error("the warehouse cannot be reached (%s): other workers are not told to wait", error.orig)

    def budget(self, per_hour: int) -> Budget:
        """What this month has cost so far, and what it will have cost at its end.

        Args:
            per_hour: Requests that the prices of one hour need.
        """
        now = self._clock()
        with self._open_warehouse().begin() as connection:
            counts = requests_since(connection, month_start(now) - RECENT - DAY)
        return forecast_month(counts, now, per_hour, self.monthly_limit)


def requests_since(connection: Connection, start: datetime) -> dict[datetime, dict[str, int]]:
    """Requests from a day on: midnight → endpoint → how many."""
    table = schema.api_requests
    counts: dict[datetime, dict[str, int]] = defaultdict(dict)
    for row in connection.execute(select(table).where(table.c.day >= start).order_by(table.c.day)):
        counts[row.day][row.endpoint] = row.requests
    return dict(counts)
