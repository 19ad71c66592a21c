from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coinwatch.ingest import gaps
from coinwatch.ingest.gaps import change_hours, due_gaps, find_gaps, missing_runs
from coinwatch.ingest.poll import append_raw_log, fetch_prices
from coinwatch.times import hours_between
from coinwatch.warehouse.load import load_raw_prices

HOUR = timedelta(hours=1)
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def before_noon(first, last):
    """First and last hour of a gap, so many hours before noon."""
    return NOON - first * HOUR, NOON - last * HOUR


def poll(world, as_of):
    append_raw_log(world.app(), fetch_prices(world.app(), as_of))


def rows(world, *columns):
    return [tuple(row) for row in world.rows("gaps", *columns)]


def spans(world):
    return rows(world, "first_hour", "last_hour", "state")


def change(world, hours, how):
    with world.warehouse().begin() as connection:
        change_hours(connection, "bitcoin", "usd", set(hours), how)


@pytest.fixture
def polled(make_world, clock):
    """Prices of 8, 9 and 12 o'clock, with a history of two days, all checked."""
    world = make_world(history_days=2)
    for hour in (8, 9, 12):
        clock.now = NOON.replace(hour=hour)
        poll(world, clock.now)
        find_gaps(world.app(), clock.now)
    return world


def test_a_first_start_stores_a_row_for_each_coin_and_not_for_each_hour(make_world):
    world = make_world(coins=("bitcoin", "ethereum"), history_days=90)
    assert find_gaps(world.app(), NOON) == {"coins": 2, "hours": 2 * 90 * 24}
    assert rows(world, "coin", "first_hour", "last_hour", "state", "tries") == [
        (coin, *before_noon(90 * 24, 1), "open", 0) for coin in ("bitcoin", "ethereum")
    ]


def test_only_hours_that_are_missing_become_gaps(polled, clock):
    clock.now = NOON + HOUR
    assert find_gaps(polled.app(), clock.now) == {"coins": 1, "hours": 45}
    assert spans(polled) == [(*before_noon(52, 5), "open"), (*before_noon(2, 1), "open")]


def test_hours_are_checked_once(polled, clock, monkeypatch):
    read = []
    stored_times = gaps.stored_times

    def spy(app, coins, first, last, connection):
        read.append((first, last))
        return stored_times(app, coins, first, last, connection)

    monkeypatch.setattr(gaps, "stored_times", spy)
    find_gaps(polled.app(), NOON)
    assert read == []
    clock.now = NOON + HOUR
    find_gaps(polled.app(), clock.now)
    assert read == [(NOON, NOON)]


def test_more_days_of_history_are_checked_when_they_are_configured(make_world):
    world = make_world("days", history_days=2)
    find_gaps(world.app(), NOON)
    world.settings = world.settings.model_copy(update={"history_days": 4})
    find_gaps(world.app(), NOON)
    assert spans(world) == [(*before_noon(96, 49), "open"), (*before_noon(48, 1), "open")]


def test_a_plan_limits_the_days_of_history(make_world):
    world = make_world(history_days=730)
    find_gaps(world.app(), NOON)
    assert spans(world) == [(*before_noon(365 * 24 - 1, 1), "open")]


def test_open_hours_that_the_settings_do_not_reach_any_more_are_given_up(polled, clock):
    clock.now = NOON + 44 * HOUR
    find_gaps(polled.app(), clock.now)
    assert spans(polled)[0] == (*before_noon(52, 5), "no_data")
    assert spans(polled)[1] == (*before_noon(2, 1), "open")


def test_unloaded_rows_and_rows_of_a_log_that_was_never_loaded_count_as_stored(polled, clock):
    load_raw_prices(polled.app())
    for number in (1, 2):
        clock.now = NOON + number * HOUR
        poll(polled, clock.now)
    find_gaps(polled.app(), clock.now)
    assert spans(polled) == [(*before_noon(52, 5), "open"), (*before_noon(2, 1), "open")]


def test_a_log_that_was_cut_is_checked_again_as_a_whole(polled, clock):
    load_raw_prices(polled.app())
    path = polled.settings.raw_path("bitcoin")
    header, eight, _, noon = path.read_text().splitlines(keepends=True)
    path.write_text(header + eight + noon)
    load_raw_prices(polled.app())
    clock.now = NOON + HOUR
    find_gaps(polled.app(), clock.now)
    assert len(polled.rows("raw_prices", "ts")) == 2
    assert spans(polled) == [(*before_noon(52, 5), "open"), (*before_noon(3, 3), "open"), (*before_noon(2, 1), "open")]


def test_a_change_of_some_hours_splits_their_gap(polled):
    change(polled, hours_between(*before_noon(30, 28)), gaps.refuse("no_data", "why", "s", NOON))
    assert spans(polled) == [
        (*before_noon(52, 31), "open"),
        (*before_noon(30, 28), "no_data"),
        (*before_noon(27, 5), "open"),
        (*before_noon(2, 1), "open"),
    ]


def test_the_backoff_doubles_up_to_32_days(polled):
    now, backoffs = NOON, []
    for number in range(9):
        change(polled, [NOON - HOUR, NOON - 2 * HOUR], gaps.refuse("no_data", "why", f"s{number}", now))
        _, (tries, retry_at) = rows(polled, "tries", "retry_at")
        assert tries == number + 1
        backoffs.append((retry_at - now) / HOUR)
        with polled.warehouse().begin() as connection:
            due = [
                due_gaps(connection, "usd", ["bitcoin"], at, before_noon(2, 0)) for at in (retry_at - HOUR, retry_at)
            ]
        assert [len(each) for each in due] == [0, 1]
        now = retry_at
    assert backoffs == [6, 12, 24, 48, 96, 192, 384, 768, 768]


def test_an_answer_that_a_retried_task_reads_again_is_one_try(polled):
    for now in (NOON, NOON + HOUR):
        change(polled, [NOON - HOUR, NOON - 2 * HOUR], gaps.refuse("no_data", "why", "s", now))
    assert rows(polled, "tries", "retry_at")[1] == (1, NOON + 6 * HOUR)


def test_a_gap_that_grows_keeps_its_backoff(polled, clock):
    change(polled, [NOON - HOUR, NOON - 2 * HOUR], gaps.refuse("no_data", "why", "s", NOON))
    path = polled.settings.raw_path("bitcoin")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    clock.now = NOON + HOUR
    assert find_gaps(polled.app(), clock.now) == {"coins": 1, "hours": 45 - 2}
    assert rows(polled, "first_hour", "last_hour", "tries")[1] == (*before_noon(2, 0), 1)


def test_filling_marks_the_hours_that_a_snapshot_answered(polled):
    change(polled, [NOON - HOUR], gaps.answer("s"))
    with polled.warehouse().begin() as connection:
        gaps.fill(connection, ["s"], NOON)
    assert rows(polled, "first_hour", "state", "filled_at", "snapshot")[1:] == [
        (NOON - 2 * HOUR, "open", None, ""),
        (NOON - HOUR, "filled", NOON, "s"),
    ]


@given(st.sets(st.integers(-3, 12)))
def test_runs_are_exactly_the_missing_hours(numbers):
    stored = {NOON + number * HOUR for number in numbers} | {NOON + HOUR / 2}
    runs = list(missing_runs(stored, NOON, NOON + 10 * HOUR))
    assert [hour for run in runs for hour in hours_between(*run)] == [
        hour for hour in hours_between(NOON, NOON + 9 * HOUR) if hour not in stored
    ]
