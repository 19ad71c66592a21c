import json
import threading
from datetime import timedelta
from decimal import Decimal

import pytest
from sqlalchemy.exc import OperationalError

from coinwatch.coingecko.requests import Budget
from coinwatch.coingecko.response_errors import RateLimited, Unavailable
from coinwatch.health import issues
from coinwatch.ingest.poll import (
    LATE_COINS_MAX,
    UNKNOWN_COINS,
    FutureAsOf,
    NoKnownCoin,
    NoPrice,
    NotYetInHistory,
    append_raw_log,
    fetch_prices,
)
from coinwatch.record import parse_raw_prices
from coinwatch.times import format_time

HOUR = timedelta(hours=1)


def raw_rows(world, coin="bitcoin"):
    path = world.settings.raw_path(coin)
    return list(parse_raw_prices(path.read_text().partition("\n")[2])) if path.exists() else []


def live(world, as_of):
    names = fetch_prices(world.app(), as_of)
    append_raw_log(world.app(), names)
    return names


def history(world, as_of):
    for step in world.ingest_steps(as_of)[2:]:
        step()


def test_one_live_poll_is_one_request_one_snapshot_and_one_row(world, noon):
    assert live(world, noon) == ["20261122T120000Z"]
    (request,) = world.coingecko.requests
    assert request.query == {
        "ids": "bitcoin",
        "vs_currencies": "usd",
        "include_market_cap": "true",
        "include_24hr_vol": "true",
        "include_24hr_change": "true",
        "include_last_updated_at": "true",
        "precision": "full",
    }
    body = json.loads((world.settings.archive_path / "20261122T120000Z.json").read_bytes(), parse_float=str)
    (row,) = raw_rows(world)
    assert (row.timestamp, row.price, row.source) == ("2026-11-22T12:00:00Z", body["bitcoin"]["usd"], "live")
    assert row.last_updated_at == "2026-11-22T11:59:20Z"
    assert row.fetched_at == "2026-11-22T12:00:00Z"
    assert len(Decimal(row.price).as_tuple().digits) > 12


def test_the_same_time_twice_leaves_the_same_bytes_as_once(world, noon, clock):
    for step in world.ingest_steps(noon):
        step()
    once = world.files()
    requests = len(world.coingecko.requests)
    # Much later, when the price is another one, and its time is long past.
    clock.now = noon + timedelta(minutes=40)
    for step in world.ingest_steps(noon):
        step()
    assert world.files() == once
    assert len(world.coingecko.requests) == requests


def test_a_long_watch_list_is_requested_page_by_page_and_one_without_a_price_fails_no_other(make_world, noon):
    gone = tuple(f"coin-{number}" for number in range(500))
    world = make_world(coins=(*gone[:250], "bitcoin", *gone[250:], "ethereum"))
    assert live(world, noon) == ["20261122T120000Z-page-2", "20261122T120000Z-page-3"]
    assert [len(request.query["ids"].split(",")) for request in world.coingecko.requests] == [250, 250, 2]
    assert len(raw_rows(world)) == len(raw_rows(world, "ethereum")) == 1


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        pytest.param("rate_limited_under_200", RateLimited, id="an error under a 200"),
        pytest.param("broken_json", Unavailable, id="broken off"),
        pytest.param("connection_lost", Unavailable, id="hung up"),
        pytest.param("connection_refused", Unavailable, id="no answer"),
        pytest.param("price_null", NoPrice, id="null"),
        pytest.param("coin_missing", NoPrice, id="missing"),
    ],
)
def test_an_answer_without_a_price_fails_leaves_no_row_and_is_kept_if_there_was_one(world, noon, fault, error):
    world.coingecko.fail(fault, times=1)
    with pytest.raises(error):
        live(world, noon)
    assert raw_rows(world) == []
    kept = world.settings.archive_path / "20261122T120000Z-refused-1.json"
    assert kept.exists() == (not fault.startswith("connection"))
    # The next try polls again.
    live(world, noon)
    assert len(raw_rows(world)) == 1


def unknown_coins(world):
    with world.warehouse().begin() as connection:
        return issues.find(connection, UNKNOWN_COINS)


