from datetime import UTC, datetime, timedelta

import pytest
from holes import HolesIn

from coinwatch.ingest.gaps import find_gaps
from coinwatch.ingest.history import append_history, fetch_history
from coinwatch.ingest.poll import append_raw_log, fetch_prices
from coinwatch.sandbox.market import SimulatedMarket
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


@pytest.mark.parametrize("loaded", [False, True])
def test_only_hours_that_no_log_has_become_gaps_loaded_or_not(polled, clock, loaded):
    if loaded:
        load_raw_prices(polled.app())
    for number in (1, 2):
        clock.now = NOON + number * HOUR
        poll(polled, clock.now)
        assert find_gaps(polled.app(), clock.now) == {"coins": 1, "hours": 46 - number}
    assert spans(polled) == [(*before_noon(52, 5), "open"), (*before_noon(2, 1), "open")]


def test_more_days_of_history_are_checked_when_they_are_configured_up_to_the_limit_of_the_plan(make_world):
    world = make_world(history_days=2)
    expected = [(*before_noon(48, 1), "open")]
    for days, first, last in ((4, 96, 49), (730, 365 * 24 - 1, 97)):
        find_gaps(world.app(), NOON)
        assert spans(world) == expected
        world.settings = world.settings.model_copy(update={"history_days": days})
        expected.insert(0, (*before_noon(first, last), "open"))
    find_gaps(world.app(), NOON)
    assert spans(world) == expected


def test_open_hours_that_the_settings_do_not_reach_any_more_are_given_up(polled, clock):
    clock.now = NOON + 44 * HOUR
    find_gaps(polled.app(), clock.now)
    assert spans(polled)[:2] == [(*before_noon(52, 5), "no_data"), (*before_noon(2, 1), "open")]


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


@pytest.fixture
def heal_lost_hours(make_world, clock):
    """A world whose history lacks two hours; (time) → its gaps after a run of heal_history, and how many requests."""
    lost = [NOON - 2 * HOUR, NOON - HOUR]
    world = make_world(market=HolesIn(SimulatedMarket(NOON), lost), history_days=2)
    window = {"coin": "bitcoin", "first": "2026-11-22T10:00:00Z", "last": "2026-11-22T11:00:00Z"}

    def heal(now):
        clock.now = now
        before = len(world.coingecko.requests)
        # A retried task reads the same answer again.
        for _ in range(2):
            fetch_history(world.app(), now, [window])
            append_history(world.app(), now, [[window]])
        return rows(world, "first_hour", "tries", "retry_at")[-1], len(world.coingecko.requests) - before

    find_gaps(world.app(), NOON)
    heal.world = world
    return heal


def test_the_backoff_doubles_up_to_32_days_and_a_retried_task_is_one_try(heal_lost_hours):
    now = NOON + 2 * HOUR
    for tries, hours in enumerate([6, 12, 24, 48, 96, 192, 384, 768, 768], start=1):
        expected = (NOON - 2 * HOUR, tries, now + hours * HOUR)
        assert heal_lost_hours(now) == (expected, 1)
        assert heal_lost_hours(now + hours * HOUR - timedelta(minutes=1)) == (expected, 0)
        now += hours * HOUR


def test_a_gap_that_grows_keeps_its_backoff(heal_lost_hours):
    now = NOON + 2 * HOUR
    (_, _, retry_at), _ = heal_lost_hours(now)
    world = heal_lost_hours.world
    assert find_gaps(world.app(), now) == {"coins": 1, "hours": 44}
    assert rows(world, "first_hour", "last_hour", "retry_at")[-1] == (NOON - 2 * HOUR, now - HOUR, retry_at)
