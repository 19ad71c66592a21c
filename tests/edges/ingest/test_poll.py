import itertools
import json
import threading
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from sqlalchemy.exc import OperationalError

from coinwatch.coingecko.budget import Budget
from coinwatch.coingecko.errors import RateLimited, Unavailable
from coinwatch.errors import CoinwatchError
from coinwatch.ingest.poll import FutureAsOf, NoKnownCoin, NoPrice, NotYetInHistory
from coinwatch.record import parse_raw_prices
from coinwatch.times import format_time
from coinwatch.warehouse.load import load_raw_prices

HOUR = timedelta(hours=1)


def raw_rows(world, coin="bitcoin"):
    path = world.settings.raw_path(coin)
    return list(parse_raw_prices(path.read_text().partition("\n")[2])) if path.exists() else []


def live(world, as_of):
    names = world.ingest().fetch_prices(as_of)
    world.ingest().append_rows(names)
    return names


def history(world, as_of):
    for step in world.ingest_steps(as_of)[2:]:
        step()


def test_one_live_pull_is_one_request_one_snapshot_and_one_row(world, noon):
    assert live(world, noon) == ["20261122T120000Z"]
    assert len(world.coingecko.requests) == 1
    body = json.loads((world.settings.archive_path / "20261122T120000Z.json").read_bytes(), parse_float=str)
    (row,) = raw_rows(world)
    assert (row.timestamp, row.price, row.source) == ("2026-11-22T12:00:00Z", body["bitcoin"]["usd"], "live")
    assert row.last_updated_at == "2026-11-22T11:59:20Z"
    assert row.fetched_at == "2026-11-22T12:00:00Z"
    assert len(Decimal(row.price).as_tuple().digits) > 12


def test_the_key_travels_in_a_header_and_stands_nowhere_else(world, noon, caplog):
    live(world, noon)
    (request,) = world.coingecko.requests
    assert request.headers["x-cg-demo-api-key"] == "secret-key"
    assert request.headers["user-agent"].startswith("coinwatch/")
    assert request.query == {
        "ids": "bitcoin",
        "vs_currencies": "usd",
        "include_market_cap": "true",
        "include_24hr_vol": "true",
        "include_24hr_change": "true",
        "include_last_updated_at": "true",
        "precision": "full",
    }
    world.coingecko.fail("key_rejected")
    with pytest.raises(CoinwatchError) as failure:
        live(world, noon + HOUR)
    assert "secret-key" not in str(failure.value) + caplog.text
    assert not [name for name, content in world.files().items() if b"secret-key" in content]


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


def test_all_coins_come_in_one_request_and_go_into_a_log_each(make_world, noon):
    world = make_world(coins=("bitcoin", "ethereum", "dogecoin"))
    live(world, noon)
    assert len(world.coingecko.requests) == 1
    assert [raw_rows(world, coin)[0].coin for coin in world.settings.coins] == ["bitcoin", "ethereum", "dogecoin"]


def test_a_watch_list_longer_than_a_page_is_asked_for_page_by_page(make_world, noon):
    coins = tuple(f"coin-{number}" for number in range(250))
    world = make_world(coins=("bitcoin", *coins, "ethereum"))
    assert live(world, noon) == ["20261122T120000Z", "20261122T120000Z-page-2"]
    assert [len(request.query["ids"].split(",")) for request in world.coingecko.requests] == [250, 2]


def test_a_coin_that_is_missing_is_reported_and_the_others_go_on(make_world, noon, caplog):
    world = make_world(coins=("bitcoin", "gone"))
    live(world, noon)
    assert len(raw_rows(world)) == 1
    assert "gone at 2026-11-22T12:00:00Z: CoinGecko does not know this id (any more)" in caplog.text
    assert "Ids that are left: bitcoin" in caplog.text


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
    # The next try asks again.
    live(world, noon)
    assert len(raw_rows(world)) == 1


def conditions(world):
    return [tuple(row) for row in world.rows("feed_conditions", "coin", "condition", "since", "ended_at")]