def due_issues(world, now):
    with world.warehouse().begin() as connection:
        return [issue.key for issue in issues.due(connection, now)]


def test_unknown_coins_are_one_issue_that_operators_get_after_three_answers_in_a_row(make_world, noon, clock, caplog):
    world = make_world(coins=("bitcoin", "gone", "ethereum", "lost"))
    for number, due in enumerate([[], [], ["unknown_coins"]]):
        clock.now = noon + number * HOUR
        live(world, clock.now)
        assert due_issues(world, clock.now) == due
    issue = unknown_coins(world)
    assert (issue.state, issue.seen_count) == ("open", 3)
    assert "gone (unknown id" in issue.detail
    assert "lost (unknown id" in issue.detail
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len([text for text in warnings if "gone" in text]) == 3


def test_one_answer_without_a_coin_is_resolved_by_the_next_before_operators_are_notified(make_world, noon, clock):
    world = make_world(coins=("bitcoin", "ethereum"))
    world.coingecko.fail("price_null", coin="ethereum", times=1)
    live(world, noon)
    assert unknown_coins(world).state == "open"
    clock.now = noon + HOUR
    live(world, clock.now)
    assert unknown_coins(world).state == "resolved"
    assert due_issues(world, noon + 5 * HOUR) == []


def test_if_no_coin_is_known_nothing_is_tried_again(make_world, noon):
    with pytest.raises(NoKnownCoin) as failure:
        live(make_world(coins=("gone", "lost")), noon)
    assert not failure.value.retryable


def test_a_broken_value_of_one_coin_costs_the_others_nothing(make_world, noon, clock):
    world = make_world(coins=("bitcoin", "ethereum"))
    world.coingecko.fail("price_times", factor=0, times=1)
    live(world, noon)
    clock.now = noon + HOUR
    live(world, clock.now)
    assert [row.timestamp for row in raw_rows(world, "ethereum")] == [format_time(noon), format_time(clock.now)]
    assert [row.timestamp for row in raw_rows(world)] == [format_time(clock.now)]
    assert [tuple(row) for row in world.rows("quarantine", "coin", "ts", "value", "state")] == [
        ("bitcoin", noon, "0.0", "held")
    ]
    assert unknown_coins(world) is None


class NoWarehouse:
    """A database that cannot be reached."""

    def begin(self):
        raise OperationalError("SELECT", {}, ConnectionError("connection refused"))


def test_without_a_warehouse_prices_are_archived_and_appended_once(make_world, noon, caplog):
    world = make_world(coins=("bitcoin", "gone"))
    app = world.app(warehouse=NoWarehouse())
    app.client.meter._open_warehouse = NoWarehouse
    for _ in range(2):
        append_raw_log(app, fetch_prices(app, noon))
    assert len(raw_rows(world)) == 1
    assert "warehouse unavailable (connection refused)" in caplog.text


def test_a_short_budget_is_logged(world, noon, caplog):
    app = world.app()
    app.client.meter.monthly_limit = 200
    fetch_prices(app, noon)
    assert str(Budget(used=1, forecast=1 + 8 * 24 + 12, limit=200)) in caplog.text


def test_a_slow_answer_times_out(world, noon):
    world.coingecko.fail("slow", times=1, seconds=30)
    app = world.app()
    app.client._timeout = (1, 0.1)
    with pytest.raises(Unavailable, match="ReadTimeout"):
        fetch_prices(app, noon)


@pytest.mark.parametrize(
    ("late", "error", "text"),
    [
        pytest.param(timedelta(minutes=-6), FutureAsOf, "2026-11-22T12:06:00Z lies in the future", id="the future"),
        pytest.param(timedelta(days=400), NoPrice, r"bitcoin .*allowed time range", id="beyond the plan"),
    ],
)
def test_a_time_without_a_price_is_a_failure_that_says_why(world, noon, late, error, text):
    with pytest.raises(error, match=text):
        live(world, noon - late)


@pytest.mark.parametrize(
    ("minutes", "source"), [pytest.param(15, "live", id="15 minutes"), pytest.param(16, "history", id="16 minutes")]
)
def test_a_time_more_than_15_minutes_ago_takes_its_price_from_history(world, noon, clock, minutes, source):
    clock.now = noon + timedelta(minutes=minutes)
    live(world, noon)
    (row,) = raw_rows(world)
    assert (row.timestamp, row.source) == ("2026-11-22T12:00:00Z", source)


