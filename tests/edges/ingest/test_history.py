import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
from holes import HolesIn

from coinwatch.coingecko.response_errors import RateLimited, Unavailable
from coinwatch.errors import InvalidAction
from coinwatch.ingest.gaps import find_gaps
from coinwatch.ingest.history import CHUNK_REQUESTS_MAX, CHUNKS_MAX, append_history, fetch_history, plan_history
from coinwatch.ingest.poll import append_raw_log, fetch_prices
from coinwatch.sandbox.market import RecordedMarket, SimulatedMarket
from coinwatch.times import parse_time

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def run_history(world, as_of):
    for step in world.ingest_steps(as_of)[2:]:
        step()


def take_live(world, as_of):
    append_raw_log(world.app(), fetch_prices(world.app(), as_of))


def gaps(world, *columns):
    return [tuple(row) for row in world.rows("gaps", *columns)]


def history_requests(world):
    return [request for request in world.coingecko.requests if request.path.endswith("/range")]


def test_a_first_start_and_then_hours_in_the_middle_are_one_gap_each_that_one_request_fills(world, noon, clock):
    take_live(world, noon)
    run_history(world, noon)
    clock.now = noon + 6 * HOUR
    take_live(world, clock.now)
    find_gaps(world.app(), clock.now)
    assert plan_history(world.app(), clock.now) == [
        [{"coin": "bitcoin", "first": "2026-11-22T13:00:00Z", "last": "2026-11-22T17:00:00Z"}]
    ]
    run_history(world, clock.now)
    assert find_gaps(world.app(), clock.now) == {"coins": 0, "hours": 0}
    assert gaps(world, "coin", "currency", "first_hour", "last_hour", "state", "tries", "filled_at") == [
        ("bitcoin", "usd", noon - 3 * DAY, noon - HOUR, "filled", 1, noon),
        ("bitcoin", "usd", noon + HOUR, noon + 5 * HOUR, "filled", 1, clock.now),
    ]
    assert len(history_requests(world)) == 2


def test_hours_that_history_does_not_have_cost_no_request_until_their_backoff_is_over(make_world, noon, clock):
    lost = [noon - 30 * HOUR, noon - 31 * HOUR]
    market = HolesIn(SimulatedMarket(noon), lost)
    world = make_world(market=market)
    take_live(world, noon)
    run_history(world, noon)
    assert gaps(world, "first_hour", "last_hour", "state", "tries", "retry_at") == [
        (noon - 72 * HOUR, noon - 32 * HOUR, "filled", 1, None),
        (lost[1], lost[0], "no_data", 1, noon + 6 * HOUR),
        (noon - 29 * HOUR, noon - HOUR, "filled", 1, None),
    ]
    for number in range(1, 6):
        clock.now = noon + number * HOUR
        take_live(world, clock.now)
        run_history(world, clock.now)
    assert len(history_requests(world)) == 1
    # CoinGecko has got them by now.
    market.lost.clear()
    clock.now = noon + 6 * HOUR
    run_history(world, clock.now)
    assert len(history_requests(world)) == 2
    assert gaps(world, "state", "tries")[1] == ("filled", 2)
    assert {state for (state,) in gaps(world, "state")} == {"filled"}


def test_a_gap_beyond_the_plan_is_noted_and_fails_nothing(world, noon, clock):
    world.coingecko.fail("beyond_time_range", path="/range")
    take_live(world, noon)
    run_history(world, noon)
    rows = gaps(world, "first_hour", "last_hour", "state", "tries")
    # The limit lies somewhere in the window, so its newer half is left to the next run.
    assert rows == [
        (noon - 72 * HOUR, noon - 37 * HOUR, "beyond_plan", 1),
        (noon - 36 * HOUR, noon - HOUR, "open", 0),
    ]
    ((reason, *_),) = {row for row in gaps(world, "reason") if row[0]}
    assert "exceeds the allowed time range" in reason
    world.coingecko.recover()
    clock.now = noon + HOUR
    run_history(world, clock.now)
    assert [(state, tries) for state, tries in gaps(world, "state", "tries")] == [("beyond_plan", 1), ("filled", 1)]


def test_the_gap_of_an_unknown_coin_is_noted_and_the_others_are_filled(make_world, noon, clock):
    world = make_world(coins=("gone", "bitcoin"))
    run_history(world, noon)
    assert gaps(world, "coin", "state", "tries") == [("bitcoin", "filled", 1), ("gone", "no_data", 1)]
    assert "coin not found" in gaps(world, "reason")[1][0]
    clock.now = noon + HOUR
    find_gaps(world.app(), clock.now)
    assert plan_history(world.app(), clock.now) == [
        [{"coin": "bitcoin", "first": "2026-11-22T12:00:00Z", "last": "2026-11-22T12:00:00Z"}]
    ]


