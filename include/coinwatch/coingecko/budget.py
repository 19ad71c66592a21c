"""How many requests a month will have cost when it is over, and whether the plan allows that: pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from coinwatch.times import HOUR

PRICES, HISTORY, PING = "prices", "history", "ping"
"""Endpoints, as requests are counted by them."""

DAY = timedelta(days=1)

RECENT = timedelta(days=7)
"""The days that tell how many requests a usual one costs."""

WARN_SHARE = 0.8
"""Part of a month's requests from which on the operators are told."""


@dataclass(frozen=True, slots=True)
class Budget:
    """A month's requests.

    Attributes:
        used: Requests of this month so far.
        forecast: Requests of the whole month, if it goes on as in the last days.
        limit: What the plan allows in a month; none if that is not known.
    """

    used: int
    forecast: int
    limit: int | None

    @property
    def is_short(self) -> bool:
        """Whether the operators should know: four fifths are used, or the month will need more than there is."""
        return self.limit is not None and (self.used >= WARN_SHARE * self.limit or self.forecast > self.limit)

    def __str__(self) -> str:
        """In words, for logs and messages."""
        month = f"{self.used:,} requests to CoinGecko this month, about {self.forecast:,} at its end"
        return f"{month}; {self.limit:,} are allowed" if self.limit is not None else f"{month}; no limit is set"


def month_start(now: datetime) -> datetime:
    """Midnight of the month's first day."""
    return now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def forecast_month(
    counts: Mapping[datetime, Mapping[str, int]], now: datetime, per_hour: int, limit: int | None
) -> Budget:
    """Add up this month's requests, and what the rest of it will need.

    The rest needs at least one pull an hour, and more if the last days did: retries and pulls by hand count as usual.
    Requests for history are not usual: they fill a gap once, so they are counted and not extrapolated.

    Args:
        counts: Midnight → endpoint → requests, of this month and of the 7 days before today.
        now: The present.
        per_hour: Requests that the prices of one hour need.
        limit: Requests that the plan allows in a month.
    """
    start = month_start(now)
    end = month_start(start + 32 * DAY)
    used = sum(sum(endpoints.values()) for day, endpoints in counts.items() if day >= start)
    recent = [endpoints.get(PRICES, 0) for day, endpoints in counts.items() if now - RECENT - DAY < day <= now - DAY]
    hourly = max(float(per_hour), sum(recent) / len(recent) / (DAY / HOUR) if recent else 0.0)
    return Budget(used, used + round(hourly * ((end - now) / HOUR)), limit)