def test_a_past_time_becomes_the_full_hour_nearest_to_it_once_history_has_it(world, noon, clock):
    as_of = noon + timedelta(minutes=31)
    clock.now = noon + timedelta(minutes=47)
    with pytest.raises(NotYetInHistory, match="does not have 2026-11-22T13:00:00Z yet") as failure:
        live(world, as_of)
    assert failure.value.retryable
    clock.now = noon + 3 * HOUR
    assert live(world, as_of) == ["20261122T123100Z-late-bitcoin"]
    (row,) = raw_rows(world)
    assert row.timestamp == "2026-11-22T13:00:00Z"
    assert row.last_updated_at.startswith("2026-11-22T13:00:")
    assert row.last_updated_at != row.timestamp
    # Another run of the same hour adds nothing.
    live(world, noon + timedelta(minutes=32))
    assert raw_rows(world) == [row]


def test_a_past_time_of_an_unknown_coin_does_not_stop_the_others(make_world, noon, clock, caplog):
    world = make_world(coins=("gone", "bitcoin"))
    clock.now = noon + HOUR
    assert live(world, noon) == ["20261122T120000Z-late-bitcoin"]
    assert "1 of 2 coins have no price: gone (" in caplog.text


def test_a_past_time_of_many_coins_is_left_to_heal_history(make_world, noon, clock, caplog):
    world = make_world(coins=tuple(f"simulated-{number}" for number in range(LATE_COINS_MAX + 1)))
    clock.now = noon + HOUR
    assert live(world, noon) == []
    assert "2026-11-22T12:00:00Z is left to heal_history" in caplog.text
    assert not world.coingecko.requests


def test_a_year_of_history_comes_in_windows_of_90_days(make_world, noon):
    world = make_world(history_days=365)
    history(world, noon)
    spans = [(int(request.query["to"]) - int(request.query["from"])) / 86400 for request in world.coingecko.requests]
    assert len(spans) == 5
    assert all(2 <= span <= 90 for span in spans)
    assert len(raw_rows(world)) == 365 * 24 - 1


def test_two_runs_at_the_same_moment_lose_and_double_no_row(world, noon):
    ready = threading.Barrier(4)
    failures = []

    def run(as_of):
        ready.wait()
        try:
            for step in world.ingest_steps(as_of):
                step()
        except BaseException as failure:
            failures.append(failure)
            raise

    times = [noon, noon, noon - timedelta(seconds=1), noon - timedelta(minutes=1)]
    runs = [threading.Thread(target=run, args=(as_of,)) for as_of in times]
    for each in runs:
        each.start()
    for each in runs:
        each.join()
    assert failures == []
    keys = [row.key for row in raw_rows(world)]
    assert len(keys) == len(set(keys))
    assert {key[2] for key in keys if key[3] == "live"} == {format_time(as_of) for as_of in times}
    assert len([key for key in keys if key[3] == "history"]) == 3 * 24
    lines = world.settings.archive_path.joinpath("manifest.jsonl").read_text().splitlines()
    names = [json.loads(line)["name"] for line in lines]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("number", [40, 150, 300, 450, 600])
def test_a_poll_that_was_killed_and_run_again_ends_as_if_nothing_had_happened(make_world, noon, kill_at_line, number):
    world = make_world("reference", s3_prefix="reference")
    live(world, noon)
    other = world.beside("killed")
    assert kill_at_line(lambda: live(other, noon), number)
    live(other, noon)
    assert other.files() == world.files()


@pytest.mark.parametrize("number", [200, 800, 1400, 2000])
def test_a_heal_that_was_killed_and_run_again_ends_as_if_nothing_had_happened(make_world, noon, kill_at_line, number):
    world = make_world("reference", s3_prefix="reference", history_days=2)
    history(world, noon)
    other = world.beside("killed")
    assert kill_at_line(lambda: history(other, noon), number)
    history(other, noon)
    assert other.files() == world.files()
    for table in ("gaps", "checked_hours"):
        assert other.tables()[table] == world.tables()[table]