def test_while_coingecko_is_out_of_order_a_gap_stays_open_and_no_try_is_counted(world, noon):
    world.coingecko.fail("server_error", path="/range")
    with pytest.raises(Unavailable):
        run_history(world, noon)
    assert gaps(world, "state", "tries") == [("open", 0)]


def test_the_window_of_the_oldest_hour_does_not_reach_beyond_what_the_plan_allows(make_world, noon):
    world = make_world(history_days=365)
    find_gaps(world.app(), noon)
    ((window, *_),) = plan_history(world.app(), noon)
    # Only the oldest hour.
    assert fetch_history(world.app(), noon, [{**window, "last": window["first"]}]) == 1
    (request,) = history_requests(world)
    start, end = int(request.query["from"]), int(request.query["to"])
    assert noon.timestamp() - start <= 365 * 86400
    assert end - start == 2 * 86400


def test_a_rate_limit_keeps_all_workers_away_until_it_is_over(world, noon, clock):
    world.coingecko.fail("rate_limited", times=1, retry_after=30)
    with pytest.raises(RateLimited) as failure:
        fetch_prices(world.app(), noon)
    assert failure.value.retry_after == 30
    clock.now += timedelta(seconds=10)
    with pytest.raises(RateLimited, match="history: CoinGecko rate limit, retry in 20 s") as failure:
        run_history(world, noon)
    assert failure.value.retry_after == 20
    assert len(world.coingecko.requests) == 1
    clock.now += timedelta(seconds=20)
    run_history(world, noon)
    assert len(world.coingecko.requests) == 2


OUTAGE = range(1, 4)


def six_hours(world, clock, noon, unused_port=None):
    """From noon on; with a port, CoinGecko does not answer in three of them."""
    for number in range(6):
        clock.now = noon + number * HOUR
        if unused_port is None or number not in OUTAGE:
            for step in [*world.ingest_steps(clock.now), *world.process_steps()[:-1]]:
                step()
            continue
        fetch, _, find, plan, history, _ = world.without_coingecko(unused_port).ingest_steps(clock.now)
        find()
        plan()
        # In the first of these hours there is no gap yet.
        for step in (fetch, history) if number > OUTAGE[0] else (fetch,):
            with pytest.raises(Unavailable, match="Connection refused"):
                step()


def test_hours_of_an_outage_are_filled_by_the_next_run_and_raise_no_alert(make_world, noon, clock, unused_port):
    """Prices stay from hour to hour, so live and history have the same ones: the statistics must be equal."""
    moments = [noon - HOUR * number for number in range(120, -48, -1)]
    prices = [60_000 + 50.0 * ((number * 37) % 11) for number in range(len(moments))]
    fallen = [(t, price if t < noon + 2 * HOUR else price * 0.8) for t, price in zip(moments, prices, strict=True)]
    usual, broken = (make_world(name, market=RecordedMarket("bitcoin", fallen)) for name in ("usual", "broken"))
    six_hours(usual, clock, noon)
    six_hours(broken, clock, noon, unused_port)
    lost = [noon + number * HOUR for number in OUTAGE]
    sources = broken.rows("prices", "ts", "source")
    assert [ts for ts, source in sources if source == "history" and ts >= noon] == lost
    assert gaps(broken, "first_hour", "last_hour", "state", "tries")[-1] == (lost[0], lost[-1], "filled", 1)
    assert broken.files()["bitcoin_processed.csv"] == usual.files()["bitcoin_processed.csv"]
    assert ("move_1h", noon + 2 * HOUR) in usual.rows("alerts", "rule", "ts")
    # The first live price after it is a fifth below that of a day ago, and that is news.
    assert broken.rows("alerts", "rule", "ts") == [("move_24h", noon + 4 * HOUR)]


