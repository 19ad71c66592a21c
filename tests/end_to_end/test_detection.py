"""The rules on prices that really happened, and on faults put into them: what docs/detection.md says they are worth."""

import random
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pandas as pd
import pytest

from coinwatch.archive.raw_log import append_raw_prices
from coinwatch.backtest.simulation import simulate
from coinwatch.ingest.poll import NoPrice
from coinwatch.quarantine.screening import Value
from coinwatch.record import RawPrice
from coinwatch.rules import load_rules
from coinwatch.sandbox.market import RecordedMarket
from coinwatch.settings import PROJECT_DIR
from coinwatch.times import format_time

RULES = load_rules(PROJECT_DIR / "include" / "coinwatch.yaml")
MARKET = ("move_1h", "move_24h")


def detect(points):
    """Return (note, state, time, change in percent) of the transitions of live prices [(time, price or None), …]."""
    values = [Value(t, None if price is None else Decimal(str(price))) for t, price in points]
    found = simulate(values, "bitcoin", "usd", RULES).transitions
    return [(each.note, each.incident.state, each.ts, each.change_pct) for each in found]


@pytest.fixture(scope="module")
def polls(recordings):
    """Symbol → [(time, price), …]."""
    recorded = pd.read_csv(recordings / "coingecko_polled_2026.csv")
    recorded["ts"] = pd.to_datetime(recorded["timestamp_utc"], utc=True)
    return {
        symbol: sorted(zip(rows["ts"].dt.to_pydatetime(), rows["current_price_usd"], strict=True))
        for symbol, rows in recorded.groupby("symbol")
        # Those that came and went among the largest coins have a few polls only.
        if len(rows) > 2000
    }


@pytest.fixture(scope="module")
def hours(recordings):
    recorded = pd.read_csv(recordings / "btc_hourly_coinbase_2024.csv")
    times = pd.to_datetime(recorded["timestamp_utc"], utc=True)
    return list(zip(times.dt.to_pydatetime(), recorded["close"], strict=True))


def test_on_polls_that_really_happened_alerts_are_few_and_each_is_a_real_move(polls):
    """All coins of 17 weeks, from a cold start; the first two weeks teach."""
    alerts = 0
    for points in polls.values():
        begin = points[0][0] + timedelta(days=14)
        weeks = (points[-1][0] - begin) / timedelta(weeks=1)
        prices, times = dict(points), [t for t, _ in points]
        found = [
            each for each in detect(points) if each[0] in MARKET and each[1] in ("firing", "worse") and each[2] >= begin
        ]
        alerts += len(found)
        assert weeks > 15
        assert len(found) <= 0.5 * weeks
        for note, _, ts, change in found:
            # By the polls themselves: in the time that the rule looks at, the price really was that far away.
            span = timedelta(hours=25 if note == "move_24h" else 3)
            away = [abs(prices[ts] / prices[t] - 1) for t in times if ts - span <= t < ts]
            assert max(away) >= abs(change) / 100 - 1e-9
            assert abs(change) >= 3
    assert alerts > 0


SEEDS = (1, 2, 3, 4, 5)


def with_faults(hours, faults):
    """The prices with some of them changed: {number: price}."""
    return [(t, faults.get(number, price)) for number, (t, price) in enumerate(hours)]


def places(chosen, hours, length=1):
    """Hours far enough apart, after the warm-up, in calm times: the fault is to be all that happens."""
    prices = [price for _, price in hours]
    calm = [
        number
        for number in range(1000, len(hours) - 60, 80)
        if max(prices[number - 30 : number + length + 30]) / min(prices[number - 30 : number + length + 30]) < 1.05
    ]
    return sorted(chosen.sample(calm, min(40, len(calm))))


@pytest.fixture(scope="module")
def natural(hours):
    """What is found without faults: (note, state, time)."""
    return {each[:3] for each in detect(hours)}


@pytest.mark.parametrize("seed", SEEDS)
def test_absurd_values_are_quarantined_in_the_same_hour(hours, natural, seed):
    chosen = random.Random(seed)  # noqa: S311 - a fixed choice is what is wanted
    numbers = places(chosen, hours)
    faults = {number: chosen.choice([10.0, 0.1, 0.01, 100.0, 0.0]) * hours[number][1] or None for number in numbers}
    found = detect(with_faults(hours, faults))
    quarantined = {ts for note, state, ts, _ in found if (note, state) == ("bad_value", "firing")}
    assert quarantined == {hours[number][0] for number in numbers}
    assert not [each for each in found if each[0] == "level_confirmed"]
    # Nothing of them reaches the rules of moves.
    near = {hours[number + after][0] for number in numbers for after in range(-1, 30)}
    assert [each for each in found if each[0] in MARKET and each[2] in near and each[:3] not in natural] == []


