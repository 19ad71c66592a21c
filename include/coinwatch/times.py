"""Times: always aware, always UTC; below a task the present is passed in."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache

HOUR = timedelta(hours=1)


@lru_cache(maxsize=32_768)
def parse_time(text: str) -> datetime:
    """Read an ISO 8601 time with a zone (``2026-11-22T10:00:00Z``).

    Raises:
        ValueError: It is not one, or has no zone.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"time {text!r} has no zone; write for example 2026-11-22T10:00:00Z")
    return moment.astimezone(UTC)


@lru_cache(maxsize=32_768)
def format_time(moment: datetime) -> str:
    """Return a time as ISO 8601 UTC ending in ``Z``, with milliseconds only where there are some."""
    utc = moment.astimezone(UTC)
    timespec = "milliseconds" if utc.microsecond else "seconds"
    return utc.isoformat(timespec=timespec).replace("+00:00", "Z")


def compact_time(moment: datetime) -> str:
    """Return a time as file names have it: ``20261122T100000Z``."""
    return moment.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")


def from_seconds(seconds: int) -> datetime:
    """Read UNIX seconds, which ``/simple/price`` uses."""
    return datetime.fromtimestamp(seconds, UTC)


def from_milliseconds(milliseconds: int) -> datetime:
    """Read UNIX milliseconds, which the history endpoints use; exact, where a float would round."""
    return datetime.fromtimestamp(milliseconds // 1000, UTC) + timedelta(milliseconds=milliseconds % 1000)


def floor_hour(moment: datetime) -> datetime:
    """Return the full hour at or before a time."""
    return moment.replace(minute=0, second=0, microsecond=0)


def ceil_hour(moment: datetime) -> datetime:
    """Return the full hour at or after a time."""
    floor = floor_hour(moment)
    return floor if floor == moment else floor + HOUR


def nearest_hour(moment: datetime) -> datetime:
    """Return the full hour nearest to a time, the earlier one on a tie."""
    floor = floor_hour(moment)
    return floor if moment - floor <= HOUR / 2 else floor + HOUR


def hours_between(first: datetime, last: datetime) -> list[datetime]:
    """Return the full hours from one to another, both included."""
    return [first + HOUR * number for number in range((last - first) // HOUR + 1)]


def hours_from(earlier: datetime, later: datetime) -> float:
    """Return the hours from one time to another."""
    return (later - earlier) / HOUR
