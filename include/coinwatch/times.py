"""Times: always aware, always UTC; passed in, never asked for below a task."""

from datetime import UTC, datetime, timedelta

HOUR = timedelta(hours=1)


def parse_time(text: str) -> datetime:
    """Read an ISO 8601 time with a zone (``2026-11-22T10:00:00Z``).

    Raises:
        ValueError: It is no such time, or has no zone.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"time {text!r} has no zone; write for example 2026-11-22T10:00:00Z")
    return moment.astimezone(UTC)


def format_time(moment: datetime) -> str:
    """Write a time as ISO 8601 UTC ending in ``Z``, with milliseconds only where there are some."""
    utc = moment.astimezone(UTC)
    timespec = "milliseconds" if utc.microsecond else "seconds"
    return utc.isoformat(timespec=timespec).replace("+00:00", "Z")


def compact_time(moment: datetime) -> str:
    """Write a time as it stands in file names: ``20261122T100000Z``."""
    return moment.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")


def from_seconds(seconds: int) -> datetime:
    """Read UNIX seconds, which ``/simple/price`` uses."""
    return datetime.fromtimestamp(seconds, UTC)


def from_milliseconds(milliseconds: int) -> datetime:
    """Read UNIX milliseconds, which the history endpoints use; exact, where a float would round."""
    return datetime.fromtimestamp(milliseconds // 1000, UTC) + timedelta(milliseconds=milliseconds % 1000)


def floor_hour(moment: datetime) -> datetime:
    """The full hour at or before a time."""
    return moment.replace(minute=0, second=0, microsecond=0)


def ceil_hour(moment: datetime) -> datetime:
    """The full hour at or after a time."""
    floor = floor_hour(moment)
    return floor if floor == moment else floor + HOUR


def nearest_hour(moment: datetime) -> datetime:
    """The full hour nearest to a time, the earlier one on a tie."""
    floor = floor_hour(moment)
    return floor if moment - floor <= HOUR / 2 else floor + HOUR