def test_spikes_of_one_sample_raise_an_alert_and_are_corrected_by_the_next_one(hours, natural):
    spikes = named = 0
    natural_moves = {ts for note, _, ts in natural if note in MARKET}
    for seed in SEEDS:
        chosen = random.Random(seed)  # noqa: S311 - a fixed choice is what is wanted
        numbers = places(chosen, hours)
        sizes = {number: chosen.choice([-1, 1]) * chosen.uniform(0.08, 0.2) for number in numbers}
        found = detect(with_faults(hours, {number: hours[number][1] * (1 + size) for number, size in sizes.items()}))
        alerted = {ts for note, state, ts, _ in found if (note, state) == ("move_1h", "firing")}
        corrected = {ts for note, _, ts, _ in found if note == "spike_reverted"}
        assert {hours[number][0] for number in numbers} <= alerted
        # Nor does it raise an alert again when it lies a day back.
        other = {ts for note, state, ts, _ in found if note in MARKET and state in ("firing", "worse")}
        assert other - natural_moves <= {hours[number][0] for number in numbers}
        spikes += len(numbers)
        named += sum(hours[number + 1][0] in corrected for number in numbers)
    assert spikes >= 100
    assert named >= 0.99 * spikes


@pytest.mark.parametrize("seed", SEEDS)
def test_a_frozen_feed_is_stale_at_the_third_poll_and_resolved_when_it_moves(hours, seed):
    chosen = random.Random(seed)  # noqa: S311 - a fixed choice is what is wanted
    lengths = {number: chosen.randint(3, 24) for number in places(chosen, hours, length=24)}
    faults = {number + after: hours[number][1] for number, length in lengths.items() for after in range(length)}
    found = detect(with_faults(hours, faults))
    # No real price of 2024 is stale.
    assert {(ts, state) for note, state, ts, _ in found if note == "stale"} == {
        *((hours[number + 2][0], "firing") for number in lengths),
        *((hours[number + length][0], "resolved") for number, length in lengths.items()),
    }


def test_a_new_level_is_accepted_at_the_third_poll_that_agrees(hours):
    moved = [(t, price * (0.6 if number >= 2000 else 1.0)) for number, (t, price) in enumerate(hours[:2100])]
    found = [each for each in detect(moved) if each[0] in ("bad_value", "level_confirmed")]
    assert [(note, ts) for note, _, ts, _ in found] == [
        ("bad_value", hours[2000][0]),
        ("level_confirmed", hours[2002][0]),
    ]


def test_a_backtest_finds_what_the_pipeline_found_hour_by_hour(hours, make_world, clock):
    """The crash of August 2024 with one fault of each kind; the pipeline hands its state on through the warehouse.

    The days before come to the pipeline at once, as after an outage of `process_prices`; the 48 hours one by one.
    """
    begin = next(number for number, (t, _) in enumerate(hours) if t >= datetime(2024, 7, 30, tzinfo=UTC))
    points = [(t, float(price)) for t, price in hours[begin : begin + 164]]
    factors = {117: 10, 118: 0.01, 120: 1.15, 123: 0} | dict.fromkeys(range(156, 164), 0.6)
    frozen = dict.fromkeys(range(124, 128), points[124][1])
    points = [(t, frozen.get(n, price) * factors.get(n, 1)) for n, (t, price) in enumerate(points)]
    world = make_world(market=RecordedMarket("bitcoin", points))
    days_before = [
        RawPrice(format_time(t), "bitcoin", "usd", repr(price), "", "", "", "", format_time(t), "live", "recorded")
        for t, price in points[:-48]
    ]
    append_raw_prices(world.settings.raw_path("bitcoin"), days_before)
    for t, _ in points[-48:]:
        clock.now = t
        fetch, append, *_ = world.ingest_steps(t)
        # If no coin has a price, there is nothing to append, and watch_feed sees what is quarantined.
        with suppress(NoPrice):
            fetch()
            append()
        for step in world.process_steps()[:3]:
            step()
    values = [Value(t, Decimal(str(price)) if price > 0 else None) for t, price in points]
    found = simulate(values, "bitcoin", "usd", RULES).transitions
    stored = world.rows("alerts", "id", "incident_id", "rule", "state", "severity", "ts", "value")
    assert sorted(tuple(row[:6]) for row in stored) == sorted(
        (each.id, each.incident.id, each.note, each.incident.state, each.severity, each.ts) for each in found
    )
    changes = {each.id: each.change_pct for each in found if each.incident.is_open and each.change_pct is not None}
    assert {row.id: row.value for row in stored if row.value is not None} == pytest.approx(changes)
    recent = {each.note for each in found if each.ts >= points[-48][0]}
    assert recent == {*MARKET, "bad_value", "level_confirmed", "spike_reverted", "stale"}
