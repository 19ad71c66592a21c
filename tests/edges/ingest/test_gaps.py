from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from coinwatch.ingest.gaps import Fate, GapLedger, collapse, hours_between
from coinwatch.warehouse import schema

HOUR = timedelta(hours=1)
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
START = NOON - 100 * HOUR


def hours(*numbers):
    """So many hours before noon each."""
    return [NOON - HOUR * number for number in numbers]


def see(warehouse, missing, now=NOON, start=START, end=NOON):
    with warehouse.begin() as connection:
        return GapLedger(connection, "usd").see_missing("bitcoin", missing, start, end, now)


def judge(warehouse, missing, decide, now=NOON):
    with warehouse.begin() as connection:
        ledger = GapLedger(connection, "usd")
        fates = ledger.fates("bitcoin", missing, now)
        ledger.change("bitcoin", {hour: decide(hour, fate) for hour, fate in fates.items()})


def lack(warehouse, missing, now=NOON, snapshot="s"):
    judge(warehouse, missing, lambda hour, fate: fate.lacking(hour, now, snapshot), now)


def stored(warehouse, *columns):
    with warehouse.begin() as connection:
        table = schema.gaps.c
        query = select(*(table[name] for name in columns)).order_by(table.first_hour, table.found_at)
        return [tuple(row) for row in connection.execute(query)]


def test_hours_in_a_row_that_are_missing_are_one_gap(warehouse):
    see(warehouse, hours(9, 8, 7, 3))
    assert stored(warehouse, "first_hour", "last_hour", "state", "tries") == [
        (*hours(9, 7), "open", 0),
        (*hours(3, 3), "open", 0),
    ]


def test_what_is_not_missing_any_more_is_healed_and_the_rest_stays_open(warehouse):
    see(warehouse, hours(9, 8, 7, 6))
    see(warehouse, hours(8, 7), now=NOON + HOUR)
    assert stored(warehouse, "first_hour", "last_hour", "state", "found_at", "healed_at") == [
        (*hours(9, 9), "healed", NOON, NOON + HOUR),
        (*hours(8, 7), "open", NOON, None),
        (*hours(6, 6), "healed", NOON, NOON + HOUR),
    ]


def test_hours_outside_of_the_span_that_was_looked_at_are_not_taken_for_healed(warehouse):
    see(warehouse, hours(9, 8))
    see(warehouse, [], end=NOON - 9 * HOUR, now=NOON + HOUR)
    assert stored(warehouse, "first_hour", "last_hour", "state") == [(*hours(9, 8), "open")]


def test_an_open_hour_that_the_span_has_left_behind_is_given_up_with_a_reason(warehouse):
    see(warehouse, hours(9, 8))
    see(warehouse, hours(8), start=NOON - 8 * HOUR)
    assert stored(warehouse, "first_hour", "state", "reason") == [
        (*hours(9), "no_data", "COINWATCH_HISTORY_DAYS does not reach back to it any more"),
        (*hours(8), "open", ""),
    ]


def test_an_hour_that_was_lost_again_is_another_gap(warehouse):
    see(warehouse, hours(9))
    see(warehouse, [], now=NOON + HOUR)
    see(warehouse, hours(9), now=NOON + 2 * HOUR)
    assert stored(warehouse, "first_hour", "found_at", "state") == [
        (*hours(9), NOON, "healed"),
        (*hours(9), NOON + 2 * HOUR, "open"),
    ]


def test_the_pause_before_the_next_try_doubles_up_to_32_days(warehouse):
    now, pauses = NOON, []
    for number in range(9):
        lack(warehouse, hours(9), now=now, snapshot=f"s{number}")
        ((tries, next_try_at),) = stored(warehouse, "tries", "next_try_at")
        assert tries == number + 1
        pauses.append((next_try_at - now) / HOUR)
        assert not see(warehouse, hours(9), now=next_try_at - HOUR)[NOON - 9 * HOUR].is_due(next_try_at - HOUR)
        assert see(warehouse, hours(9), now=next_try_at)[NOON - 9 * HOUR].is_due(next_try_at)
        now = next_try_at
    assert pauses == [6, 12, 24, 48, 96, 192, 384, 768, 768]


def test_the_same_answer_told_twice_is_one_try(warehouse):
    lack(warehouse, hours(9), now=NOON)
    lack(warehouse, hours(9), now=NOON + HOUR)
    assert stored(warehouse, "tries", "tried_at") == [(1, NOON)]


def test_a_young_hour_that_history_does_not_have_yet_stays_open(warehouse):
    lack(warehouse, hours(1, 2))
    assert stored(warehouse, "first_hour", "state", "tries", "next_try_at") == [
        (*hours(2), "no_data", 1, NOON + 6 * HOUR),
        (*hours(1), "open", 1, None),
    ]


def test_beyond_the_plan_is_a_state_of_its_own_and_asked_for_again_as_seldom(warehouse):
    judge(warehouse, hours(1), lambda _, fate: fate.refused(NOON, "beyond_plan", "because", "s"))
    assert stored(warehouse, "state", "reason", "next_try_at") == [("beyond_plan", "because", NOON + 6 * HOUR)]


def test_a_gap_that_grows_keeps_its_pause(warehouse):
    lack(warehouse, hours(3, 2))
    fates = see(warehouse, hours(9, 3, 2, 1, 0), end=NOON + HOUR, now=NOON + HOUR)
    due = [hour for hour, fate in fates.items() if fate.is_due(NOON + HOUR)]
    assert due == hours(9)
    assert stored(warehouse, "first_hour", "last_hour", "state", "tries") == [
        (*hours(9, 9), "open", 0),
        (*hours(3, 0), "no_data", 1),
    ]
    fates = see(warehouse, hours(3, 2, 1, 0, -6), end=NOON + 7 * HOUR, now=NOON + 7 * HOUR)
    assert [hour for hour, fate in fates.items() if fate.is_due(NOON + 7 * HOUR)] == hours(3, 2, 1, 0, -6)


def test_coins_and_currencies_do_not_meet(warehouse):
    see(warehouse, hours(9))
    with warehouse.begin() as connection:
        GapLedger(connection, "usd").see_missing("ethereum", [], START, NOON, NOON)
        GapLedger(connection, "eur").see_missing("bitcoin", [], START, NOON, NOON)
    assert stored(warehouse, "coin", "state") == [("bitcoin", "open")]


def test_the_ledger_is_healed_by_what_the_raw_log_has(warehouse):
    see(warehouse, hours(9, 8))
    with warehouse.begin() as connection:
        GapLedger(connection, "usd").heal("bitcoin", {"2026-11-22T03:00:00Z"}, NOON)
    assert stored(warehouse, "first_hour", "state") == [(*hours(9), "healed"), (*hours(8), "open")]


@given(st.dictionaries(st.integers(0, 30), st.sampled_from([Fate(NOON), Fate(NOON, tries=1), Fate(NOON, "no_data")])))
def test_runs_of_hours_are_the_same_hours_and_as_few_as_can_be(numbers):
    fates = {START + HOUR * number: fate for number, fate in numbers.items()}
    runs = collapse(fates)
    assert {hour: fate for first, last, fate in runs for hour in hours_between(first, last)} == fates
    for (_, last, fate), (first, _, other) in pairwise(runs):
        assert first > last
        assert first - last > HOUR or fate != other


@pytest.mark.parametrize("number", [pytest.param(0, id="due at once"), pytest.param(1, id="due later")])
def test_an_hour_is_due_when_its_pause_is_over(number):
    assert Fate(NOON, next_try_at=NOON + number * HOUR).is_due(NOON) is (number == 0)
