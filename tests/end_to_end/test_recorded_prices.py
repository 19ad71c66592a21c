"""Real prices, recorded, through the real client and the whole pipeline, against the reference implementation."""

import csv
import json
from datetime import timedelta
from decimal import Decimal

import pytest
from prices import as_prices, compute
from reference import HOUR, expected_statistics

from coinwatch.rules import load_rules
from coinwatch.sandbox.market import RecordedMarket
from coinwatch.settings import PROJECT_DIR
from coinwatch.statistics.rolling import to_records
from coinwatch.times import format_time, parse_time

POLLED = timedelta(weeks=3)
"""How much of the recorded polls goes through HTTP."""


def read_rows(content):
    return list(csv.DictReader(content.decode().splitlines()))


@pytest.fixture(scope="module")
def polls(recordings):
    """Symbol → [(time, price as text), …]; those with a few polls only are left out."""
    by_symbol = {}
    with (recordings / "coingecko_polled_2026.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            poll = (parse_time(row["timestamp_utc"]), row["current_price_usd"])
            by_symbol.setdefault(row["symbol"], []).append(poll)
    return {symbol: sorted(points) for symbol, points in by_symbol.items() if len(points) > 2000}


def check_statistics(rows, points):
    """Rows have a value, as a number or as text, by name of each statistic."""
    for row, expected in zip(rows, expected_statistics(points), strict=True):
        for name, value in expected.items():
            found = None if row[name] in (None, "") else float(row[name])
            assert found == (None if value is None else pytest.approx(value, rel=1e-7, abs=1e-9)), (row, name)


def check_processed(rows, points):
    assert [(parse_time(row["timestamp"]), Decimal(row["price"])) for row in rows] == points
    check_statistics(rows, [(t, float(price)) for t, price in points])


def check_warehouse(world, rows):
    names = ("points_24h", "rolling_mean_24h", "rolling_std_24h", "zscore_24h", "change_1h_pct", "change_24h_pct")
    stored = world.rows("price_statistics", "ts", "price", *names, "sigma_1h_pct")
    assert [
        (format_time(ts), *("" if value is None else float(value) for value in values)) for ts, *values in stored
    ] == [
        (row["timestamp"], *(float(row[name]) if row[name] else "" for name in ("price", *names, "sigma_1h_pct")))
        for row in rows
    ]


def check_s3(world, raw, processed):
    for layer, rows in (("raw", raw), ("processed", processed)):
        uploaded = []
        for key, content in world.objects(f"{layer}/").items():
            date, hour = (part.partition("=")[2] for part in key.split("/")[1:3])
            of_hour = read_rows(content)
            assert {row["timestamp"][:13] for row in of_hour} == {f"{date}T{hour}"}
            uploaded += of_hour
        by_time = sorted(rows, key=lambda row: (row["timestamp"], row.get("source", "")))
        assert sorted(uploaded, key=lambda row: (row["timestamp"], row.get("source", ""))) == by_time


def test_17_weeks_of_polls_that_really_happened_have_the_statistics_of_the_reference(polls):
    rules = load_rules(PROJECT_DIR / "include" / "coinwatch.yaml")
    prices = as_prices([(symbol, t, price, "live") for symbol in sorted(polls) for t, price in polls[symbol]])
    for symbol, rows in compute(prices, rules).groupby("coin"):
        check_statistics(to_records(rows), [(t, float(price)) for t, price in polls[symbol]])


def test_3_weeks_of_polls_that_really_happened_end_to_end(make_world, polls, clock):
    """Every poll at its own time; the second Dag runs after each at first, then only now and then, as events merge."""
    wanted = [(t, price) for t, price in polls["btc"] if t - polls["btc"][0][0] < POLLED]
    points = [(t, Decimal(price)) for t, price in wanted]
    world = make_world(market=RecordedMarket("bitcoin", [(t, float(price)) for t, price in wanted]))
    for number, (t, _) in enumerate(wanted):
        clock.now = t
        for step in world.ingest_steps(t)[:2]:
            step()
        if number < 30 or number % 150 == 0 or number == len(wanted) - 1:
            for step in world.process_steps():
                step()
    files = world.files()
    raw, processed = read_rows(files["bitcoin_raw.csv"]), read_rows(files["bitcoin_processed.csv"])
    assert [(parse_time(row["timestamp"]), Decimal(row["price"])) for row in raw] == points
    assert {row["source"] for row in raw} == {"live"}
    assert len(world.coingecko.requests) == len(wanted) > 400
    assert len(files["archive/manifest.jsonl"].splitlines()) == len(wanted)
    check_processed(processed, points)
    check_warehouse(world, processed)
    check_s3(world, raw, processed)


def test_60_days_of_hours_that_really_happened_come_as_history(make_world, recordings, clock):
    """One live price and the hours before it, which the history endpoint has."""
    with (recordings / "btc_hourly_coinbase_2024.csv").open(newline="") as file:
        closes = {parse_time(row["timestamp_utc"]): row["close"] for row in csv.DictReader(file)}
    now = max(closes)
    clock.now = now
    world = make_world(
        market=RecordedMarket("bitcoin", [(t, float(price)) for t, price in closes.items()]), history_days=60
    )
    world.run()
    points = [(now - HOUR * number, Decimal(closes[now - HOUR * number])) for number in range(60 * 24, -1, -1)]
    files = world.files()
    raw, processed = read_rows(files["bitcoin_raw.csv"]), read_rows(files["bitcoin_processed.csv"])
    in_order = sorted(raw, key=lambda row: row["timestamp"])
    assert [(parse_time(row["timestamp"]), Decimal(row["price"])) for row in in_order] == points
    assert [row["source"] for row in in_order] == ["history"] * 60 * 24 + ["live"]
    check_processed(processed, points)
    check_warehouse(world, processed)
    check_s3(world, raw, processed)
    assert [json.loads(line)["status"] for line in files["archive/manifest.jsonl"].splitlines()] == [200, 200]