def test_a_renamed_coin_is_reported_once_with_the_ids_that_are_left(make_world, noon, clock, caplog):
    world = make_world(coins=("bitcoin", "gone", "ethereum"))
    for number in range(3):
        clock.now = noon + number * HOUR
        live(world, clock.now)
    told = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(told) == 1
    assert told[0].startswith("gone at 2026-11-22T12:00:00Z: CoinGecko does not know this id (any more): correct or")
    assert told[0].endswith("in COINWATCH_COINS. Ids that are left: bitcoin, ethereum")
    assert "still: gone (unknown_id)" in caplog.text
    assert conditions(world) == [("gone", "unknown_id", noon, None)]


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
    assert conditions(world) == [("bitcoin", "bad_price", noon, noon + HOUR)]


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        pytest.param(
            {"kind": "feed_frozen"}, [("stale", 1, 3), ("unchanged", 1, 3)], id="the time of the price stands still"
        ),
        pytest.param({"kind": "price_old", "seconds": 7200}, [("stale", 1, 3), ("unchanged", 1, 1)], id="old prices"),
        pytest.param({"kind": "price_old", "seconds": 1800}, [], id="half an hour is no hour"),
    ],
)
def test_an_old_price_is_stored_and_its_condition_remembered(world, noon, clock, fault, found):
    """The sandbox's prices are 40 seconds old; a pull that finds none older than an hour says nothing."""
    for number in range(4):
        if number == 1:
            world.coingecko.fail(**fault, since=noon)
        clock.now = noon + number * HOUR
        live(world, clock.now)
        load_raw_prices(world.app())
    assert len(raw_rows(world)) == 4
    seen = world.rows("feed_conditions", "condition", "since", "last_seen")
    assert [(name, (since - noon) // HOUR, (last - noon) // HOUR) for name, since, last in seen] == found


def test_without_a_warehouse_prices_are_archived_all_the_same(world, noon, caplog):
    def down():
        raise OperationalError("SELECT", {}, ConnectionError("nobody listens"))

    ingest = world.ingest()
    ingest.client.meter._open_warehouse = down
    ingest = replace(ingest, warehouse=down)
    ingest.append_rows(ingest.fetch_prices(noon))
    assert len(raw_rows(world)) == 1
    assert "the warehouse cannot be reached" in caplog.text


def test_the_months_requests_are_counted_and_a_short_budget_is_told(world, noon, caplog):
    ingest = world.ingest()
    ingest.client.meter.monthly_limit = 200
    ingest.append_rows(ingest.fetch_prices(noon))
    assert ingest.budget() == Budget(used=1, forecast=1 + 8 * 24 + 12, limit=200)
    assert "1 requests to CoinGecko this month, about 205 at its end; 200 are allowed: watch fewer coins" in caplog.text


def test_a_slow_answer_is_given_up_and_asked_for_again_later(world, noon):
    world.coingecko.fail("slow", times=1, seconds=30)
    with pytest.raises(Unavailable, match="ReadTimeout"):
        live(world, noon)


@pytest.mark.parametrize(
    ("minutes", "source"), [pytest.param(15, "live", id="15 minutes"), pytest.param(16, "history", id="16 minutes")]
)
def test_a_time_more_than_15_minutes_ago_takes_its_price_from_history(world, noon, clock, minutes, source):
    clock.now = noon + timedelta(minutes=minutes)
    live(world, noon)
    (row,) = raw_rows(world)
    assert (row.timestamp, row.source) == ("2026-11-22T12:00:00Z", source)


def test_a_past_time_becomes_the_full_hour_nearest_to_it(world, noon, clock):
    clock.now = noon + 3 * HOUR
    assert live(world, noon + timedelta(minutes=31)) == ["20261122T123100Z-late-bitcoin"]
    (row,) = raw_rows(world)
    assert row.timestamp == "2026-11-22T13:00:00Z"
    assert row.last_updated_at.startswith("2026-11-22T13:00:")
    assert row.last_updated_at != row.timestamp
    # Another run of the same hour adds nothing.
    live(world, noon + timedelta(minutes=32))
    assert raw_rows(world) == [row]


def test_an_hour_that_history_does_not_have_yet_is_asked_for_again(world, noon, clock):
    as_of = noon + timedelta(minutes=31)
    clock.now = noon + timedelta(minutes=47)
    with pytest.raises(NotYetInHistory, match="does not have 2026-11-22T13:00:00Z yet") as failure:
        live(world, as_of)
    assert failure.value.retryable
    clock.now = noon + timedelta(minutes=75)
    live(world, as_of)
    assert [row.timestamp for row in raw_rows(world)] == ["2026-11-22T13:00:00Z"]


def test_a_time_beyond_the_plan_is_a_failure_that_says_so(world, noon):
    with pytest.raises(NoPrice, match=r"bitcoin: .*allowed time range"):
        live(world, noon - timedelta(days=400))


def test_a_past_time_of_an_unknown_coin_does_not_stop_the_others(make_world, noon, clock, caplog):
    world = make_world(coins=("gone", "bitcoin"))
    clock.now = noon + HOUR
    assert live(world, noon) == ["20261122T120000Z-late-bitcoin"]
    assert "no price of gone" in caplog.text


def test_the_future_has_no_price(world, noon):
    with pytest.raises(FutureAsOf, match="2026-11-22T12:06:00Z lies in the future"):
        live(world, noon + timedelta(minutes=6))


def test_the_first_start_takes_in_all_hours_of_history_with_one_request(make_world, noon):
    world = make_world(history_days=90)
    live(world, noon)
    history(world, noon)
    rows = raw_rows(world)
    hours = [format_time(noon - HOUR * number) for number in range(90 * 24, 0, -1)]
    assert [row.timestamp for row in rows[1:]] == hours
    assert {row.source for row in rows[1:]} == {"history"}
    assert [request.path for request in world.coingecko.requests] == [
        "/api/v3/simple/price",
        "/api/v3/coins/bitcoin/market_chart/range",
    ]
    history(world, noon)
    assert len(world.coingecko.requests) == 2, "nothing is missing any more"


def test_a_year_of_history_comes_in_windows_of_90_days(make_world, noon):
    world = make_world(history_days=365)
    history(world, noon)
    spans = [(int(request.query["to"]) - int(request.query["from"])) / 86400 for request in world.coingecko.requests]
    assert len(spans) == 5
    assert all(2 <= span <= 90 for span in spans)
    assert len(raw_rows(world)) == 365 * 24 - 1


def test_hours_missing_in_the_middle_are_found_and_filled(world, noon, clock):
    live(world, noon)
    history(world, noon)
    clock.now = noon + 6 * HOUR
    live(world, clock.now)
    windows = world.ingest().history.find_gaps(clock.now)
    assert windows == [{"coin": "bitcoin", "first": "2026-11-22T13:00:00Z", "last": "2026-11-22T17:00:00Z"}]
    history(world, clock.now)
    assert world.ingest().history.find_gaps(clock.now) == []
    assert [row.timestamp for row in raw_rows(world)[-5:]] == [
        format_time(noon + HOUR * number) for number in range(1, 6)
    ]


def test_a_gap_that_another_run_has_filled_costs_no_request(world, noon):
    (window,) = world.ingest().history.find_gaps(noon)
    history(world, noon - timedelta(seconds=1))
    requests = len(world.coingecko.requests)
    assert world.ingest().history.fetch_history(noon, window) is None
    assert len(world.coingecko.requests) == requests


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


def test_killed_at_any_line_and_run_again_it_ends_as_if_nothing_had_happened(make_world, noon, kill_at_line):
    world = make_world("reference", s3_prefix="reference")
    live(world, noon)
    reference = world.files()
    for number in itertools.count(1, 7):
        other = world.beside(f"killed-{number}")
        killed = kill_at_line(lambda other=other: live(other, noon), number)
        live(other, noon)
        assert other.files() == reference, f"killed before line {number}"
        if not killed:
            break
    assert number > 200


def test_killed_while_history_is_taken_in_it_ends_as_if_nothing_had_happened(make_world, noon, kill_at_line):
    world = make_world("reference", s3_prefix="reference", history_days=2)
    history(world, noon)
    reference = world.files()
    for number in itertools.count(1, 97):
        other = world.beside(f"killed-{number}")
        killed = kill_at_line(lambda other=other: history(other, noon), number)
        history(other, noon)
        assert other.files() == reference, f"killed before line {number}"
        if not killed:
            break
    assert number > 1000