def test_a_backfill_several_at_once_ends_as_one_at_a_time(make_world, noon):
    """Each run takes its hour from history, and may find that another one has taken it already."""
    hours = [noon - HOUR * number for number in range(6, 0, -1)]

    def backfill(world, workers):
        pool_slot = threading.Lock()

        def run(as_of):
            fetch, append, find, plan, history, append_history = world.ingest_steps(as_of)
            with pool_slot:
                fetch()
            append()
            find()
            plan()
            with pool_slot:
                history()
            append_history()

        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(run, hours))
        for step in world.process_steps()[:-1]:
            step()

    one, several = (make_world(name, s3_prefix=name, history_days=2) for name in ("one", "several"))
    backfill(one, 1)
    backfill(several, 3)
    assert several.files()["bitcoin_processed.csv"] == one.files()["bitcoin_processed.csv"]
    rows = [
        sorted(line.split(b",")[:9] for line in world.files()["bitcoin_raw.csv"].splitlines())
        for world in (one, several)
    ]
    assert rows[0] == rows[1]
    # All hours of 2 days before now.
    assert len(rows[0]) == 1 + 2 * 24
    assert len(history_requests(one)) == 7
    for world in (one, several):
        names = [json.loads(line)["name"] for line in world.files()["archive/manifest.jsonl"].splitlines()]
        assert len(names) == len(set(names)) == len(history_requests(world))
        assert {state for (state,) in gaps(world, "state")} == {"filled"}


def test_a_gap_that_another_run_has_filled_costs_no_request(world, noon):
    find_gaps(world.app(), noon)
    (windows,) = plan_history(world.app(), noon)
    run_history(world, noon - timedelta(seconds=1))
    assert fetch_history(world.app(), noon, windows) == 0
    assert len(history_requests(world)) == 1


def test_a_plan_is_bounded_and_what_it_leaves_is_due_in_the_next_run(make_world, noon):
    world = make_world(coins=tuple(f"coin-{number}" for number in range(1700)))
    assert find_gaps(world.app(), noon)["coins"] == 1700
    chunks = plan_history(world.app(), noon)
    assert [len(chunk) for chunk in chunks] == [CHUNK_REQUESTS_MAX] * CHUNKS_MAX


def test_the_newest_hours_come_first_and_of_these_those_of_the_emptiest_coin(make_world, noon, clock):
    world = make_world(coins=("bitcoin", "ethereum", "solana"), history_days=100)
    few = replace(world, settings=world.settings.model_copy(update={"coins": ("bitcoin", "solana"), "history_days": 3}))
    run_history(few, noon)
    clock.now = noon + HOUR
    find_gaps(world.app(), clock.now)
    (windows,) = plan_history(world.app(), clock.now)
    assert [(window["coin"], clock.now - parse_time(window["last"])) for window in windows] == [
        ("ethereum", HOUR),
        ("bitcoin", HOUR),
        ("solana", HOUR),
        ("ethereum", 10 * DAY + HOUR),
        ("bitcoin", 10 * DAY + HOUR),
        ("solana", 10 * DAY + HOUR),
    ]


def test_by_hand_hours_are_requested_whatever_their_backoff(make_world, noon, clock):
    lost = [noon - 30 * HOUR, noon - 31 * HOUR]
    market = HolesIn(SimulatedMarket(noon), lost)
    world = make_world(market=market)
    run_history(world, noon)
    market.lost.clear()
    clock.now = noon + timedelta(minutes=1)
    for step in world.heal_steps(clock.now, coins="bitcoin", start="2026-11-21T05:00:00Z", end="2026-11-21T06:00:00Z"):
        step()
    assert gaps(world, "first_hour", "last_hour", "state", "tries")[1:3] == [
        (lost[1], lost[1], "filled", 2),
        (lost[0], lost[0], "no_data", 1),
    ]


@pytest.mark.parametrize(
    "params", [pytest.param({"coins": "bitcoin,x"}, id="coin"), pytest.param({"start": "yesterday"}, id="time")]
)
def test_by_hand_wrong_params_are_refused(world, noon, params):
    with pytest.raises(InvalidAction):
        plan_history(world.app(), noon, params)


def test_answers_before_a_failure_are_appended(make_world, noon):
    world = make_world(coins=("bitcoin", "ethereum"))
    find_gaps(world.app(), noon)
    chunks = plan_history(world.app(), noon)
    world.coingecko.fail("server_error", path="ethereum")
    with pytest.raises(Unavailable):
        fetch_history(world.app(), noon, chunks[0])
    added, left = append_history(world.app(), noon, chunks)
    assert {coin: len(times) for coin, times in added.items()} == {"bitcoin": 72}
    assert left == {"coins": 1, "hours": 72}
    assert append_history(world.app(), noon, chunks) == ({"bitcoin": []}, {}), "without progress the next hour goes on"
    assert gaps(world, "coin", "state") == [("bitcoin", "filled"), ("ethereum", "open")]
