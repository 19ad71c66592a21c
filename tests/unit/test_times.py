from datetime import UTC, datetime, timedelta, timezone

import pytest

from coinwatch.times import (
    ceil_hour,
    floor_hour,
    format_time,
    nearest_hour,
    parse_time,
)

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        pytest.param(TEN, "2026-11-22T10:00:00Z", id="full hour"),
        pytest.param(TEN.replace(microsecond=331000), "2026-11-22T10:00:00.331Z", id="milliseconds"),
        pytest.param(TEN.astimezone(timezone(timedelta(hours=5, minutes=30))), "2026-11-22T10:00:00Z", id="other zone"),
    ],
)
def test_a_time_is_written_in_utc_and_read_back(moment, text):
    assert format_time(moment) == text
    assert parse_time(text) == moment


def test_a_time_without_a_zone_is_refused():
    with pytest.raises(ValueError, match="has no zone"):
        parse_time("2026-11-22T10:00:00")


@pytest.mark.parametrize(
    ("minutes", "floor", "ceil", "nearest"),
    [
        pytest.param(0, 0, 0, 0, id="on the hour"),
        pytest.param(1, 0, 60, 0, id="after the hour"),
        pytest.param(30, 0, 60, 0, id="half past: the earlier one"),
        pytest.param(31, 0, 60, 60, id="before the next hour"),
    ],
)
def test_hours_around_a_time(minutes, floor, ceil, nearest):
    moment = TEN + timedelta(minutes=minutes)
    assert floor_hour(moment) == TEN + timedelta(minutes=floor)
    assert ceil_hour(moment) == TEN + timedelta(minutes=ceil)
    assert nearest_hour(moment) == TEN + timedelta(minutes=nearest)
